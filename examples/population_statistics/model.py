"""The networks, from sets of samples to a standardized statistic of their distribution."""

import keras

from examples.point_clouds.model import MeanOfProducts
from keras_sets import layers as set_layers

UNITS = 128


def build(name, dimensions):
    """The network of that name, to `(batch, 1)`.

    Args:
        name: `"deep-sets"`: dense layers on every sample, the mean, dense layers.
            `"moments"`: the mean of all products of two coordinates, dense layers.
        dimensions: Of a sample.
    """
    inputs = {
        "entities": keras.Input((None, dimensions), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    x, mask = inputs["entities"], inputs["mask"]
    if name == "deep-sets":
        for depth in range(3):
            x = keras.layers.Dense(UNITS, activation="elu", name=f"encoder_{depth}")(x)
        x = set_layers.MeanPooling(name="pooling")(x, mask=mask)
    else:
        x = MeanOfProducts(name="pooling")(x, x, mask)
        x = keras.layers.Flatten(name="products")(x)
        # Each product counts as much as the others, whatever its unit.
        x = keras.layers.BatchNormalization(momentum=0.9, name="standardized")(x)
    for depth in range(2):
        x = keras.layers.Dense(UNITS, activation="elu", name=f"decoder_{depth}")(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="output")(x), name=name.replace("-", "_"))
