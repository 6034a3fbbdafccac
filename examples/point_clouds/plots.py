"""The picture: some sets, with their classes and those that the network says."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots


def answers(sets, labels, predicted, classes, path, columns=5, rows=2):
    """Point clouds of every class, wrong answers in red; a third feature is the grey value."""
    chosen = _of_every_class(labels, predicted, columns * rows)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.7 * columns, 1.9 * rows), squeeze=False, constrained_layout=True
    )
    for axis in axes.flat:
        axis.set_axis_off()
    shown = np.concatenate([sets[i][:, :2] for i in chosen])
    limits = np.stack([shown.min(axis=0), shown.max(axis=0)], axis=1)
    limits += 0.03 * np.ptp(limits) * np.array([-1, 1])
    for axis, i in zip(axes.flat, chosen, strict=False):
        points, style = sets[i], {"s": 1}
        if points.shape[1] > 2:
            style = {"s": 8, "c": points[:, 2], "cmap": "Greys", "vmin": -1}
        axis.scatter(points[:, 0], points[:, 1], lw=0, **style)
        right = labels[i] == predicted[i]
        title = classes[labels[i]] + ("" if right else f"\nnot {classes[predicted[i]]}")
        axis.set_title(title, fontsize=8, color="black" if right else "tab:red")
        axis.set(xlim=limits[0], ylim=limits[1], aspect="equal")
    plots.save(figure, path)


def _of_every_class(labels, predicted, count):
    """Indices of the first sets of every class, wrong answers among them if there are any."""
    right = np.flatnonzero(labels == predicted)
    wrong = np.flatnonzero(labels != predicted)[: count // 5]
    chosen = list(wrong)
    classes = np.unique(labels[right])
    places = [right[labels[right] == label] for label in classes]
    for i in range(count):
        chosen += [place[i] for place in places if i < len(place)]
    return sorted(chosen[:count], key=lambda i: (labels[i], i))
