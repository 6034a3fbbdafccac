"""Sets of draws from a normal distribution whose mean and scale are to be inferred.

A data set has `n` draws, n uniform on 5..50, from `N(mean, scale^2)` with the prior
`scale^2 ~ InverseGamma(3, 2)`, `mean ~ N(0, scale^2)`. The prior is conjugate, so the exact
posterior is known.
"""

import dataclasses

import numpy as np
from scipy import special
from scipy import stats

SIZES = (5, 50)
PRIOR_SHAPE = 3.0
PRIOR_RATE = 2.0
PARAMETERS = ("mean", "log_scale")


def simulate(rng, count):
    """Draws parameters and data sets.

    Returns:
        Dict of "mean" and "log_scale", `(count, 1)`, "points" `(count, 50, 1)`, all
        float32, and "mask" `(count, 50)`, True for the draws that are there.
    """
    variance = stats.invgamma(PRIOR_SHAPE, scale=PRIOR_RATE).rvs((count, 1), random_state=rng)
    scale = np.sqrt(variance)
    mean = scale * rng.standard_normal((count, 1))
    mask = np.arange(SIZES[1]) < rng.integers(SIZES[0], SIZES[1] + 1, (count, 1))
    points = np.where(mask, mean + scale * rng.standard_normal(mask.shape), 0)
    numbers = {"mean": mean, "log_scale": np.log(scale), "points": points[..., None]}
    return {name: values.astype("float32") for name, values in numbers.items()} | {"mask": mask}


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Exact posteriors of data sets, a normal-inverse-gamma distribution for each.

    `scale^2 ~ InverseGamma(shape, rate)`, `mean ~ N(location, scale^2 / count)`; all four
    are `(data sets, 1)`.
    """

    location: np.ndarray
    count: np.ndarray
    shape: np.ndarray
    rate: np.ndarray

    @classmethod
    def of(cls, data):
        """The posteriors given "points" and "mask" of `simulate`."""
        mask = data["mask"]
        points = data["points"][..., 0].astype("float64")
        n = mask.sum(axis=1, keepdims=True)
        average = points.sum(axis=1, keepdims=True) / n
        squares = np.sum(mask * (points - average) ** 2, axis=1, keepdims=True)
        return cls(
            location=n * average / (n + 1),
            count=n + 1,
            shape=PRIOR_SHAPE + n / 2,
            rate=PRIOR_RATE + squares / 2 + n * average**2 / (2 * (n + 1)),
        )

    def log_density(self, mean, log_scale):
        """Of the mean and of the logarithm of the scale together."""
        variance = np.exp(2 * np.asarray(log_scale, "float64"))
        of_mean = stats.norm(self.location, np.sqrt(variance / self.count)).logpdf(mean)
        of_variance = stats.invgamma(self.shape, scale=self.rate).logpdf(variance)
        return of_mean + of_variance + np.log(2 * variance)  # d variance / d log scale

    def moments(self):
        """Mean and standard deviation of every parameter, by name."""
        width = np.sqrt(self.rate / ((self.shape - 1) * self.count))
        log_scale = (np.log(self.rate) - special.digamma(self.shape)) / 2
        log_width = np.sqrt(special.polygamma(1, self.shape)) / 2
        return {"mean": (self.location, width), "log_scale": (log_scale, log_width)}
