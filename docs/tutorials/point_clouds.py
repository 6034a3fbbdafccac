"""Classify point clouds from a list of arrays.

Handwritten digits become point clouds: every lit pixel is a point with its two coordinates and its
grey value. The clouds have different sizes, so they come as a list of arrays. `SetDataset` pads
them to a few sizes and hands them to `fit`.

The digits of scikit-learn need no download. The same code works for the images of
`keras.datasets.mnist.load_data()`.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn import datasets

import keras_sets

keras.utils.set_random_seed(0)

# ## From images to a list of arrays

images, labels = datasets.load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8) / 16


def point_cloud(image, threshold=0.2):
    """`(n, 3)`: place of every lit pixel in [-1, 1] x [-1, 1], and its value."""
    rows, columns = np.nonzero(image > threshold)
    place = np.stack([columns, -rows], axis=1) / 3.5 + [-1, 1]
    return np.concatenate([place, image[rows, columns, None]], axis=1)


clouds = [point_cloud(image) for image in images]
print(len(clouds), min(map(len, clouds)), max(map(len, clouds)))

# ## Datasets
#
# A compiling backend compiles one program for each size, so the batches have at most four sizes.
# Without shuffling, the rows of `predict` keep the order of the list.

train = keras_sets.utils.SetDataset(clouds[:1400], labels[:1400], batch_size=50, seed=0)
test = keras_sets.utils.SetDataset(clouds[1400:], labels[1400:], shuffle=False)
print(train.buckets)

# ## Model
#
# The points of a `Swarm` share their states for some iterations. The mean over the states then
# classifies the cloud.

model = keras_sets.models.swarm(3, 10, hidden_units=48, iterations=3, output_pooling="mean")
model.compile(
    keras.optimizers.Adam(0.01),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(train, epochs=15, shuffle=False, verbose=0)  # the dataset shuffles
accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
print(accuracy)  # above 0.8; guessing gives 0.1

# ## Look at answers

predicted = model.predict(test, verbose=0).argmax(axis=-1)
figure, axes = plt.subplots(2, 5, figsize=(7, 3), layout="constrained")
for axis, cloud, answer in zip(axes.flat, clouds[1400:], predicted, strict=False):
    axis.scatter(cloud[:, 0], cloud[:, 1], c=cloud[:, 2], cmap="gray_r", vmin=0, s=50)
    axis.set(title=str(answer), aspect="equal", xticks=[], yticks=[], xlim=(-1.2, 1.2))
figure.savefig("point_clouds.png", dpi=110)

# ![Ten point clouds and the predicted digits](../images/tutorials/point_clouds.png)
