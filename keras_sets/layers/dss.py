"""Layers on sets whose elements have a symmetry of their own."""

import math

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.base import SetLayer
from keras_sets.layers.circular_conv import CircularConv1D
from keras_sets.layers.circular_conv import CircularConv2D
from keras_sets.layers.circular_conv import CircularConv3D
from keras_sets.layers.pooling import Pooling
from keras_sets.layers.pooling import get_pooling
from keras_sets.layers.pooling import serialize_part
from keras_sets.layers.pooling import serialize_pooling
from keras_sets.layers.weight_options import reseeded_config

# What takes the place of `layer(x_i) + pooled_layer(pool_j x_j)`.
VARIANTS = ("centered", "concat_max")


@keras.saving.register_keras_serializable(package="keras_sets")
class DSS(SetLayer):
    """Deep sets of symmetric elements, around any layer for one element.

    `L(x)_i = activation(layer(x_i) + pooled_layer(pool_j x_j))`, where the elements x_i are
    images, sequences, graphs or anything else that `layer` takes. If the two layers are
    equivariant to a group G, so is L, to G acting on all elements at once, and L is
    universal if they are.

    Args:
        layer: A Keras layer that maps `(batch, *element)` to `(batch, *output)`.
        pooled_layer: The same for the pooled element. None makes a layer like `layer`, with
            weights of its own.
        pooling: How elements are pooled: `"sum"`, `"mean"`, `"max"`, `"logsumexp"` or a
            pooling layer that is invariant. Two published variants have no pooled layer:
            `"centered"` is `layer(x_i - mean_j x_j)`, `"concat_max"` is
            `layer(concatenate([x_i, max_j x_j]))` along the last axis.
        activation: Activation function of the sum. None is the identity.

    Call arguments:
        inputs: `(batch, n, *element)`: axis 1 is the set.
        mask: Optional bool `(batch, n)`, True for a real element.
        weights: Optional float `(batch, n)`, at least 0: multiplicities.

    Output shape:
        `(batch, n, *output)`.

    Masking:
        Masked elements change no output but their own, which is 0. The mask is passed on.
        `layer` runs on zeros in their place, so a layer that mixes the elements of a batch
        (batch normalisation) sees these.

    Symmetry:
        Equivariant to permutations of the elements, and to what `layer` is equivariant to.

    Attributes:
        layer, pooled_layer: The two layers.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> layer = keras_sets.layers.DSS(keras.layers.Conv2D(4, 3, padding="same"))
    >>> layer(np.ones((2, 5, 8, 8, 3))).shape == (2, 5, 8, 8, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599), equation 3; "centered" after [Sridhar et
        al., 2019](https://arxiv.org/abs/1909.00192), "concat_max" after [Aittala and Durand,
        2018](https://openaccess.thecvf.com/content_ECCV_2018/html/Miika_Aittala_Burst_Image_Deblurring_ECCV_2018_paper.html).
    """

    def __init__(self, layer, pooled_layer=None, pooling="sum", activation=None, **kwargs):
        for name, value in (("layer", layer), ("pooled_layer", pooled_layer)):
            optional = name == "pooled_layer" and value is None
            if not optional and not isinstance(value, keras.layers.Layer):
                raise ValueError(
                    f"Received an invalid value for `{name}`, expected a Keras layer. "
                    f"Received: {name}={value!r}"
                )
        if isinstance(pooling, str) and pooling in VARIANTS:
            if pooled_layer is not None:
                raise ValueError(
                    f"With pooling='{pooling}' there is no pooled layer. Received: "
                    f"pooled_layer={pooled_layer!r}"
                )
        else:
            pooling = get_pooling(pooling)
            if getattr(pooling, "symmetry", "invariant") != "invariant":
                raise ValueError(
                    "Received an invalid value for `pooling`, expected one that gives one "
                    "element for the whole set (invariant). Received: "
                    f"pooling={serialize_pooling(pooling)!r}, which is {pooling.symmetry}"
                )
            if pooled_layer is None:
                pooled_layer = self._clone(layer)
        super().__init__(**kwargs)
        self.layer = layer
        self.pooled_layer = pooled_layer
        self.pooling = pooling
        self.activation = keras.activations.get(activation)

    @staticmethod
    def _clone(layer):
        config = reseeded_config(layer.get_config(), 1)
        return type(layer).from_config({**config, "name": f"{layer.name}_pooled"})

    def check_arguments(self, inputs, mask=None, weights=None):
        shape = validation.shape_of(inputs)
        if len(shape) < 3:
            raise ValueError(
                f"Layer '{self.name}' expects `inputs` of shape `(batch, n, *element)` (rank 3 "
                f"or more). Received: inputs.shape={shape}"
            )
        validation.check_features(self.name, shape)
        validation.check_multiplicities(self.name, "(batch, n)", shape, shape[:2], mask, weights)

    def build(self, input_shape):
        element = (None, *input_shape[2:])
        if not self.layer.built:
            self.layer.build(self._element_shape(element))
        if self.pooled_layer is not None and not self.pooled_layer.built:
            self.pooled_layer.build(element)
        self.built = True

    def _element_shape(self, element):
        """The shape that `layer` gets for elements of the given shape."""
        if self.pooling == "concat_max":
            return (*element[:-1], 2 * element[-1])
        return element

    def prepare(self, inputs, mask=None, weights=None, inputs_mask=None):
        """As in the base class, with `x` flattened to `(batch, n, features)`."""
        if mask is None and inputs_mask is not None:
            mask = inputs_mask
            self.check_arguments(inputs, mask)
        x = ops.cast(inputs, self.compute_dtype)
        size = -1 if None in x.shape[2:] else math.prod(x.shape[2:])
        x = ops.reshape(x, (*ops.shape(x)[:2], size))
        present, weights = set_ops.multiplicities(mask, weights, set_ops.accumulation_dtype(x))
        return set_ops.zero_absent(x, present), present, weights

    def call(self, inputs, mask=None, weights=None, training=None, inputs_mask=None):
        shape = ops.shape(inputs)
        element = tuple(shape[2:])
        if inputs.shape[1] == 0 and None not in tuple(inputs.shape):
            # TensorFlow's convolutions of an empty batch have the channels of the input.
            return ops.zeros(self.compute_output_shape(tuple(inputs.shape)), self.compute_dtype)
        x, present, weights = self.prepare(inputs, mask, weights, inputs_mask)
        # Elements become the batch.
        if self.pooling == "centered":
            mean = set_ops.set_mean(x, present, weights, keepdims=True)
            x = set_ops.zero_absent(x - ops.cast(mean, x.dtype), present)
            y = self.layer(ops.reshape(x, (-1, *element)))
        elif self.pooling == "concat_max":
            largest = ops.cast(set_ops.set_max(x, present, weights, keepdims=True), x.dtype)
            largest = ops.broadcast_to(largest, ops.shape(x))
            both = [ops.reshape(t, (-1, *element)) for t in (x, largest)]
            y = self.layer(ops.concatenate(both, axis=-1))
        else:
            pooled = self._pool(x, present, weights)
            y = self.layer(ops.reshape(x, (-1, *element)))
        output = tuple(ops.shape(y)[1:])
        y = ops.reshape(y, (*shape[:2], *output))
        if self.pooled_layer is not None:
            pooled = self.pooled_layer(ops.reshape(pooled, (-1, *element)))
            y = y + ops.expand_dims(pooled, 1)
        y = self.activation(y)
        if present is None:
            return y
        there = ops.reshape(present, (*shape[:2], *(1,) * len(output)))
        return ops.where(there, y, ops.zeros_like(y))

    def _pool(self, x, present, weights):
        """`(batch, features)` in the compute dtype."""
        if isinstance(self.pooling, Pooling):
            # Not `self.pooling(x)`, which asks for a known number of features.
            return ops.cast(self.pooling.pool(x, present, weights, False), x.dtype)
        return self.pooling(x, mask=present, weights=weights)

    def compute_output_shape(self, input_shape):
        element = self._element_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *self.layer.compute_output_shape(element)[1:])

    def _own_config(self):
        pooling = self.pooling
        return {
            **super().get_config(),
            "pooling": pooling if isinstance(pooling, str) else serialize_pooling(pooling),
            "activation": keras.activations.serialize(self.activation),
        }

    def get_config(self):
        pooled = self.pooled_layer
        return {
            **self._own_config(),
            "layer": serialize_part(self.layer),
            "pooled_layer": None if pooled is None else serialize_part(pooled),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("layer", "pooled_layer"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


class _DSSOf(DSS):
    """DSS around a Keras layer that is made from this layer's own arguments."""

    def __init__(self, layer_class, arguments, pooling, activation, **kwargs):
        dtype = keras.dtype_policies.get(kwargs.get("dtype"))
        layer = layer_class(**arguments, dtype=dtype, name="layer")
        super().__init__(layer, self._pooled(layer, pooling), pooling, activation, **kwargs)
        self._arguments = tuple(arguments)

    def _pooled(self, layer, pooling):
        """Like `layer`, but for the bias: one is enough for the sum of the two."""
        if isinstance(pooling, str) and pooling in VARIANTS:
            return None
        pooled = reseeded_config({**layer.get_config(), "use_bias": False}, 1)
        return type(layer).from_config({**pooled, "name": "pooled_layer"})

    def get_config(self):
        layer = self.layer.get_config()
        return {**self._own_config(), **{name: layer[name] for name in self._arguments}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


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
        units,
        pooling="sum",
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        arguments = {
            "units": validation.positive_integer("units", units),
            "use_bias": use_bias,
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

    convolution = None
    circular_convolution = None

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        dilation_rate=1,
        groups=1,
        pooling="sum",
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        validation.one_of("padding", padding, ("valid", "same", "circular"))
        arguments = {
            "filters": validation.positive_integer("filters", filters),
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
            "groups": groups,
            "use_bias": use_bias,
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

    def get_config(self):
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
