"""The pictures: images that the network draws, and images that it completes."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots


def _mosaic(images, levels, path, title, names):
    """Images side by side as one picture, gray or in colour, large values white.

    Args:
        images: `(rows, columns, height, width, channels)`.
        names: One for each row.
    """
    rows, columns, height, width, channels = images.shape
    gap = max(1, height // 8)
    canvas = np.ones((rows, height + gap, columns, width + gap, channels))
    canvas[:, :height, :, :width] = images.swapaxes(1, 2) / (levels - 1)
    canvas = canvas.reshape(rows * (height + gap), columns * (width + gap), channels)
    canvas = canvas[:-gap, :-gap]
    size = (0.62 * columns + 0.8, 0.62 * rows * height / width + 0.5)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    if channels == 1:
        axis.imshow(canvas[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axis.imshow(canvas, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=(height + gap) * np.arange(rows) + (height - 1) / 2)
    axis.set_yticklabels(names)
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    plots.save(figure, path)


def samples(images, levels, path, names=None, title="drawn by the network"):
    """Images in rows: `(rows, columns, height, width, channels)`, a name for each row."""
    _mosaic(images, levels, path, title, names or [""] * len(images))


def completions(given, completed, truth, levels, path):
    """Upper halves, several ways of going on, and the images they were taken from.

    Args:
        given: `(n, rows, width, channels)`.
        completed: `(ways, n, height, width, channels)`.
        truth: `(n, height, width, channels)`.
    """
    # Half gray: not an image of the data.
    upper = np.full(truth.shape, 0.5 * (levels - 1))
    upper[:, : given.shape[1]] = given
    names = ["given", "completed", *[""] * (len(completed) - 1), "true"]
    images = np.stack([upper, *completed, truth])
    _mosaic(images, levels, path, "upper halves, completed by the network", names)


def comparison(curves, path):
    """Bits per dimension of the images held out against minutes of training.

    Args:
        curves: Dict from a network's name to the rows of its `metrics.csv`.
    """
    figure, axis = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
    for name, rows in curves.items():
        # The log rounds to tenths of a second.
        minutes = [max(row["seconds"], 0.1) / 60 for row in rows]
        axis.plot(minutes, [row["val_bits_per_dimension"] for row in rows], label=name)
    axis.set(xlabel="minutes of training", ylabel="bits per dimension, held out")
    axis.set(xscale="log", yscale="log")
    axis.legend(frameon=False)
    plots.save(figure, path)
