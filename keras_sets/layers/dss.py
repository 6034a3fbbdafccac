"""Layers on sets whose elements have a symmetry of their own."""

import math

import keras
from keras import backend
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.base import SetLayer
from keras_sets.layers.part_options import freeze_with
from keras_sets.layers.pooling import Pooling
from keras_sets.layers.pooling import build_pooling
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
        freeze_with(self, layer, pooled_layer, pooling)

    @staticmethod
    def _clone(layer):
        try:
            config = reseeded_config(layer.get_config(), 1)
            return type(layer).from_config({**config, "name": f"{layer.name}_pooled"})
        except Exception as error:
            raise ValueError(
                "The pooled element needs a layer like `layer` with weights of its own, but "
                f"`layer` cannot be made again from its configuration ({error}). Expected "
                f"`pooled_layer=` to be given as well. Received: layer={layer!r}"
            ) from error

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
        features = None if None in element[1:] else math.prod(element[1:])
        build_pooling(self.pooling, (None, None, features))
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
        dtype = self.compute_dtype
        if not backend.is_float_dtype(backend.standardize_dtype(inputs.dtype)):
            # They may be those of an `Embedding`, and half precision would round them.
            dtype = "float64" if dtype == "float64" else "float32"
        x = ops.cast(inputs, dtype)
        size = -1 if None in x.shape[2:] else math.prod(x.shape[2:])
        x = ops.reshape(x, (*ops.shape(x)[:2], size))
        present, weights = set_ops.multiplicities(mask, weights, set_ops.accumulation_dtype(x))
        return set_ops.zero_absent(x, present), present, weights

    def call(self, inputs, mask=None, weights=None, training=None, inputs_mask=None):
        shape = ops.shape(inputs)
        element = tuple(shape[2:])
        if 0 in inputs.shape[:2] and None not in tuple(inputs.shape):
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
        # The layers have dtype policies of their own.
        y = ops.cast(y, self.compute_dtype)
        output = tuple(ops.shape(y)[1:])
        y = ops.reshape(y, (*shape[:2], *output))
        if self.pooled_layer is not None:
            pooled = self.pooled_layer(ops.reshape(pooled, (-1, *element)))
            y = y + ops.expand_dims(ops.cast(pooled, self.compute_dtype), 1)
        y = self.activation(y)
        if present is None:
            return y
        there = ops.reshape(present, (*shape[:2], *(1,) * len(output)))
        return ops.where(there, y, ops.zeros_like(y))

    def _pool(self, x, present, weights):
        """`(batch, features)` in the dtype of `x`."""
        if isinstance(self.pooling, Pooling):
            # Not `self.pooling(x)`, which asks for a known number of features.
            pooled = self.pooling.pool(x, present, weights, False)
        else:
            pooled = self.pooling(x, mask=present, weights=weights)
        return ops.cast(pooled, x.dtype)

    def compute_output_shape(self, input_shape):
        element = self._element_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *self.layer.compute_output_shape(element)[1:])

    def get_config(self):
        pooling, pooled = self.pooling, self.pooled_layer
        return {
            **super().get_config(),
            "pooling": pooling if isinstance(pooling, str) else serialize_pooling(pooling),
            "activation": keras.activations.serialize(self.activation),
            "layer": serialize_part(self.layer),
            "pooled_layer": None if pooled is None else serialize_part(pooled),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("layer", "pooled_layer"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return super().from_config(config)
