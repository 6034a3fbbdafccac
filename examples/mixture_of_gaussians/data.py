"""Sets of points from random mixtures of Gaussians, without end.

The protocol of Lee et al. 2019, Set Transformer, section 5.3: means uniform on
[-4, 4]^2, standard deviation 0.3, mixing weights from Dir(1, ..., 1), and a number of points,
uniform on 100..500, that the sets of a batch share.
"""

import dataclasses

import numpy as np

from examples.common import datasets
from keras_sets.utils import SetDataset

DIMENSIONS = 2
RANGE = 4.0
SIGMA = 0.3


@dataclasses.dataclass(frozen=True)
class MixtureSets:
    """Sets of points, padded to one size, and the mixtures that they come from.

    Attributes:
        points: float32 `(sets, size, 2)`, 0 at padding.
        mask: bool `(sets, size)`, True for a point.
        weights: float64 `(sets, components)`, the mixing weights.
        means: float64 `(sets, components, 2)`.
    """

    points: np.ndarray
    mask: np.ndarray
    weights: np.ndarray
    means: np.ndarray

    def __len__(self):
        return len(self.points)

    @property
    def sizes(self):
        return self.mask.sum(axis=1)

    def select(self, indices, size=None):
        """Some of the sets, cut to `size` where given."""
        return MixtureSets(
            self.points[indices, :size],
            self.mask[indices, :size],
            self.weights[indices],
            self.means[indices],
        )

    def batch(self):
        """`(inputs, targets, sample weights)` for Keras.

        The points are their own targets, and the mask says which of them count.
        """
        inputs = {"entities": self.points, "mask": self.mask}
        return inputs, self.points, self.mask.astype("float32")


def draw_sets(rng, sizes, padded, components):
    """One set of each of `sizes` points, padded to `padded`.

    Args:
        rng: `numpy.random.Generator`; nothing else decides.
        sizes: Positive integers `(sets,)`.
        padded: The largest of them, or more.
        components: Number of Gaussians in each mixture.

    Returns:
        `MixtureSets`.
    """
    sizes = np.asarray(sizes)
    if sizes.min() < 1 or sizes.max() > padded:
        raise ValueError(
            f"`sizes` must lie in 1..{padded}, the size to pad to. Received: "
            f"{sizes.min()}..{sizes.max()}"
        )
    count = len(sizes)
    weights = rng.dirichlet(np.ones(components), count)
    means = rng.uniform(-RANGE, RANGE, (count, components, DIMENSIONS))
    # Without the last bound, which rounding may leave below 1.
    bounds = np.cumsum(weights, axis=1)[:, None, :-1]
    component = np.sum(rng.random((count, padded, 1)) > bounds, axis=-1)
    points = np.take_along_axis(means, component[..., None], axis=1)
    points = points + SIGMA * rng.standard_normal((count, padded, DIMENSIONS))
    mask = np.arange(padded) < sizes[:, None]
    points = np.where(mask[..., None], points, 0).astype("float32")
    return MixtureSets(points, mask, weights, means)


def padded_sizes(points, count):
    """At most `count` sizes to pad to, equally spaced up to the largest number of points."""
    return np.unique(np.ceil(np.linspace(*points, count + 1)[1:]).astype(int))


def fixed_sets(count, rng, points, components):
    """Sets of sizes uniform on `points`, to validate or to evaluate on."""
    sizes = rng.integers(points[0], points[1] + 1, count)
    return draw_sets(rng, sizes, points[1], components)


def training_data(options):
    """The datasets of the options: fresh sets to train on, and fixed ones to validate."""
    shape = (options.points, options.components)
    padded = padded_sizes(options.points, options.buckets)
    training = FreshSets(options.steps, options.batch_size, *shape, padded, options.seed)
    rng = datasets.generator(options.seed, 1)
    validation = fixed_sets(options.validation_sets, rng, *shape)
    return training, fixed_batches(validation, 50, padded)[0]


class FreshSets(datasets.EpochDataset):
    """New sets in every batch. The sets of a batch have one size, uniform on `points`.

    They are padded to one of a few sizes, because a compiling backend compiles once for
    each.
    """

    def __init__(self, steps, batch_size, points, components, padded, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.steps = steps
        self.batch_size = batch_size
        self.points = points
        self.components = components
        self.padded = padded
        self.start_at(0)

    def start_at(self, epoch):
        super().start_at(epoch)
        # The numbers after `epoch` up to `steps - 1` are those of the batches.
        rng = np.random.default_rng([self.seed, epoch, self.steps])
        self.sizes = rng.integers(self.points[0], self.points[1] + 1, self.steps)
        # Keras learns from the first two batches which axes vary.
        padded = np.searchsorted(self.padded, self.sizes)
        for i in np.flatnonzero(padded != padded[0])[:1]:
            self.sizes[[1, i]] = self.sizes[[i, 1]]

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, self.epoch, index])
        size = self.sizes[index]
        padded = self.padded[np.searchsorted(self.padded, size)]
        sizes = np.full(self.batch_size, size)
        return draw_sets(rng, sizes, padded, self.components).batch()


def fixed_batches(sets, batch_size, padded):
    """The same sets in every epoch, those of similar sizes together.

    Returns:
        A dataset of `(inputs, targets, sample weights)` as `MixtureSets.batch` gives them, and
        the order of the sets in it, `(sets,)`.
    """
    order = np.argsort(sets.sizes, kind="stable")
    points = [sets.points[i, : sets.sizes[i]] for i in order]
    batches = SetDataset(points, points, batch_size=batch_size, buckets=padded, shuffle=False)
    return batches, order
