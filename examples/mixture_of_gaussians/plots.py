"""The picture: points of a few sets with the predicted and the true Gaussians."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse

from examples.common import plots
from examples.mixture_of_gaussians import evaluate

COLOR = "tab:red"


def mixtures(sets, predicted, path, count=8):
    """Ellipses of two standard deviations: predicted solid, true dashed."""
    count = min(count, len(sets))
    true = evaluate.true_mixtures(sets)
    gaps = evaluate.log_likelihoods(sets, true) - evaluate.log_likelihoods(sets, predicted)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.9 * columns, 3.1 * rows + 0.4),
        squeeze=False,
        constrained_layout=True,
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for i, axis in enumerate(axes.flat[:count]):
        axis.scatter(*sets.points[i, sets.mask[i]].T, s=4, color="tab:blue", alpha=0.5, lw=0)
        _ellipses(axis, true, i, {"ls": "--", "ec": "black", "lw": 1.2})
        _ellipses(axis, predicted, i, {"ec": COLOR, "lw": 1.6}, by_weight=True)
        axis.set(aspect="equal", xlim=(-5, 5), ylim=(-5, 5), xticks=[], yticks=[])
        axis.grid(False)
        axis.set_title(f"{sets.sizes[i]} points, oracle - LL0 = {gaps[i]:.3f}", fontsize=8)
    handles = [
        plt.Line2D([], [], color="tab:blue", ls="", marker=".", label="points"),
        plt.Line2D([], [], color=COLOR, lw=1.6, label="predicted, fainter if of small weight"),
        plt.Line2D([], [], color="black", ls="--", lw=1.2, label="true (two standard deviations)"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    plots.save(figure, path)


def _ellipses(axis, mixture, index, look, by_weight=False):
    weights = np.exp(mixture.log_weights[index])
    for weight, mean, sigma in zip(
        weights, mixture.means[index], mixture.sigmas[index], strict=True
    ):
        alpha = 0.25 + 0.75 * min(1.0, 4 * weight) if by_weight else 1.0
        axis.add_patch(Ellipse(mean, *(4 * sigma), fill=False, alpha=alpha, **look))
