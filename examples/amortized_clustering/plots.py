"""The picture: what the network sees, what it says, and how sure it is."""

import matplotlib.pyplot as plt
import numpy as np

from examples.amortized_clustering import evaluate
from examples.amortized_clustering.data import PADDING
from examples.amortized_clustering.model import PROBED
from examples.amortized_clustering.model import build
from examples.common import devices
from examples.common import plots

COLORS = plt.get_cmap("tab10")(np.arange(10))
BACKGROUND = np.array([0.6, 0.6, 0.6, 1.0])
GRID = 64
VANISHING = 1e-9


def confidence_maps(model, options, tasks, extents):
    """Largest cluster probability on a grid over the plane of every task, or None.

    Grid points join the set with a vanishing weight: the network answers for them too,
    and they leave the means over the set as they are.
    """
    if options.model not in PROBED or (options.model == "swarm" and options.pooling != "mean"):
        return None
    if options.dimensions != 2:
        return None
    probe = build(options, weighted=True)
    probe.set_weights(model.get_weights())
    grids = [
        np.stack(np.meshgrid(np.linspace(*e[:2], GRID), np.linspace(*e[2:], GRID)), axis=-1)
        for e in extents
    ]
    grids = np.reshape(grids, (len(tasks), -1, 2)).astype("float32")
    points, mask, _ = tasks.padded(np.arange(len(tasks)), int(tasks.sizes.max()))
    everywhere = np.ones(grids.shape[:2])
    inputs = {
        "entities": np.concatenate([grids, points], axis=1),
        "mask": np.concatenate([everywhere > 0, mask], axis=1),
        "weights": np.concatenate([VANISHING * everywhere, mask], axis=1).astype("float32"),
    }
    logits = np.asarray(devices.predict_once(probe, inputs))[:, : GRID**2].astype("float64")
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (p.max(axis=-1) / p.sum(axis=-1)).reshape(-1, GRID, GRID)


def assignments(model, options, tasks, path, count=4):
    """Points coloured by predicted cluster above the truth, confidence shaded."""
    count = min(count, len(tasks))
    tasks = tasks.select(0, count)
    predictions = evaluate.network_predictions(model, tasks)
    extents = []
    # The first two coordinates, of which the second is 0 where there is one only.
    shown = [np.pad(points, ((0, 0), (0, 1)))[:, :2] for points in evaluate.task_points(tasks)]
    for points in shown:
        margin = 0.06 * np.ptp(points, axis=0).max()
        low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
        extents.append((low[0], high[0], low[1], high[1]))
    shading = confidence_maps(model, options, tasks, extents)
    figure, axes = plt.subplots(
        2, count, figsize=(3.0 * count, 6.0), squeeze=False, layout="constrained"
    )
    image = None
    for t, points in enumerate(shown):
        labels = tasks.labels[tasks.offsets[t] : tasks.offsets[t + 1]]
        known = labels != PADDING
        predicted = predictions[t].argmax(axis=1)
        matching = evaluate.match(labels[known], predicted[known])
        extent = extents[t]
        if shading is not None:
            look = {"origin": "lower", "cmap": "gray", "vmin": 0, "vmax": 1, "aspect": "auto"}
            image = axes[0, t].imshow(
                shading[t], extent=extent, interpolation="bicubic", zorder=0, **look
            )
        accuracy = np.mean(matching[predicted[known]] == labels[known])
        truth = np.where(known[:, None], COLORS[labels], BACKGROUND)
        for axis, color in ((axes[0, t], COLORS[matching[predicted]]), (axes[1, t], truth)):
            # A white rim keeps points apart from dark ground and from each other.
            axis.scatter(*points.T, c=color, s=11, lw=0.3, edgecolors="white", zorder=2)
            axis.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
            axis.grid(False)
        axes[0, t].set_title(f"predicted, {accuracy:.0%} right")
        axes[1, t].set_title(f"truth, {len(np.unique(labels[known]))} clusters")
    if image is not None:
        figure.colorbar(image, ax=axes[0], label="confidence", fraction=0.05, pad=0.01)
    plots.save(figure, path)
