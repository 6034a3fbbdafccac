"""The network: a set to a vector, and a vector to a set."""

import keras
from keras import ops

from examples.point_clouds.model import MeanOfProducts
from examples.point_clouds.model import Waves
from keras_sets import layers as set_layers
from keras_sets import losses

# How much places count beside the number of points.
PLACE = 25.0


@keras.saving.register_keras_serializable(package="examples")
def distance(true, predicted):
    """Squared distance of points, in units of 0.2."""
    return PLACE * ops.sum(ops.square(true - predicted), axis=-1)


def loss():
    """Squared distance to the partners, and the cross entropy of being a point."""
    return losses.MatchedLoss(distance, no_object_weight=1.0)


@keras.saving.register_keras_serializable(package="examples")
class Queries(keras.layers.Layer):
    """`(batch, units)` to `(batch, count, units)`: the vector, scaled and shifted by each query.

    Queries tell apart what a decoder asks the vector for. They are learned.
    """

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def build(self, input_shape):
        shape = (self.count, input_shape[-1])
        # Queries have to differ from the start.
        self.scale, self.shift = (
            self.add_weight(
                name=name, shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.5)
            )
            for name in ("scale", "shift")
        )
        self.built = True

    def call(self, x):
        return ops.expand_dims(x, 1) * (1 + self.scale) + self.shift

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.count, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "count": self.count}


def build(options, data):
    """The network of the options.

    Its outputs are `(batch, most, 3)`: the place of a point, and the logit that there is one.

    Args:
        options: `decoder`, `harmonics`, `hidden` and `latent` of the command.
        data: The data set.
    """
    inputs = {
        "entities": keras.Input((None, 2), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    vector = _encode(inputs, options, data.period)
    outputs = DECODERS[options.decoder](options, data.most)(vector)
    return keras.Model(inputs, outputs, name=f"autoencoder_{options.decoder}")


def _encode(inputs, options, period):
    """The mean of waves, and the number of points, to a vector."""
    points, mask = inputs["entities"], inputs["mask"]
    right, up = (
        Waves(options.harmonics, period, name=f"waves_{name}")(points[..., i : i + 1])
        for i, name in enumerate("xy")
    )
    x = keras.layers.Flatten(name="flat")(MeanOfProducts(name="pooling")(right, up, mask))
    number = ops.sum(ops.cast(mask, "float32"), axis=-1, keepdims=True)
    x = ops.concatenate([x, ops.log1p(number)], axis=-1)
    # Means of waves are small and of unequal size.
    x = keras.layers.BatchNormalization(momentum=0.9, name="standardized")(x)
    for depth in range(2):
        x = keras.layers.Dense(2 * options.hidden, activation="relu", name=f"encoder_{depth}")(x)
    return keras.layers.Dense(options.latent, name="vector")(x)


def _queries(options, count):
    """Every query asks the vector for a point; layers between them let them share out."""
    vector = keras.Input((options.latent,))
    x = keras.layers.Dense(options.hidden, activation="relu")(vector)
    x = Queries(count, name="queries")(x)
    for depth in range(3):
        x = set_layers.PermutationEquivariantDense(
            options.hidden, activation="relu", name=f"layer_{depth}"
        )(x)
    return keras.Model(vector, keras.layers.Dense(3, name="points")(x), name="decoder")


def _dense(options, count):
    """Dense layers that give the numbers of all points."""
    vector = x = keras.Input((options.latent,))
    for depth in range(2):
        x = keras.layers.Dense(2 * options.hidden, activation="relu", name=f"layer_{depth}")(x)
    x = keras.layers.Dense(3 * count, name="points")(x)
    return keras.Model(vector, keras.layers.Reshape((count, 3))(x), name="decoder")


DECODERS = {"queries": _queries, "dense": _dense}
