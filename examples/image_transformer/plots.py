"""The pictures: images that the network draws, and images that it completes."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots


def _show(axis, image, levels):
    """One image, gray or in colour, large values white."""
    image = image / (levels - 1)
    if image.shape[-1] == 1:
        axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axis.imshow(image, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _grid(rows, columns, title):
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(0.62 * columns + 0.6, 0.62 * rows + 0.5),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(title, fontsize=9)
    return figure, axes


def samples(images, levels, path, names=None, title="drawn by the network"):
    """Images in rows: `(rows, columns, height, width, channels)`, a name for each row."""
    rows, columns = images.shape[:2]
    figure, axes = _grid(rows, columns, title)
    for row in range(rows):
        for column in range(columns):
            _show(axes[row, column], images[row, column], levels)
        if names is not None:
            axes[row, 0].set_ylabel(names[row], rotation=0, ha="right", va="center")
    plots.save(figure, path)


def completions(given, completed, truth, levels, path):
    """Upper halves, several ways of going on, and the images they were taken from.

    Args:
        given: `(n, rows, width, channels)`.
        completed: `(ways, n, height, width, channels)`.
        truth: `(n, height, width, channels)`.
    """
    ways, count = completed.shape[:2]
    figure, axes = _grid(ways + 2, count, "upper halves, completed by the network")
    # Half gray: not an image of the data.
    upper = np.full(truth.shape, 0.5 * (levels - 1))
    upper[:, : given.shape[1]] = given
    for row, images in enumerate((upper, *completed, truth)):
        for column in range(count):
            _show(axes[row, column], images[column], levels)
    for row, name in ((0, "given"), (1, "completed"), (ways + 1, "true")):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    plots.save(figure, path)
