"""The images to train on, as they are and distorted."""

import functools

import numpy as np

from examples.common import datasets
from examples.common.image_sets import load

# Images that an epoch is judged by, at most: enough to see a hundredth of a bit.
JUDGED = 500

_load_once = functools.lru_cache(maxsize=1)(load)


def data_of(options):
    """The data set of the options."""
    return _load_once(options.data_set, options.data_dir, options.images)


def training_data(options, distortion=None):
    """The batches of the options to train on, and those to validate.

    The former are `distorted` as much as the options say, or as `distortion` does where given.
    """
    data, size = data_of(options), options.batch_size // options.accumulate
    distortion = options.distortion if distortion is None else distortion

    def change(rng, inputs, images):
        images = distorted(rng, images, distortion, data.levels)
        return {**inputs, "images": images} if options.conditional else images, images

    def batches(images, labels, **arguments):
        inputs = inputs_of(images, labels, options.conditional)
        return datasets.ArrayDataset(inputs, images, size, seed=options.seed, **arguments)

    steps = options.steps and options.steps * options.accumulate
    judged = (array[:JUDGED] for array in data.validation)
    return (
        batches(*data.training, steps=steps, change=change if distortion else None),
        batches(*judged, shuffle=False),
    )


def distorted(rng, images, amount, levels):
    """Every other image, about, sheared, turned, stretched and moved at random.

    Args:
        rng: A `numpy.random.Generator`.
        images: Integers `(n, height, width, channels)`.
        amount: Standard deviation of the entries of the linear map, whose mean is the identity;
            half that of the move, in halves of the image.
        levels: Values are 0 to `levels - 1`, and 0 is what is outside.
    """
    from scipy import ndimage

    images, size = images.copy(), images.shape[1:3]
    middle = (np.array(size) - 1) / 2
    for i in np.flatnonzero(rng.random(len(images)) < 0.5):
        turn = np.eye(2) + amount * rng.normal(size=(2, 2))
        offset = middle - turn @ middle + amount * rng.normal(size=2) * np.array(size) / 4
        for channel in range(images.shape[-1]):
            moved = ndimage.affine_transform(
                images[i, ..., channel].astype("float32"), turn, offset
            )
            images[i, ..., channel] = np.clip(np.rint(moved), 0, levels - 1)
    return images


def inputs_of(images, labels, conditional):
    """What a network takes, from arrays."""
    return {"images": images, "labels": labels} if conditional else images
