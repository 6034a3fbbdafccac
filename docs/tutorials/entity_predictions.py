"""Predict something for every entity.

Every set holds points along a line, and some outliers. The task is to find the outliers: one answer
for every point, which depends on the rest of its set. The targets have as many entries as their set
has points, and `SetDataset` pads them alike.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# ## Data: lists of sets and of targets


def draw():
    """Points `(n, 2)` along a random line, and which of them are outliers, `(n,)`."""
    n = rng.integers(20, 80)
    outlier = rng.random(n) < 0.2
    angle = rng.uniform(0, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    points = rng.uniform(-2, 2, size=(n, 1)) * direction + 0.1 * rng.normal(size=(n, 2))
    points[outlier] = rng.uniform(-2, 2, size=(outlier.sum(), 2))
    return points, outlier.astype("int32")


sets, targets = zip(*(draw() for _ in range(1200)), strict=True)
train = keras_sets.utils.SetDataset(list(sets[:1000]), list(targets[:1000]), batch_size=50, seed=0)
test = keras_sets.utils.SetDataset(list(sets[1000:]), buckets=1)  # without targets: in order

# ## Model
#
# A `Swarm` answers for every entity. Its entities share their states over the iterations. Padding
# does not count in the loss.

model = keras_sets.models.swarm(2, 2, hidden_units=32, iterations=5, pooling="mean")
model.compile(
    keras.optimizers.Adam(0.01),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
model.fit(train, epochs=15, shuffle=False, verbose=0)

# ## Answers for every entity
#
# With `buckets=1` all batches have one size. The answers of set i are the first `len(sets[i])`.

probabilities = keras.ops.softmax(model.predict(test, verbose=0))
probabilities = keras.ops.convert_to_numpy(probabilities)[..., 1]
answers = [row[: len(points)] for row, points in zip(probabilities, sets[1000:], strict=True)]
outliers = np.concatenate(targets[1000:])
accuracy = np.mean((np.concatenate(answers) > 0.5) == outliers)
inliers = 1 - np.mean(outliers)
print(accuracy, inliers)  # the second is the accuracy of "no outliers"

figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
for axis, points, outlier, answer in zip(axes, sets[1000:], targets[1000:], answers, strict=False):
    dots = axis.scatter(*points.T, c=answer, cmap="coolwarm", vmin=0, vmax=1, s=15)
    axis.scatter(*points[outlier == 1].T, facecolors="none", edgecolors="black", s=50, lw=0.5)
    axis.set(aspect="equal", xticks=[], yticks=[])
figure.colorbar(dots, ax=axes, label="probability of an outlier")
figure.savefig("entity_predictions.png", dpi=110)

# ![Points coloured by the probability of an outlier](../images/tutorials/entity_predictions.png)
#
# *Three sets of the test. Circles mark the true outliers.*
