"""Bags of images, after Ilse et al. 2018: a bag is positive if a 9 is among its images."""

import numpy as np

from examples.common import datasets

POSITIVE = 9
MEAN_SIZE, SIZE_DEVIATION = 10, 2


def draw(rng, images, labels, count):
    """Draws bags, with replacement, from images and their classes.

    The number of images in a bag is normal with mean 10 and standard deviation 2, rounded, and
    at least 1.

    Args:
        rng: A `numpy.random.Generator`.
        images: `(n, height, width, channels)`.
        labels: Integers `(n,)`.
        count: How many bags.

    Returns:
        `(bags, positive)`: a list of arrays `(size, height, width, channels)`, and float32
        `(count, 1)`, 1 for a bag with a 9.
    """
    sizes = np.maximum(1, np.rint(rng.normal(MEAN_SIZE, SIZE_DEVIATION, count))).astype(int)
    chosen = np.split(rng.integers(len(images), size=sizes.sum()), np.cumsum(sizes)[:-1])
    positive = np.array([[(labels[bag] == POSITIVE).any()] for bag in chosen], "float32")
    return [images[bag] for bag in chosen], positive


def draw_parts(images, counts, seed):
    """Training, validation and test bags; no image is in two of the three.

    Args:
        images: An `image_sets.Images`.
        counts: How many bags of each.
        seed: Non-negative integer.

    Raises:
        ValueError: All test bags have the same label, so that they have no AUC.
    """
    parts = images.training, images.validation, images.test
    bags = [
        draw(datasets.generator(seed, stream), *part, count)
        for stream, (part, count) in enumerate(zip(parts, counts, strict=True), start=1)
    ]
    positive = bags[2][1]
    if positive.min() == positive.max():
        raise ValueError(
            f"expected bags with and without a {POSITIVE}, received {counts[2]} of one kind; "
            "give a larger number"
        )
    return bags


def moved(rng, images, pixels):
    """Images, each moved by up to so many pixels along both axes, with 0 at the edges.

    Args:
        rng: A `numpy.random.Generator`.
        images: `(batch, n, height, width, channels)`.
        pixels: Non-negative integer.
    """
    height, width = images.shape[2:4]
    edges = [(0, 0), (0, 0), (pixels, pixels), (pixels, pixels), (0, 0)]
    padded = np.pad(images, edges)
    down, right = rng.integers(0, 2 * pixels + 1, (2, *images.shape[:2], 1))
    rows = (down + np.arange(height))[..., :, None]
    columns = (right + np.arange(width))[..., None, :]
    batch, place = np.ogrid[: images.shape[0], : images.shape[1]]
    return padded[batch[..., None, None], place[..., None, None], rows, columns]


class Batches(datasets.RepeatedSets):
    """Batches of bags whose images are `moved` at random.

    Args:
        pixels: How far an image moves at most.
        **kwargs: Of `datasets.RepeatedSets`.
    """

    def __init__(self, *args, pixels=0, **kwargs):
        self.pixels = pixels
        super().__init__(*args, **kwargs)

    def batch(self, rng, indices, size):
        inputs, positive = super().batch(rng, indices, size)
        return {**inputs, "entities": moved(rng, inputs["entities"], self.pixels)}, positive
