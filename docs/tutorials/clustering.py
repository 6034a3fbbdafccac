"""Cluster points with the estimator.

`AmortizedClustering` clusters points in the plane. It follows scikit-learn's conventions, finds the
number of clusters itself, and takes any unit. A network that comes with the package makes the first
guess; expectation maximisation and merging refine it.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn import cluster
from sklearn import metrics

import keras_sets

# ## Data
#
# Five clusters of different shapes and sizes, in metres. Two of them are long and lie side by side.

rng = np.random.default_rng(3)
centers = 1000.0 * np.array([[0, 0], [0.5, 2], [6, 5], [-4, 5], [8, 8]])
spreads = 1000.0 * np.array([[2.5, 0.3], [2.5, 0.3], [0.6, 0.6], [0.2, 0.2], [0.4, 1.2]])
sizes = [200, 120, 150, 60, 100]
truth = np.repeat(np.arange(5), sizes)
points = centers[truth] + spreads[truth] * rng.normal(size=(len(truth), 2))

# ## Fit

estimator = keras_sets.wrappers.AmortizedClustering()
labels = estimator.fit_predict(points)
print(estimator.n_clusters_)  # 5

# k-means has to be told the number. The adjusted Rand index is 1 for the true clusters.

told = cluster.KMeans(5, n_init=10, random_state=0).fit_predict(points)
scores = {
    "AmortizedClustering": metrics.adjusted_rand_score(truth, labels),
    "k-means, told 5": metrics.adjusted_rand_score(truth, told),
}
print(scores)

# ## New points
#
# A fitted estimator assigns new points, and says how sure it is.

grid = np.stack(np.meshgrid(np.linspace(-9e3, 13e3, 120), np.linspace(-6e3, 12e3, 120)), axis=-1)
probabilities = estimator.predict_proba(grid.reshape(-1, 2))
confidence = probabilities.max(axis=1).reshape(120, 120)

figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
extent = [-9e3, 13e3, -6e3, 12e3]
axes[0].imshow(confidence, cmap="gray", origin="lower", extent=extent, aspect="auto", vmin=0)
shown = {"AmortizedClustering": labels, "k-means, told 5": told, "truth": truth}
for axis, (title, colors) in zip(axes, shown.items(), strict=True):
    axis.scatter(*points.T, c=colors, cmap="tab10", s=4)
    axis.set_title(title)
figure.savefig("clustering.png", dpi=110)

# ![Points coloured by cluster](../images/tutorials/clustering.png)
#
# *Left: the clusters of the estimator; the ground is dark where it is unsure. Middle: k-means.
# Right: the truth.*
#
# ## Without refinement
#
# The network alone answers with one forward pass. `models.load_pretrained("clustering_2d")` is the
# same network as an ordinary Keras model, for batches of sets.

network = keras_sets.models.load_pretrained("clustering_2d")
standard = (points - points.mean(axis=0)) / points.std()
mask = np.ones((1, len(points)), bool)
logits = network.predict({"entities": standard[None], "mask": mask}, verbose=0)
print(metrics.adjusted_rand_score(truth, logits[0].argmax(axis=-1)))
