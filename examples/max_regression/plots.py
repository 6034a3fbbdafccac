"""The picture: where the network errs."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots
from examples.max_regression.data import LARGEST
from examples.max_regression.data import MOST_NUMBERS


def errors(sizes, targets, differences, published, path, shown=3000):
    """Errors against the target, and their mean size against the number of entities."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2), constrained_layout=True)
    left.scatter(targets[:shown], differences[:shown], s=3, alpha=0.4, lw=0)
    left.axhline(0, color="black", lw=0.6)
    left.set(
        xlabel="largest number of the set",
        ylabel="network - largest number",
        xlim=(0, LARGEST),
        title=f"{min(shown, len(targets)):,} test sets",
    )
    numbers = np.arange(1, MOST_NUMBERS + 1)
    present = [n for n in numbers if (sizes == n).any()]
    right.plot(present, [np.abs(differences[sizes == n]).mean() for n in present], "o")
    if published is not None:
        right.axhline(published, color="tab:red", ls="--", label="published, all sizes")
    overall = np.abs(differences).mean()
    right.axhline(overall, color="black", ls=":", label="this run, all sizes")
    right.set(
        xlabel="numbers in the set",
        ylabel="mean absolute error",
        xticks=numbers,
        yscale="log",
        title="by size",
    )
    right.legend(frameon=False)
    plots.save(figure, path)
