"""The note's network, and one that knows that x lies on a circle.

Both map a set of pairs (x, y) to its first powers, and take weights: how often every pair
counts, in whole or fractional numbers.
"""

import keras
import numpy as np
from keras import ops

from examples.common import optimizers
from examples.power_spectrum.data import FIGURES
from keras_sets import layers
from keras_sets import ops as set_ops

# Least square of an amplitude, for its logarithm.
LEAST_POWER = 1e-6


def note_network(num_layers, units, num_powers, weighted=False):
    """Equivariant layers with mean pooling, the mean over the set, and a dense layer.

    Args:
        num_layers: Number of equivariant layers.
        units: Their units.
        num_powers: Number of powers to give.
        weighted: Whether the model takes weights beside the pairs.
    """
    inputs = _inputs(weighted)
    # x uniform on [0, 2 pi] becomes uniform with mean 0 and variance 1; y is left as it is.
    x = keras.layers.Rescaling([3**0.5 / np.pi, 1.0], [-(3**0.5), 0.0], name="standardized")(
        inputs["entities"]
    )
    for i in range(num_layers):
        x = layers.PermutationEquivariantDense(units, activation="relu", name=f"equivariant_{i}")(
            x, weights=inputs.get("weights")
        )
    x = layers.MeanPooling(name="pooling")(x, weights=inputs.get("weights"))
    return keras.Model(inputs, _powers(x, num_powers), name="note")


def circle_network(num_layers, units, num_powers, weighted=False):
    """The same with convolutions around the circle in the place of means.

    A power spectrum does not change when all x are moved around the circle. The layers of
    the note are linear in what every pair says and in the mean of what all say, whatever
    their x. Here a layer sees all of the linear maps that commute with moves: the mean of all
    pairs, weighted by a learned function of the distance around the circle. Half of the
    features pass a ReLU, half remain linear. From every layer's harmonics the network reads
    squared amplitudes, which moves do not change.

    Args: As in `note_network`; it uses harmonics up to twice `num_powers`.
    """
    inputs = _inputs(weighted)
    weights = [inputs["weights"]] if weighted else []
    x, basis, dual = CircleHarmonics(2 * num_powers, name="harmonics")(inputs["entities"], *weights)
    amplitudes = [ops.matmul(dual, x)]
    for i in range(num_layers):
        x = CircleConvolution(units, name=f"convolution_{i}")(x, basis, amplitudes[-1])
        amplitudes.append(ops.matmul(dual, x))
    amplitudes = keras.layers.Concatenate(name="amplitudes")(amplitudes)
    x = LogPowers(2 * num_powers, name="log_powers")(amplitudes)
    x = keras.layers.Dense(units, activation="relu", name="hidden")(x)
    return keras.Model(inputs, _powers(x, num_powers), name="circle")


NETWORKS = {"note": note_network, "circle": circle_network}


def circle_width(num_layers, num_powers, parameters):
    """The largest even number of units for which `circle_network` is not larger than that."""

    def fits(units):
        return circle_network(num_layers, units, num_powers).count_params() <= parameters

    units, too_many = 2, 4
    while fits(too_many):
        units, too_many = too_many, 2 * too_many
    while too_many - units > 2:
        middle = (units + too_many) // 4 * 2
        units, too_many = (middle, too_many) if fits(middle) else (units, middle)
    return units


def _inputs(weighted):
    inputs = {"entities": keras.Input((None, 2), name="entities")}
    if weighted:
        inputs["weights"] = keras.Input((None,), name="weights")
    return inputs


def _powers(x, num_powers):
    # In float32 under every policy: the logarithms are exponentiated.
    return keras.layers.Dense(num_powers, activation="exponential", dtype="float32", name="output")(
        x
    )


@keras.saving.register_keras_serializable(package="examples")
def log_power_error(y_true, y_pred):
    """Mean square of the errors of log p."""
    return ops.mean(ops.square(ops.log(y_pred) - ops.log(y_true)), axis=-1)


def compile_for_powers(model, options):
    model.compile(optimizers.make_optimizer(options), loss=log_power_error)
    return model


def compiled(options):
    """The note's network of the largest depth and width of the options, ready to train."""
    _, wanted, _ = FIGURES[options.figure]
    return compile_for_powers(note_network(options.depths[-1], options.widths[-1], wanted), options)


