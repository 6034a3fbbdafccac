"""Clustering tasks: points of random Gaussian mixtures, and what is known about them.

A task draws a number of clusters, uniform on 3..10, and of points, uniform on 100..1000;
means from N(0, I) and covariances from an inverse Wishart distribution (4 degrees of
freedom, scale 0.05 I); every point then picks its cluster with equal probability.
"""

import dataclasses

import numpy as np

from examples.common import datasets
from keras_sets import utils

DIMENSIONS = 2
MAX_CLUSTERS = 10
DEGREES_OF_FREEDOM = 4
COVARIANCE_SCALE = 0.05
PADDING = -1


@dataclasses.dataclass(frozen=True)
class Tasks:
    """Clustering tasks of different sizes; the points of all tasks lie in one array.

    Attributes:
        points: float32 `(total, d)`.
        labels: int32 `(total,)`, the cluster that generated each point; -1 for none.
        offsets: int64 `(tasks + 1,)`; task t owns `points[offsets[t]:offsets[t + 1]]`.
        clusters: int64 `(tasks,)`, how many clusters each task has.
        means: float64 `(tasks, 10, 2)`; rows beyond `clusters` are not used. Means and
            factors are None where the clusters are not all Gaussian.
        factors: float64 `(tasks, 10, 2, 2)`: points are `mean + factor @ normal`.
    """

    points: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    clusters: np.ndarray
    means: np.ndarray | None = None
    factors: np.ndarray | None = None

    def __len__(self):
        return len(self.clusters)

    @property
    def sizes(self):
        return np.diff(self.offsets)

    def select(self, start, stop):
        """Tasks start..stop-1, sharing memory with this object."""
        first, last = self.offsets[start], self.offsets[stop]
        return Tasks(
            self.points[first:last],
            self.labels[first:last],
            self.offsets[start : stop + 1] - first,
            self.clusters[start:stop],
            None if self.means is None else self.means[start:stop],
            None if self.factors is None else self.factors[start:stop],
        )

    def padded(self, indices, size):
        """`(points, mask, labels)` of some tasks, padded to `size` entities each."""
        rows = [slice(*self.offsets[i : i + 2]) for i in indices]
        points, mask = utils.pad_sets([self.points[row] for row in rows], size)
        labels, _ = utils.pad_sets([self.labels[row] for row in rows], size, value=PADDING)
        return points, mask, labels


def generate_tasks(count, seed=0, clusters=(3, MAX_CLUSTERS), entities=(100, 1000)):
    """Draws clustering tasks.

    The draw uses NumPy alone, so a seed gives the same tasks on every backend.

    Args:
        count: Positive integer, number of tasks.
        seed: Seed of `numpy.random.default_rng`.
        clusters: Smallest and largest number of clusters, at most 10.
        entities: Smallest and largest number of points.

    Returns:
        `Tasks`.
    """
    for name, (low, high), most in (
        ("clusters", clusters, MAX_CLUSTERS),
        ("entities", entities, np.inf),
    ):
        if not 1 <= low <= high <= most:
            raise ValueError(
                f"Received an invalid value for `{name}`, expected 1 <= smallest <= largest"
                f"{'' if most == np.inf else f' <= {most}'}. Received: {name}={(low, high)}"
            )
    if count < 1:
        raise ValueError(f"`count` must be at least 1. Received: count={count}")
    rng = np.random.default_rng(seed)
    number = rng.integers(clusters[0], clusters[1] + 1, count)
    sizes = rng.integers(entities[0], entities[1] + 1, count)
    means = rng.standard_normal((count, MAX_CLUSTERS, DIMENSIONS))
    factors = inverse_wishart_factors(rng, (count, MAX_CLUSTERS))

    offsets = np.concatenate([[0], np.cumsum(sizes)])
    task = np.repeat(np.arange(count), sizes)
    labels = (rng.random(len(task)) * number[task]).astype("int32")
    noise = rng.standard_normal((len(task), DIMENSIONS), dtype="float32")
    cluster = task * MAX_CLUSTERS + labels
    factors_32 = factors.reshape(-1, DIMENSIONS, DIMENSIONS).astype("float32")
    points = means.reshape(-1, DIMENSIONS).astype("float32")[cluster]
    for j in range(DIMENSIONS):
        points += factors_32[:, :, j][cluster] * noise[:, j, None]
    return Tasks(points, labels, offsets, number, means, factors)


def draw_tasks(options, count, seed):
    """Tasks of the prior of the options."""
    entities = tuple(options.entities)
    if options.prior == "protocol":
        return generate_tasks(count, seed, entities=entities)
    from examples.amortized_clustering.priors import broad_tasks

    return broad_tasks(count, seed, entities, options.dimensions)


def training_data(options):
    """The datasets of the options: nine tenths of the tasks to train on, a tenth to validate."""
    tasks = draw_tasks(options, options.tasks, options.seed)
    split = 9 * len(tasks) // 10
    batches = {"batch_size": options.batch_size, "buckets": options.buckets}
    training = ClusteringDataset(
        tasks.select(0, split),
        points=options.points or None,
        # What the network does not see needs no drawing.
        rotate=options.rotate and options.model != "slots",
        seed=options.seed,
        **batches,
    )
    return training, ClusteringDataset(tasks.select(split, len(tasks)), shuffle=False, **batches)


