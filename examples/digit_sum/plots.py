"""The picture: who still adds correctly when sets are longer than those of the training."""

import matplotlib.pyplot as plt

from examples.common import plots
from examples.digit_sum.data import MOST_DIGITS
from examples.digit_sum.data import PUBLISHED

MARKERS = "os^"


def accuracy(lengths, accuracies, path):
    """Fraction of sums that are right against the number of digits."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4), constrained_layout=True)
    axis.axvspan(1, MOST_DIGITS, color="gray", alpha=0.2, lw=0)
    axis.text(2.5 * MOST_DIGITS, 0.5, "gray: lengths of\nthe training sets", color="dimgray")
    for (name, values), marker in zip(accuracies.items(), MARKERS, strict=False):
        axis.plot(lengths, values, marker=marker, ms=4, label=name)
    axis.set(
        xlabel="digits in the set",
        ylabel="sums that are right after rounding",
        xlim=(0, max(lengths) + 2),
        ylim=(-0.04, 1.06),
    )
    axis.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    axis.set_title(PUBLISHED, fontsize=8, loc="left")
    axis.legend(frameon=False, loc="center right")
    plots.save(figure, path)
