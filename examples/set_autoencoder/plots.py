"""Pictures: sets above their reconstructions, and how many points both have."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots


def reconstructions(truth, predicted, labels, path, columns=10):
    """The first set of every class, and of some classes the second."""
    rank = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels[:1000])])
    chosen = np.lexsort((labels[:1000], rank))[:columns]
    chosen = sorted(chosen, key=lambda i: labels[i])
    figure, axes = plt.subplots(
        2, len(chosen), figsize=(1.1 * len(chosen), 2.6), squeeze=False, constrained_layout=True
    )
    rows = (truth, "tab:blue"), (predicted, "tab:red")
    for row, (sets, color) in zip(axes, rows, strict=True):
        for axis, i in zip(row, chosen, strict=True):
            axis.scatter(sets[i][:, 0], sets[i][:, 1], s=6, lw=0, color=color)
            axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xticks=[], yticks=[])
            axis.set_title(f"{len(sets[i])} points", fontsize=7)
    axes[0, 0].set_ylabel("set", fontsize=8)
    axes[1, 0].set_ylabel("reconstruction", fontsize=8)
    plots.save(figure, path)


def numbers(truth, predicted, path):
    """The number of points of reconstructions against that of sets."""
    true, said = (np.array([len(points) for points in sets]) for sets in (truth, predicted))
    figure, axis = plt.subplots(figsize=(3.6, 3.4), constrained_layout=True)
    limit = max(true.max(), said.max()) + 1
    axis.plot([0, limit], [0, limit], color="black", lw=0.6)
    axis.scatter(true[:3000], said[:3000], s=5, alpha=0.3, lw=0)
    axis.set(xlabel="points of the set", ylabel="points of the reconstruction", aspect="equal")
    plots.save(figure, path)
