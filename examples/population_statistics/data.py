"""Sets of samples of Gaussians, after Zaheer et al. 2017, section 4.1.1.

The target is a statistic of the distribution that a set is drawn from. All have mean 0:

- `rotation`: a fixed covariance of 2 dimensions, turned by an angle that is uniform on [0, pi];
  the entropy of the first coordinate.
- `correlation`: two vectors of 16 dimensions with the same fixed covariance S, and the
  covariance a S of one and the other, a uniform on (-1, 1); their mutual information.
- `rank-1`: the covariance I + a v v^T of 32 dimensions, v fixed, a uniform on (0, 1); the mutual
  information of the first 16 and the last 16.
- `random`: a random covariance of 32 dimensions; the mutual information of the two halves.
"""

import dataclasses
import math

import numpy as np

from examples.common import datasets

LEAST, MOST = 300, 500
HALF = 16
# Of the number in which the covariances of a task differ, which is uniform between them.
PARAMETERS = {"rotation": (0, math.pi), "correlation": (-1, 1), "rank-1": (0, 1)}


@dataclasses.dataclass(frozen=True)
class Sets:
    """Sets of samples and their targets.

    Attributes:
        samples: List of float32 arrays `(n_i, dimensions)`.
        targets: float32 `(sets, 1)`, in nats.
    """

    samples: list
    targets: np.ndarray

    def first(self, count):
        return Sets(self.samples[:count], self.targets[:count])


def statistic(task, covariance):
    """The target as a function of the covariance, `(..., d, d)`, in nats.

    For `rotation` the entropy of the first coordinate, log(2 pi e c_11) / 2. For the others the
    mutual information of the two halves, log(|A| |B| / |C|) / 2, where A and B are the blocks of
    the covariance C on the diagonal.
    """
    if task == "rotation":
        return 0.5 * np.log(2 * math.pi * math.e * covariance[..., 0, 0])
    half = covariance.shape[-1] // 2
    parts = (covariance[..., :half, :half], covariance[..., half:, half:], covariance)
    a, b, c = (np.linalg.slogdet(part)[1] for part in parts)
    return 0.5 * (a + b - c)


def covariances(task, seed, rng, count):
    """Random covariances, `(count, d, d)`.

    Args:
        task: One of `names.TASKS`.
        seed: Of what all sets of a task have in common.
        rng: A `numpy.random.Generator` of what they do not.
        count: How many.
    """
    if task == "random":
        return wishart(rng, 2 * HALF, count)
    return family(task, seed, rng.uniform(*PARAMETERS[task], count))


def family(task, seed, parameters):
    """The covariances `(count, d, d)` of a task that differ in one number each, `(count,)`."""
    fixed = datasets.generator(seed, 1)
    if task == "rotation":
        cosine, sine = np.cos(parameters), np.sin(parameters)
        turn = np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), -1, 0)
        return turn @ wishart(fixed, 2) @ turn.transpose(0, 2, 1)
    a = parameters[:, None, None]
    if task == "correlation":
        common = np.ones_like(a) * wishart(fixed, HALF)
        return np.block([[common, a * common], [a * common, common]])
    v = fixed.standard_normal(2 * HALF)
    return np.eye(2 * HALF) + a * np.outer(v, v)


def wishart(rng, dimensions, *shape):
    """Covariances of as many as twice the dimensions of standard normal vectors."""
    vectors = rng.standard_normal((*shape, dimensions, 2 * dimensions))
    return vectors @ np.swapaxes(vectors, -1, -2) / (2 * dimensions)


def draw(task, seed, rng, count):
    """Draws sets of 300 to 500 samples, each of a distribution of its own.

    Args:
        task, seed, rng, count: As in `covariances`.
    """
    covariance = covariances(task, seed, rng, count)
    factors = np.linalg.cholesky(covariance)
    sizes = rng.integers(LEAST, MOST + 1, count)
    samples = [
        (rng.standard_normal((size, len(factor))) @ factor.T).astype("float32")
        for size, factor in zip(sizes, factors, strict=True)
    ]
    targets = statistic(task, covariance)[:, None].astype("float32")
    return Sets(samples, targets)
