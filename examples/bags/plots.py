"""The pictures: AUC against the number of bags, and the attention of single images."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots

MARKERS = "osD^vxP"


def curves(numbers, scores, published, path):
    """AUC of every network, and the published ones, against the number of training bags.

    Args:
        numbers: Numbers of training bags.
        scores: Dict from names to lists of AUC for every number.
        published: Dict from names to dicts from numbers to AUC.
        path: File of the picture.
    """
    figure, axis = plt.subplots(figsize=(7.4, 3.8), constrained_layout=True)
    for i, (name, points) in enumerate(scores.items()):
        mean = [np.mean(values) for values in points]
        spread = [np.std(values, ddof=1) if len(values) > 1 else 0 for values in points]
        style = {"color": f"C{i}", "marker": MARKERS[i], "ms": 4, "lw": 1.2}
        axis.errorbar(numbers, mean, spread, capsize=2, label=name, **style)
        if published[name]:
            axis.plot(*zip(*published[name].items(), strict=True), ls=":", alpha=0.6, **style)
    if any(published.values()):
        axis.plot([], [], color="gray", ls=":", label="as published")
    axis.set(xlabel="training bags", ylabel="AUC on fresh bags", xscale="log")
    axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.save(figure, path)


def attention(bags, positive, shares, path, shown=3, most=14):
    """The images of some positive bags and one negative bag, with the attention of each.

    Args:
        bags: List of arrays `(size, height, width, channels)`.
        positive: `(bags,)`, 1 for positive bags.
        shares: `(bags, n)`, the attention, which sums to 1 over a bag.
        path: File of the picture.
    """
    chosen = [*np.flatnonzero(positive == 1)[:shown], *np.flatnonzero(positive == 0)[:1]]
    figure, axes = plt.subplots(
        len(chosen), most, figsize=(9.5, 0.95 * len(chosen)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, i in zip(axes, chosen, strict=True):
        for axis, image, share in zip(row, bags[i], shares[i], strict=False):
            axis.imshow(image[..., 0], cmap="gray_r")
            axis.set_title(f"{100 * share:.0f} %", fontsize=8, alpha=0.35 + 0.65 * share)
    plots.save(figure, path)
