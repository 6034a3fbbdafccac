"""Classify point clouds from a list of arrays.

The images of MNIST become point clouds: every lit pixel is a point. The clouds have different
sizes, so they come as a list of arrays. `SetDataset` pads them to a few sizes and hands them to
`fit`.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)

# ## From images to a list of arrays
#
# Keras downloads 60,000 images for training and 10,000 for the test. A point has the two
# coordinates and the grey value of its pixel. Sines and cosines of the coordinates let a small
# network see fine detail after few steps.

(images, labels), (test_images, test_labels) = keras.datasets.mnist.load_data()


def point_cloud(image, threshold=0.2):
    """`(n, 15)`: place of every lit pixel in [-1, 1] x [-1, 1], its value, and 12 waves."""
    image = image / 255
    rows, columns = np.nonzero(image > threshold)
    middle = (len(image) - 1) / 2
    place = np.stack([columns - middle, middle - rows], axis=1) / middle
    angles = np.pi * np.concatenate([place, 2 * place, 4 * place], axis=1)
    value = image[rows, columns, None]
    return np.concatenate([place, value, np.sin(angles), np.cos(angles)], axis=1)


clouds = [point_cloud(image) for image in images]
test_clouds = [point_cloud(image) for image in test_images]
print(len(clouds), min(map(len, clouds)), max(map(len, clouds)))

# ## Datasets
#
# The network trains on 50 points of each cloud, drawn anew in every epoch. That takes half the time
# of all points. The test takes all points. A compiling backend compiles one program for each size,
# so the batches have at most four sizes. Without shuffling, the rows of `predict` keep the order of
# the list.

train = keras_sets.utils.SetDataset(clouds, labels, batch_size=100, points=50, seed=0)
test = keras_sets.utils.SetDataset(test_clouds, test_labels, batch_size=500, shuffle=False)
print(test.buckets)

# ## Model
#
# Deep sets apply one network to every point, and pool. The maximum over the points then classifies
# the cloud.

model = keras_sets.models.deep_sets(15, 10, hidden_units=96, output_pooling="max")
epochs = 2
learning_rate = keras.optimizers.schedules.CosineDecay(0.003, epochs * len(train))
model.compile(
    keras.optimizers.Adam(learning_rate),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
model.fit(train, epochs=epochs, shuffle=False, verbose=0)  # the dataset shuffles
predicted = model.predict(test, verbose=0).argmax(axis=-1)
accuracy = np.mean(predicted == test_labels)
print(accuracy)  # above 0.94; guessing gives 0.1

# ## Look at answers

figure, axes = plt.subplots(2, 5, figsize=(7, 3), layout="constrained")
for axis, cloud, answer in zip(axes.flat, test_clouds, predicted, strict=False):
    axis.scatter(cloud[:, 0], cloud[:, 1], c=cloud[:, 2], cmap="gray_r", vmin=0, s=5)
    axis.set(title=str(answer), aspect="equal", xticks=[], yticks=[], xlim=(-1, 1), ylim=(-1, 1))
figure.savefig("point_clouds.png", dpi=110)

# ![Ten point clouds and the predicted digits](../images/tutorials/point_clouds.png)
#
# The [example](../results.md#digits-of-mnist) reaches 0.98 with the empirical characteristic
# function of the points.
