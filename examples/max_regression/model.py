"""The networks of the max regression experiment.

Inputs are divided by 100 on their way in and outputs multiplied by 100 on their way out:
weights of order one then mean what they say, and the loss stays in the units of the numbers.
"""

import keras

from examples.max_regression.data import LARGEST
from keras_sets import layers as set_layers
from keras_sets import models

UNITS = 64
HEADS = 4


def build(name):
    """The network of that name, from sets of numbers to one number, `(batch, 1)`."""
    inputs = {
        "entities": keras.Input((None, 1), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    scaled = keras.layers.Rescaling(1 / LARGEST, name="input_scale")(inputs["entities"])
    if name == "set-transformer":
        x = _set_transformer(scaled, inputs["mask"])
    else:
        x = _deep_sets(name, scaled, inputs["mask"])
    outputs = keras.layers.Rescaling(LARGEST, name="output_scale")(x)
    return keras.Model(inputs, outputs, name=name.replace("-", "_"))


def _deep_sets(pooling, x, mask):
    """Four dense layers on every number, the pooling, two dense layers on what is pooled."""
    for depth in range(4):
        x = keras.layers.Dense(UNITS, activation="relu", name=f"encoder_{depth}")(x)
    x = set_layers.get_pooling(pooling, name="pooling")(x, mask=mask)
    x = keras.layers.Dense(UNITS, activation="relu", name="decoder")(x)
    return keras.layers.Dense(1, name="output")(x)


def _set_transformer(x, mask):
    """Two attention blocks, attention pooling, one dense layer."""
    # No normalisation, as in the published experiment: it would hide how large numbers are.
    network = models.set_transformer(
        features=1,
        units=1,
        hidden_units=UNITS,
        num_layers=2,
        num_heads=HEADS,
        num_inducing_points=None,
        output_pooling="attention",
        normalization=None,
        feed_forward_layers=1,
    )
    return network({"entities": x, "mask": mask})
