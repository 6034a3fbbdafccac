"""The picture: samples on the exact posterior, and the ranks of the true parameters."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots
from examples.simulation_based_inference.data import Posterior
from examples.simulation_based_inference.evaluate import RANK_BINS
from examples.simulation_based_inference.evaluate import ranks


def posteriors(samples, data, path, examples=3):
    """Samples of some data sets with contours of the exact posterior; ranks of all."""
    figure, axes = plt.subplots(1, examples + 2, figsize=(15, 2.9), constrained_layout=True)
    moments = Posterior.of(data).moments()
    # Of few, of some and of many points.
    order = np.argsort(data["mask"].sum(axis=1), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, examples).astype(int)]
    for axis, i in zip(axes, chosen, strict=False):
        grids = [
            np.linspace(*(values[i, 0] + s * 4 * widths[i, 0] for s in (-1, 1)), 80)
            for values, widths in moments.values()
        ]
        grid = np.meshgrid(*grids)
        one = Posterior.of({"points": data["points"][i : i + 1], "mask": data["mask"][i : i + 1]})
        density = np.exp(one.log_density(*grid))
        # The contours around 50, 90 and 99 % of the probability.
        heights = np.sort(density, axis=None)[::-1]
        inside = np.cumsum(heights) / heights.sum()
        levels = sorted(heights[np.searchsorted(inside, p)] for p in (0.5, 0.9, 0.99))
        axis.scatter(*(samples[name][i, :, 0] for name in moments), s=2, alpha=0.4, lw=0)
        axis.contour(*grid, density, levels, colors="black", linewidths=0.8)
        axis.plot(*(data[name][i] for name in moments), "r+", ms=10, mew=1.5)
        axis.set(
            xlabel="mean",
            ylabel="log scale",
            title=f"{data['mask'][i].sum()} points",
            xlim=grids[0][[0, -1]],
            ylim=grids[1][[0, -1]],
        )
    for axis, name in zip(axes[examples:], moments, strict=True):
        axis.hist(ranks(samples[name], data[name]), RANK_BINS, range=(0, 1))
        expected = len(data[name]) / RANK_BINS
        axis.axhline(expected, color="black", lw=0.8, ls="--")
        axis.set(
            xlabel="rank of the truth among the samples",
            ylabel="data sets",
            title=name.replace("_", " "),
        )
    figure.suptitle(
        "Dots: samples; contours: 50, 90 and 99 % of the exact posterior; +: truth; dashed: a "
        "calibrated posterior has uniform ranks",
        fontsize=9,
    )
    plots.save(figure, path)
