"""Small image transformers and images, for their tests."""

import numpy as np

from keras_sets import models

SHAPE = (3, 4, 2)
LEVELS = 7


def small(**arguments):
    arguments = {"hidden_units": 8, "iterations": 2, "num_levels": LEVELS, **arguments}
    return models.swarm_image_transformer(SHAPE, **arguments)


def with_weights(model, scale=0.7):
    """The model with the same weights on every backend."""
    rng = np.random.default_rng(5)
    model.set_weights([scale * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def some_images(count=3, seed=0):
    return np.random.default_rng(seed).integers(0, LEVELS, (count, *SHAPE)).astype("uint8")