def inverse_wishart_factors(rng, shape):
    """Matrices F, `(*shape, 2, 2)`, with F F^T ~ InverseWishart(4, 0.05 I).

    A Wishart matrix with identity scale is A A^T with A lower triangular: chi variables
    with df and df - 1 degrees of freedom on the diagonal, a normal one below it
    (Bartlett). Its inverse times the scale is F F^T with F = sqrt(scale) A^-T.
    """
    first = np.sqrt(rng.chisquare(DEGREES_OF_FREEDOM, shape))
    second = np.sqrt(rng.chisquare(DEGREES_OF_FREEDOM - 1, shape))
    below = rng.standard_normal(shape)
    factors = np.zeros((*shape, DIMENSIONS, DIMENSIONS))
    factors[..., 0, 0] = 1 / first
    factors[..., 0, 1] = -below / (first * second)
    factors[..., 1, 1] = 1 / second
    return np.sqrt(COVARIANCE_SCALE) * factors


def posterior(tasks, indices, points):
    """Log posterior `(len(indices), size, 10)` of the clusters under the true mixture.

    Clusters that a task does not have get -inf.
    """
    if tasks.means is None:
        raise ValueError("These tasks have no known posterior: they have no means and factors.")
    means = tasks.means[indices][:, None]
    factors = tasks.factors[indices][:, None]
    delta = points[:, :, None, :].astype("float64") - means
    # F is upper triangular: solve F z = delta from below.
    second = delta[..., 1] / factors[..., 1, 1]
    first = (delta[..., 0] - factors[..., 0, 1] * second) / factors[..., 0, 0]
    log_determinant = np.log(factors[..., 0, 0] * factors[..., 1, 1])
    scores = -0.5 * (first**2 + second**2) - log_determinant
    exists = np.arange(MAX_CLUSTERS) < tasks.clusters[indices][:, None, None]
    scores = np.where(exists, scores, -np.inf)
    shift = scores.max(axis=-1, keepdims=True)
    normalizer = shift + np.log(np.exp(scores - shift).sum(axis=-1, keepdims=True))
    return scores - normalizer


class ClusteringDataset(datasets.ResumableSets):
    """Batches of tasks of similar size, padded to a few fixed sizes.

    They are those of `keras_sets.utils.SetDataset`, but for the points that are shown, and
    for the order without `shuffle`, which is that of the sizes: nobody asks which task is which.

    With `points`, every batch shows only some points of its tasks: one of these numbers
    for each batch, the points drawn anew in every epoch. A set network may be trained on
    small sets and used on large ones, and small sets are cheap.

    With `rotate`, every task is turned, and half of them mirrored, anew in every epoch: the
    distribution of the tasks is the same in all directions, so that is as good as new tasks.

    Items are `({"entities": (batch, size, 2), "mask": (batch, size)}, labels)`.
    """

    def __init__(self, tasks, batch_size, buckets=4, points=None, rotate=False, **kwargs):
        self.shown = points
        self.rotate = rotate
        super().__init__(
            *(np.split(column, tasks.offsets[1:-1]) for column in (tasks.points, tasks.labels)),
            batch_size=batch_size,
            buckets=bucket_sizes(tasks.sizes, buckets),
            **kwargs,
        )

    def plan(self, rng):
        if self.shown is None:
            return self.plan_buckets(rng if self.shuffle else None)
        order = np.arange(len(self.sizes))
        order = rng.permutation(order) if self.shuffle else order
        return [
            (order[start : start + self.batch_size], int(rng.choice(self.shown)))
            for start in range(0, len(order), self.batch_size)
        ]

    def choose(self, rng, indices, size):
        """A random stretch of tasks that are larger: their points have no order."""
        sizes = self.sizes[indices]
        first = 0 * sizes
        if self.shown is not None:
            first = rng.integers(0, np.maximum(sizes - size, 0) + 1)
        column = np.arange(size)
        return first[:, None] + column, column < sizes[:, None]

    def batch(self, rng, indices, size):
        inputs, labels, _ = super().batch(rng, indices, size)
        if self.rotate:
            points = inputs["entities"]
            turns = random_orthogonal(rng, len(points)).astype(points.dtype)
            inputs["entities"] = points @ turns
        return inputs, np.where(inputs["mask"], labels, PADDING).astype("int32")


def random_orthogonal(rng, count):
    """`(count, 2, 2)` rotations and reflections of the plane, each as likely as any other."""
    angle = rng.uniform(0, 2 * np.pi, count)
    handedness = rng.choice([-1.0, 1.0], count)
    cosine, sine = np.cos(angle), np.sin(angle)
    rows = [[cosine, sine], [-handedness * sine, handedness * cosine]]
    return np.moveaxis(np.array(rows), -1, 0)


def bucket_sizes(sizes, count):
    """At most `count` sizes that hold all sets, each a multiple of 4, equally spaced."""
    low, high = int(sizes.min()), int(sizes.max())
    edges = np.linspace(low, high, count + 1)[1:] if high > low else [high]
    return np.unique([-(-int(np.ceil(edge)) // 4) * 4 for edge in edges])
