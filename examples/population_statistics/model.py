"""The networks, from sets of samples to a standardized statistic of their distribution."""

import keras
from keras import ops

from keras_sets import layers as set_layers

UNITS = 128
PROJECTIONS = 64
LEAST_VARIANCE = 1e-6


def build(name, dimensions):
    """The network of that name, to `(batch, 1)`.

    Args:
        name: `"deep-sets"`: dense layers on every sample, the mean, dense layers.
            `"log-variances"`: the logarithms of the variances along learned directions, and
            dense layers. An entropy of a Gaussian is a sum of such logarithms.
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
        for depth in range(2):
            x = keras.layers.Dense(UNITS, activation="elu", name=f"decoder_{depth}")(x)
    else:
        x = keras.layers.Dense(PROJECTIONS, use_bias=False, name="directions")(x)
        variances = set_layers.VariancePooling(name="pooling")(x, mask=mask)
        logarithms = ops.log(variances + LEAST_VARIANCE)
        hidden = keras.layers.Dense(UNITS, activation="elu", name="hidden")(logarithms)
        x = keras.layers.Concatenate(name="features")([logarithms, hidden])
    return keras.Model(inputs, keras.layers.Dense(1, name="output")(x), name=name.replace("-", "_"))
