"""Point clouds with a class each: images as sets of pixels, and orbits of a map.

A data set is ragged: a list of arrays `(n_i, features)`, and an integer for each of them.
"""

import dataclasses
import functools

import numpy as np

from examples.common import datasets
from examples.common import image_sets
from examples.point_clouds.names import ORBITS

# The parameter of each class of orbits.
PARAMETERS = (2.5, 3.5, 4.0, 4.1, 4.3)
POINTS = 1000
ORBITS_OF_A_CLASS = 1000
TEST, VALIDATION = 0.3, 0.1
# Pixels above this share of white are points.
THRESHOLD = 0.5
# Of the waves over an image, whose coordinates are -1 to 1.
PERIOD = 2.5


@dataclasses.dataclass(frozen=True)
class Clouds:
    """A data set.

    Attributes:
        classes: Name of every class.
        period: Of the longest wave that suits the places of the points.
        training, validation, test: Pairs of a list of float32 arrays `(n_i, features)` and
            labels, int32 `(sets,)`.
    """

    classes: tuple
    period: float
    training: tuple
    validation: tuple
    test: tuple

    @property
    def features(self):
        return self.test[0][0].shape[1]


def orbit(parameters, starts, points=POINTS):
    """Orbits of the linked twist map, which takes (x, y) to

    ```
    x' = x + r y (1 - y) mod 1
    y' = y + r x' (1 - x') mod 1
    ```

    Args:
        parameters: r of every orbit, `(orbits,)`.
        starts: `(orbits, 2)`, in the unit square. They are not among the points.
        points: How many there are in an orbit.

    Returns:
        float32 `(orbits, points, 2)`.
    """
    x, y = np.moveaxis(np.asarray(starts, "float64"), -1, 0)
    path = np.empty((points, len(x), 2), "float32")
    for i in range(points):
        x = (x + parameters * y * (1 - y)) % 1
        y = (y + parameters * x * (1 - x)) % 1
        path[i, :, 0], path[i, :, 1] = x, y
    return path.transpose(1, 0, 2)


def reflected(points):
    """The points (1 - y, 1 - x): as a set, an orbit of the same map, run backwards."""
    return 1 - points[..., ::-1]


def orbits(seed, count):
    """ORBIT5K, drawn anew: `count` orbits of each class, 30 % of all for the test.

    Of the others one in ten validates.
    """
    rng = datasets.generator(seed, 1)
    labels = np.repeat(np.arange(len(PARAMETERS), dtype="int32"), count)
    sets = orbit(np.array(PARAMETERS)[labels], rng.random((len(labels), 2)))
    order = rng.permutation(len(labels))
    test = round(TEST * len(order))
    held_out = test + max(1, round(VALIDATION * (len(order) - test)))
    parts = order[held_out:], order[test:held_out], order[:test]
    names = tuple(f"r = {r}" for r in PARAMETERS)
    return Clouds(names, 1.0, *((list(sets[part]), labels[part]) for part in parts))


def points_of(images, levels):
    """The points of images: a list of float32 arrays `(n_i, 3)`.

    A point is a pixel that is brighter than half: to the right, up, both -1 to 1 within the
    image, and grey value, -1 for black to 1 for white.

    Args:
        images: Integers `(n, height, width, 1)` from 0 to `levels - 1`.
    """
    images = images[..., 0]
    height, width = images.shape[1:]
    number, row, column = np.nonzero(images > THRESHOLD * (levels - 1))
    right = 2 * column / (width - 1) - 1
    up = 1 - 2 * row / (height - 1)
    grey = 2 * images[number, row, column] / (levels - 1) - 1
    points = np.stack([right, up, grey], axis=-1).astype("float32")
    sizes = np.bincount(number, minlength=len(images))
    return np.split(points, np.cumsum(sizes)[:-1])


def images(name, data_dir=None, count=None):
    """The point clouds of a data set of images; raises DataError as `image_sets.load`."""
    loaded = image_sets.load(name, data_dir, count)
    parts = loaded.training, loaded.validation, loaded.test
    clouds = ((points_of(pictures, loaded.levels), labels) for pictures, labels in parts)
    return Clouds(tuple(str(i) for i in range(loaded.classes)), PERIOD, *clouds)


@functools.lru_cache(maxsize=1)
def _load(name, data_dir, sets, seed):
    if name == ORBITS:
        return orbits(seed, ORBITS_OF_A_CLASS if sets is None else max(2, sets // len(PARAMETERS)))
    return images(name, data_dir, sets)


def load(options):
    """The data set of the options."""
    return _load(options.data_set, options.data_dir, options.sets, options.seed)


class Batches(datasets.ResumableSets):
    """Batches of point clouds, those to train on with random reflections of orbits.

    Args:
        reflect: Whether every other set, about, is `reflected`.
        **kwargs: Of `keras_sets.utils.SetDataset`.
    """

    def __init__(self, sets, labels=None, reflect=False, **kwargs):
        self.reflect = reflect
        super().__init__(sets, labels, **kwargs)

    def batch(self, rng, indices, size):
        inputs, *rest = super().batch(rng, indices, size)
        if self.reflect:
            points = inputs["entities"]
            chosen = rng.random(len(points)) < 0.5
            points[chosen] = reflected(points[chosen])
        return (inputs, *rest)


def training_batches(options, data):
    """The batches of the options to train on."""
    return Batches(
        *data.training,
        reflect=options.data_set == ORBITS,
        batch_size=options.batch_size,
        buckets=2,
        points=options.points,
        seed=options.seed,
    )
