"""Pictures that all examples draw. Matplotlib is imported here and nowhere at start-up."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

plt.rcParams.update(
    {
        "figure.dpi": 110,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
    }
)


def save(figure, path):
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def learning_curves(rows, path, skip=("epoch", "learning_rate", "seconds")):
    """Every metric against the epoch, training and validation in one panel."""
    if not rows:
        return
    names = [key for key in rows[0] if key not in skip and not key.startswith("val_")]
    epochs = [row["epoch"] for row in rows]
    figure, axes = plt.subplots(
        1, len(names) + 1, figsize=(3.2 * (len(names) + 1), 2.6), constrained_layout=True
    )
    for axis, name in zip(axes, names, strict=False):
        axis.plot(epochs, [row[name] for row in rows], ".-", label="training")
        if f"val_{name}" in rows[0]:
            axis.plot(epochs, [row[f"val_{name}"] for row in rows], ".-", label="validation")
        axis.set(xlabel="epoch", title=name.replace("_", " "))
    axes[0].legend(frameon=False)
    axes[-1].plot(epochs, [row["learning_rate"] for row in rows], ".-", color="gray")
    axes[-1].set(xlabel="epoch", title="learning rate", yscale="log")
    save(figure, path)


def weight_traces(names, values, path, columns=4):
    """The traced entries of every weight against the epoch, a panel for each weight."""
    if not values:
        return
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.1 * rows),
        squeeze=False,
        constrained_layout=True,
    )
    epochs = np.arange(1, len(values) + 1)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for i, (axis, name) in enumerate(zip(axes.flat, names, strict=False)):
        axis.plot(epochs, np.array([epoch[i] for epoch in values]), lw=0.8)
        axis.set_title(name, fontsize=7)
        axis.set_xlabel("epoch")
    save(figure, path)
