"""The picture: error against the number of training sets."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots

STYLES = {
    "deep-sets": {"color": "C0", "marker": "o"},
    "log-variances": {"color": "C1", "marker": "s"},
    "kernel": {"color": "C2", "marker": "^"},
    "plug-in": {"color": "black", "ls": "--"},
    "posterior": {"color": "black", "ls": "-."},
    "constant": {"color": "gray", "ls": ":"},
}
SHOWN = {
    "plug-in": "plug-in (told the formula)",
    "posterior": "posterior mean (told all)",
    "constant": "the mean target",
}


def errors(task, numbers, scores, path):
    """Mean square error of every method against the number of training sets.

    Args:
        task: Name of the task.
        numbers: Numbers of training sets.
        scores: Dict from names to lists of errors for every number.
        path: File of the picture.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.4), constrained_layout=True)
    for name, points in scores.items():
        mean = np.array([np.mean(values) for values in points])
        low = mean - [np.min(values) for values in points]
        high = [np.max(values) for values in points] - mean
        label = SHOWN.get(name, name)
        axis.errorbar(numbers, mean, (low, high), capsize=2, ms=4, label=label, **STYLES[name])
    axis.set(xlabel="training sets", ylabel="mean square error", xscale="log", yscale="log")
    axis.set_title(task, loc="left")
    axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axis.xaxis.set_minor_locator(plt.matplotlib.ticker.NullLocator())
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.save(figure, path)