class _CircleLayer(keras.layers.Layer):
    """Base class: float32 under every policy, for the angles and the small amplitudes."""

    def __init__(self, units, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.units = units

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="examples")
class CircleHarmonics(_CircleLayer):
    """`1, cos x, ..., cos Kx, sin x, ..., sin Kx` at the x of every pair.

    Args:
        units: K, the number of harmonics.

    Call arguments:
        pairs: `(batch, n, 2)`, angles and values.
        weights: Optional `(batch, n)`, at least 0.

    Returns:
        The values, `(batch, n, 1)`; the basis, `(batch, n, 2 K + 1)`; its dual, `(batch,
        2 K + 1, n)`, which is the basis times the share of every pair in the set. Then
        `dual @ y` are the amplitudes of y, a mean over the set for each function of the basis,
        and `basis @ amplitudes` is a function of the place.
    """

    def call(self, pairs, weights=None):
        angles, values = pairs[..., :1], pairs[..., 1:]
        multiples = angles * ops.arange(1, self.units + 1, dtype=angles.dtype)
        one = ops.ones_like(angles)
        basis = ops.concatenate([one, ops.cos(multiples), ops.sin(multiples)], axis=-1)
        _, weights = set_ops.multiplicities(weights=one[..., 0] if weights is None else weights)
        total = ops.sum(weights, axis=-1, keepdims=True)
        shares = weights / ops.where(total > 0, total, ops.ones_like(total))
        return values, basis, ops.transpose(basis * ops.expand_dims(shares, -1), (0, 2, 1))


class _HarmonicLayer(_CircleLayer):
    """Base class of layers that mix the features of each harmonic.

    To move all places by t turns the cosine and sine amplitudes of harmonic k by k t, like a
    complex number. Complex products commute with that: `keep` holds the real parts of the
    factors and `turn` the imaginary parts.
    """

    def build_factors(self, basis_size, features):
        shape = ((basis_size - 1) // 2, features, self.units)
        limit = (3 / (features + self.units)) ** 0.5
        initializer = keras.initializers.RandomUniform(-limit, limit)
        self.keep = self.add_weight(name="keep", shape=shape, initializer=initializer)
        initializer = keras.initializers.RandomUniform(-limit, limit)
        self.turn = self.add_weight(name="turn", shape=shape, initializer=initializer)

    def mix(self, amplitudes):
        """Cosine and sine amplitudes, `(harmonics, batch, units)` each."""
        harmonics = self.keep.shape[0]
        by_harmonic = ops.transpose(amplitudes[:, 1:], (1, 0, 2))
        cosine, sine = by_harmonic[:harmonics], by_harmonic[harmonics:]
        return cosine @ self.keep + sine @ self.turn, sine @ self.keep - cosine @ self.turn


@keras.saving.register_keras_serializable(package="examples")
class CircleConvolution(_HarmonicLayer):
    """Own features of every pair, and a mean of all by their distance around the circle.

    `y_i = x_i @ own + mean_j x_j @ kernel(angle_i - angle_j) + bias`, where the kernel is a
    trigonometric polynomial with learned coefficients. Half of the features of y pass a
    ReLU. Where x has as many features, it is added to them.

    Args:
        units: Positive even integer, width of the output.

    Call arguments:
        x: `(batch, n, features)`.
        basis: `(batch, n, 2 K + 1)`, from `CircleHarmonics`.
        amplitudes: `(batch, 2 K + 1, features)`, those of x.

    Output shape:
        `(batch, n, units)`.

    Symmetry:
        Equivariant to the order of the pairs, invariant to moves around the circle.
    """

    def build(self, x_shape, basis_shape, amplitudes_shape):
        features = x_shape[-1]
        self.own = self.add_weight(name="own", shape=(features, self.units))
        self.constant = self.add_weight(name="constant", shape=(features, self.units))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        self.build_factors(basis_shape[-1], features)

    def call(self, x, basis, amplitudes):
        constant = ops.transpose(amplitudes[:, :1], (1, 0, 2)) @ self.constant
        kernel = ops.concatenate([constant, *self.mix(amplitudes)], axis=0)
        y = x @ self.own + basis @ ops.transpose(kernel, (1, 0, 2)) + self.bias
        linear, bent = ops.split(y, 2, axis=-1)
        y = ops.concatenate([linear, ops.relu(bent)], axis=-1)
        return x + y if x.shape[-1] == self.units else y

    def compute_output_shape(self, x_shape, basis_shape, amplitudes_shape):
        return (*x_shape[:-1], self.units)


@keras.saving.register_keras_serializable(package="examples")
class LogPowers(_HarmonicLayer):
    """Logarithms of squared amplitudes of learned mixtures: what moves do not change.

    Call arguments:
        amplitudes: `(batch, 2 K + 1, features)`.

    Output shape:
        `(batch, features + K * units)`: the means as they are, then the logarithms.
    """

    def build(self, amplitudes_shape):
        self.build_factors(*amplitudes_shape[1:])

    def call(self, amplitudes):
        cosine, sine = self.mix(amplitudes)
        logarithms = ops.log(ops.square(cosine) + ops.square(sine) + LEAST_POWER)
        logarithms = ops.transpose(logarithms, (1, 0, 2))
        width = self.keep.shape[0] * self.units
        logarithms = ops.reshape(logarithms, (ops.shape(logarithms)[0], width))
        return ops.concatenate([amplitudes[:, 0], logarithms], axis=-1)

    def compute_output_shape(self, amplitudes_shape):
        features = amplitudes_shape[-1]
        return (amplitudes_shape[0], features + (amplitudes_shape[1] - 1) // 2 * self.units)
