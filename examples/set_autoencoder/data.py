"""Images as sets of the places of their bright pixels, of which a set has a random share."""

import dataclasses
import functools

import numpy as np

from examples.common import datasets
from examples.point_clouds import data as clouds
from keras_sets.utils import pad_sets


@dataclasses.dataclass(frozen=True)
class Shapes:
    """A data set.

    Attributes:
        training: All points of every training image, a list of float32 arrays `(n_i, 2)`.
        labels: The digits of the training images, int32 `(sets,)`.
        validation, test: The sets of other images.
        test_labels: The digits of the test images.
        again: Other sets of the same share of the test images.
        most: The largest number of points of a set.
        period: Of the longest wave that suits the places of the points.
    """

    training: list
    labels: np.ndarray
    validation: list
    test: list
    test_labels: np.ndarray
    again: list
    most: int
    period: float


def thin(sets, share, rng):
    """A random share of the points of every set, at least one of those that there are."""
    return [points[rng.permutation(len(points))[: kept(len(points), share)]] for points in sets]


def kept(count, share):
    """How many of `count` points `thin` leaves."""
    return max(min(count, 1), round(share * count))


@functools.lru_cache(maxsize=1)
def load(name, data_dir=None, count=None, share=1.0, seed=0):
    """The sets of a data set of images; raises DataError as `image_sets.load`."""
    loaded = clouds.images(name, data_dir, count)
    parts = [
        ([points[:, :2] for points in sets], labels)
        for sets, labels in (loaded.training, loaded.validation, loaded.test)
    ]
    (training, labels), (validation, _), (test, test_labels) = parts
    rng = datasets.generator(seed, 1)
    most = max(kept(len(points), share) for sets, _ in parts for points in sets)
    thinned = [thin(sets, share, rng) for sets in (validation, test, test)]
    return Shapes(training, labels, *thinned[:2], test_labels, thinned[2], most, loaded.period)


class Batches(datasets.ResumableSets):
    """Batches of sets that are their own targets.

    Args:
        sets: List of arrays `(n_i, 2)`.
        share: Of the points of a set, drawn anew in every epoch.
        shuffle: Whether to draw the order of the sets anew in every epoch.
        **kwargs: Of `keras_sets.utils.SetDataset`.

    Items:
        `(inputs, points, weights)`: inputs as those of `SetDataset`, points `(batch, n, 2)`,
        weights `(batch, n)`, 1 for a point and 0 for padding.
    """

    def __init__(self, sets, share=1.0, shuffle=True, **kwargs):
        self.share = share
        super().__init__(sets, shuffle=shuffle, **kwargs)

    def batch(self, rng, indices, size):
        (inputs,) = super().batch(rng, indices, size)
        points, mask = inputs["entities"], inputs["mask"]
        if self.share < 1:
            sets = [p[m] for p, m in zip(points, mask, strict=True)]
            points, mask = pad_sets(thin(sets, self.share, rng), kept(size, self.share))
        return {"entities": points, "mask": mask}, points, mask.astype("float32")
