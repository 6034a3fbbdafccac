"""The picture: an example of the task, and accuracy against the number of training sets."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots
from examples.symmetric_elements.data import WAVES

MARKERS = "osD^vx"


def comparison(task_name, chance, example, sizes, accuracies, path):
    """Curves with error bars, on the right of one example of the task.

    Args:
        task_name: `"signals"` or `"odd-one-out"`.
        chance: Accuracy of guessing.
        example: `(inputs, labels)` of some sets.
        sizes: Numbers of training sets.
        accuracies: Dict from names to `(mean, error)` for every size.
        path: File of the picture.
    """
    figure = plt.figure(figsize=(9.5, 3.8), constrained_layout=True)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.35))
    (_signals if task_name == "signals" else _images)(left, *example)
    axis = right.subplots()
    for (name, points), marker in zip(accuracies.items(), MARKERS, strict=False):
        mean, error = np.transpose(points)
        axis.errorbar(sizes, mean, error, marker=marker, ms=4, capsize=2, lw=1.2, label=name)
    axis.axhline(chance, color="gray", ls=":", label="guessing")
    axis.set(xlabel="training sets", ylabel="accuracy on fresh sets", xscale="log", ylim=(0, 1.02))
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    plots.save(figure, path)


def _signals(figure, inputs, labels):
    """One of the measurements of three sets, and what is left of it in their mean."""
    axes = figure.subplots(len(WAVES), 1, sharex=True)
    for kind, axis in enumerate(axes):
        measured = inputs[np.argmax(labels == kind), :, :, 0]
        axis.plot(measured[0], color="tab:blue", alpha=0.45, lw=0.8, label="one measurement")
        axis.plot(measured.mean(axis=0), color="black", lw=1.2, label="mean of all 25")
        axis.set_ylabel(WAVES[kind])
    axes[-1].set_xlabel("sample")
    axes[0].legend(frameon=False, fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))


def _images(figure, inputs, labels):
    """Two sets, the odd image framed."""
    grid = figure.subplots(4, 4)
    for i, axis in enumerate(grid.flat):
        one, image = divmod(i, 8)
        axis.imshow(inputs[one, image, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        odd = labels[one] == image
        for spine in axis.spines.values():
            spine.set(visible=True, color="tab:red" if odd else "lightgray", lw=2.5 if odd else 0.5)
    grid[0, 0].set_title("a set; red: the odd one out", loc="left", fontsize=9)
    grid[2, 0].set_title("another set", loc="left", fontsize=9)
