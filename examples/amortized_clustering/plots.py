"""The picture: what the network sees, what it says, and how sure it is."""

import matplotlib.pyplot as plt
import numpy as np

from examples.amortized_clustering import evaluate
from examples.amortized_clustering.model import PROBED
from examples.amortized_clustering.model import build
from examples.common import plots

COLORS = plt.get_cmap("tab10")(np.arange(10))
GRID = 48
VANISHING = 1e-9


def confidence_maps(model, options, tasks, extents):
    """Largest cluster probability on a grid over the plane of every task, or None.

    Grid points join the set with a vanishing weight: the network answers for them too,
    and they leave the means over the set as they are.
    """
    if options.model not in PROBED or (options.model == "swarm" and options.pooling != "mean"):
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
    logits = np.asarray(probe.predict_on_batch(inputs))[:, : GRID**2].astype("float64")
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (p.max(axis=-1) / p.sum(axis=-1)).reshape(-1, GRID, GRID)


def assignments(model, options, tasks, path, count=4):
    """Points coloured by predicted cluster above the truth, confidence shaded."""
    count = min(count, len(tasks))
    tasks = tasks.select(0, count)
    predictions = evaluate.network_predictions(model, tasks)
    extents = []
    for points in evaluate.task_points(tasks):
        low, high = points.min(axis=0) - 0.3, points.max(axis=0) + 0.3
        extents.append((low[0], high[0], low[1], high[1]))
    shading = confidence_maps(model, options, tasks, extents)
    figure, axes = plt.subplots(
        2, count, figsize=(3.0 * count, 6.2), squeeze=False, constrained_layout=True
    )
    for t, points in enumerate(evaluate.task_points(tasks)):
        labels = tasks.labels[tasks.offsets[t] : tasks.offsets[t + 1]]
        predicted = predictions[t].argmax(axis=1)
        matching = evaluate.match(labels, predicted)
        extent = extents[t]
        sure = np.exp(predictions[t].max(axis=1))
        if shading is not None:
            look = {"origin": "lower", "cmap": "gray", "vmin": 0, "vmax": 1, "aspect": "auto"}
            axes[0, t].imshow(shading[t], extent=extent, **look)
        accuracy = np.mean(matching[predicted] == labels)
        for axis, color in ((axes[0, t], matching[predicted]), (axes[1, t], labels)):
            axis.scatter(*points.T, c=COLORS[color], s=5, alpha=0.35 + 0.65 * sure, lw=0)
            axis.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
            axis.grid(False)
        axes[0, t].set_title(f"predicted, {accuracy:.0%} right")
        axes[1, t].set_title(f"truth, {tasks.clusters[t]} clusters")
    figure.suptitle("Dark ground: the network is unsure", fontsize=9)
    plots.save(figure, path)
