"""Is a network as often right as it says? The confidence of its answers against their accuracy."""

import dataclasses

import numpy as np

from examples.amortized_clustering.data import PADDING
from examples.amortized_clustering.evaluate import match

# Bins with a smaller share of the points are left out of the upper picture.
LEAST_SHARE = 1e-3


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Points binned by the largest probability that they were given.

    Attributes:
        confidence: Mean of the largest probability in each bin; NaN where a bin is empty.
        accuracy: Share of the points whose cluster is right.
        share: Share of all points that are in the bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray

    @property
    def calibration_error(self):
        """Mean over points of |confidence - accuracy| of their bin."""
        return float(np.nansum(self.share * np.abs(self.confidence - self.accuracy)))


def reliability(tasks, predictions, bins=10):
    """A `Reliability` from log probabilities, `(n, 10)` for every task.

    The bins divide [0, 1] evenly. Points of no cluster do not count.
    """
    confidences, hits = [], []
    for t, log_p in enumerate(predictions):
        labels = tasks.labels[tasks.offsets[t] : tasks.offsets[t + 1]]
        known = labels != PADDING
        labels, log_p = labels[known], log_p[known]
        predicted = log_p.argmax(axis=1)
        confidences.append(np.exp(log_p.max(axis=1)))
        hits.append(match(labels, predicted)[predicted] == labels)
    confidence, hit = np.concatenate(confidences), np.concatenate(hits)
    index = np.minimum((confidence * bins).astype("int64"), bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(index, confidence, bins) / counts,
            np.bincount(index, hit, bins) / counts,
            counts / len(index),
        )


def draw(curves, path):
    """A picture of `{name: Reliability}`: accuracy against confidence, and how many points."""
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for name, curve in curves.items():
        label = f"{name}, error {curve.calibration_error:.3f}"
        # A handful of points says nothing about how often a bin is right.
        many = curve.share > LEAST_SHARE
        above.plot(curve.confidence[many], curve.accuracy[many], marker="o", label=label)
        seen = curve.share > 0
        below.plot(curve.confidence[seen], curve.share[seen], marker="o")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="lower right", frameon=False)
    below.set(xlabel="confidence", ylabel="share of points", yscale="log")
    figure.savefig(path, dpi=150)
    plt.close(figure)
