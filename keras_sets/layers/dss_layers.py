"""`DSS` around the layers of Keras that are used most."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import Constraint
from keras_sets._typing import Initializer
from keras_sets._typing import PoolingLike
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets.layers.circular_conv import CircularConv1D
from keras_sets.layers.circular_conv import CircularConv2D
from keras_sets.layers.circular_conv import CircularConv3D
from keras_sets.layers.dss import DSS
from keras_sets.layers.dss import VARIANTS
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.weight_options import reseeded_config


class _DSSOf(PartOptions, DSS):
    """DSS around a Keras layer that is made from this layer's own arguments."""

    def __init__(
        self,
        layer_class: type,
        arguments: Config,
        pooling: PoolingLike,
        activation: Activation,
        **kwargs: Any,
    ) -> None:
        dtype = keras.dtype_policies.get(kwargs.get("dtype"))
        layer = layer_class(**arguments, dtype=dtype, name="layer")
        super().__init__(layer, self._pooled(layer, pooling), pooling, activation, **kwargs)
        self._arguments = tuple(arguments)

    @property
    def _parts(self):
        return (self.layer,) if self.pooled_layer is None else (self.layer, self.pooled_layer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})

    def _pooled(self, layer, pooling):
        """Like `layer`, but for the bias: one is enough for the sum of the two."""
        if isinstance(pooling, str) and pooling in VARIANTS:
            return None
        pooled = reseeded_config({**layer.get_config(), "use_bias": False}, 1)
        return type(layer).from_config({**pooled, "name": "pooled_layer"})

    def get_config(self) -> Config:
        config, layer = super().get_config(), self.layer.get_config()
        del config["layer"], config["pooled_layer"]
        return {**config, **{name: layer[name] for name in self._arguments}}


@keras.saving.register_keras_serializable(package="keras_sets")
class DSSDense(_DSSOf):
    """`keras_sets.layers.DSS` with `keras.layers.Dense` on the last axis of the elements.

    Args:
        units: Positive integer, width of the output.
        pooling, activation: As in `keras_sets.layers.DSS`.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint: As in `keras.layers.Dense`. The
            pooled layer has no bias.

    Call arguments, masking, symmetry:
        As for `keras_sets.layers.DSS`.

    Output shape:
        `(batch, n, ..., units)`.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.DSSDense(4)(np.ones((2, 5, 7, 3))).shape == (2, 5, 7, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599).
    """

    def __init__(
        self,
        units: int,
        pooling: PoolingLike = "sum",
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        arguments = {
            "units": validation.positive_integer("units", units),
            "use_bias": validation.boolean("use_bias", use_bias),
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
        }
        super().__init__(keras.layers.Dense, arguments, pooling, activation, **kwargs)


class _DSSConv(_DSSOf):
    """The arguments that convolutions of any rank share."""

    convolution: Any = None
    circular_convolution: Any = None

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        pooling: PoolingLike = "sum",
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        validation.one_of("padding", padding, ("valid", "same", "circular"))
        arguments = {
            "filters": validation.positive_integer("filters", filters),
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
            "groups": groups,
            "use_bias": validation.boolean("use_bias", use_bias),
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
        }
        if padding == "circular":
            layer_class = self.circular_convolution
        else:
            layer_class = self.convolution
            arguments = {**arguments, "padding": padding, "data_format": "channels_last"}
        super().__init__(layer_class, arguments, pooling, activation, **kwargs)
        self.padding = padding
        self._arguments = tuple(
            name for name in arguments if name not in ("padding", "data_format")
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="keras_sets")
class DSSConv1D(_DSSConv):
    """`keras_sets.layers.DSS` with `keras.layers.Conv1D`, for sets of sequences.

    Args:
        filters: Positive integer, number of output channels.
        kernel_size: Integer or tuple, size of the window.
        strides: Integer or tuple.
        padding: `"valid"`, `"same"`, or `"circular"`, where the far ends of an axis are
            neighbours and the layer is exactly equivariant to shifts around the circle.
        dilation_rate, groups: As in `keras.layers.Conv1D`.
        pooling, activation: As in `keras_sets.layers.DSS`.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint: As in `keras.layers.Conv1D`. The
            pooled layer has no bias.

    Call arguments:
        inputs: `(batch, n, length, channels)`.
        mask, weights: As for `keras_sets.layers.DSS`.

    Output shape:
        `(batch, n, new_length, filters)`.

    Masking, symmetry:
        As for `keras_sets.layers.DSS`. Equivariant to shifts of all elements together.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.DSSConv1D(4, 3, padding="same")
    >>> layer(np.ones((2, 5, 100, 1))).shape == (2, 5, 100, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599).
    """

    convolution = keras.layers.Conv1D
    circular_convolution = CircularConv1D


@keras.saving.register_keras_serializable(package="keras_sets")
class DSSConv2D(_DSSConv):
    """`keras_sets.layers.DSS` with `keras.layers.Conv2D`, for sets of images.

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups, pooling, activation,
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint: As in
            `keras_sets.layers.DSSConv1D`, for two axes.

    Call arguments:
        inputs: `(batch, n, height, width, channels)`.
        mask, weights: As for `keras_sets.layers.DSS`.

    Output shape:
        `(batch, n, new_height, new_width, filters)`.

    Masking, symmetry:
        As for `keras_sets.layers.DSS`. Equivariant to shifts of all elements together.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.DSSConv2D(4, 3, padding="same", activation="relu")
    >>> layer(np.ones((2, 5, 8, 8, 3))).shape == (2, 5, 8, 8, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599).
    """

    convolution = keras.layers.Conv2D
    circular_convolution = CircularConv2D


@keras.saving.register_keras_serializable(package="keras_sets")
class DSSConv3D(_DSSConv):
    """`keras_sets.layers.DSS` with `keras.layers.Conv3D`, for sets of volumes.

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups, pooling, activation,
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint: As in
            `keras_sets.layers.DSSConv1D`, for three axes.

    Call arguments:
        inputs: `(batch, n, depth, height, width, channels)`.
        mask, weights: As for `keras_sets.layers.DSS`.

    Output shape:
        `(batch, n, new_depth, new_height, new_width, filters)`.

    Masking, symmetry:
        As for `keras_sets.layers.DSS`. Equivariant to shifts of all elements together.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.DSSConv3D(2, 3, padding="same")
    >>> layer(np.ones((1, 3, 4, 4, 4, 1))).shape == (1, 3, 4, 4, 4, 2)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599).
    """

    convolution = keras.layers.Conv3D
    circular_convolution = CircularConv3D
