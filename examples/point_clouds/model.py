"""The networks: a class for every point cloud.

All of them see the first two coordinates as waves: a network that is smooth in the coordinates
themselves would hardly see how many points are where.
"""

import keras
import numpy as np
from keras import ops

from keras_sets import models
from keras_sets import ops as set_ops


@keras.saving.register_keras_serializable(package="examples")
class Waves(keras.layers.Layer):
    """`1, cos a, ..., cos K a, sin a, ..., sin K a` of every number, with a = 2 pi x / period.

    Args:
        order: K, a positive integer.
        period: Of the longest wave.

    Input shape:
        `(batch, n, 1)`.

    Output shape:
        `(batch, n, 2 K + 1)`.
    """

    def __init__(self, order, period=1.0, **kwargs):
        # In float32 under every policy, for the angles.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.order = order
        self.period = period

    def call(self, x):
        numbers = np.arange(1, self.order + 1, dtype="float32")
        angles = x * ops.convert_to_tensor(2 * np.pi / self.period * numbers)
        return ops.concatenate([ops.ones_like(x), ops.cos(angles), ops.sin(angles)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2 * self.order + 1)

    def get_config(self):
        return {**super().get_config(), "order": self.order, "period": self.period}


@keras.saving.register_keras_serializable(package="examples")
class MeanOfProducts(keras.layers.Layer):
    """The mean over a set of all products of two features: `(batch, a, b)`.

    It is the mean pooling of `a b` features of every entity, which never are in memory at once.

    Call arguments:
        first, second: `(batch, n, a)` and `(batch, n, b)`.
        present: bool `(batch, n)`, True for a real entity. The mean over none is 0.
    """

    def call(self, first, second, present):
        first, second = (set_ops.apply_mask(x, present) for x in (first, second))
        size = ops.sum(ops.cast(ops.expand_dims(present, -1), first.dtype), axis=1, keepdims=True)
        return ops.matmul(ops.transpose(first, (0, 2, 1)), second) / ops.maximum(size, 1)

    def compute_output_shape(self, first_shape, second_shape, present_shape):
        return (first_shape[0], first_shape[-1], second_shape[-1])


def build(options, data):
    """The network of the options, from sets of points to logits, `(batch, classes)`.

    Args:
        options: `model`, `harmonics`, `hidden` and `dropout` of the command.
        data: The data set.
    """
    inputs = {
        "entities": keras.Input((None, data.features), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    points, classes = inputs["entities"], len(data.classes)
    waves = [
        Waves(options.harmonics, data.period, name=f"waves_{name}")(points[..., i : i + 1])
        for i, name in enumerate("xy")
    ]
    others = [points[..., i : i + 1] for i in range(2, data.features)]
    if options.model == "harmonics":
        x = _harmonics(*waves, others, inputs["mask"])
        x = _dense(x, options.hidden, options.dropout)
        x = keras.layers.Dense(classes, name="output")(x)
    else:
        x = keras.layers.Concatenate(name="features")([*waves, *others])
        network = BUILDERS[options.model](x.shape[-1], classes, options.hidden, options.dropout)
        x = network({"entities": x, "mask": inputs["mask"]})
    return keras.Model(inputs, x, name=options.model.replace("-", "_"))


def _harmonics(right, up, others, mask):
    """The empirical characteristic function of every set.

    It is the mean of the waves along both axes, also times every other feature, and says how
    many of the points are where, down to `period / harmonics`.
    """
    right = ops.concatenate([right, *(right * feature for feature in others)], axis=-1)
    x = MeanOfProducts(name="pooling")(right, up, mask)
    return keras.layers.Flatten(name="flat")(x)


def _dense(x, units, dropout):
    # Means of waves are small and of unequal size.
    x = keras.layers.BatchNormalization(momentum=0.9, name="standardized")(x)
    for depth in range(2):
        x = keras.layers.Dropout(dropout, name=f"dropout_{depth}")(x)
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{depth}")(x)
    return keras.layers.Dropout(dropout, name="dropout")(x)


def _deep_sets(features, classes, units, dropout):
    return models.deep_sets(
        features, classes, units, pooling="max", dropout=dropout, output_pooling="max"
    )


def _swarm(features, classes, units, dropout):
    return models.swarm(
        features, classes, units, iterations=3, dropout=dropout, output_pooling="max"
    )


def _set_transformer(features, classes, units, dropout):
    return models.set_transformer(
        features,
        classes,
        units,
        num_inducing_points=16,
        dropout=dropout,
        output_pooling="max",
    )


BUILDERS = {"deep-sets": _deep_sets, "swarm": _swarm, "set-transformer": _set_transformer}
