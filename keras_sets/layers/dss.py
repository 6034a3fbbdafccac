"""Layers on sets whose elements have a symmetry of their own."""

import math
from typing import Any
from typing import Self

import keras
from keras import backend
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import PoolingLike
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.chunked_pooling_scope import get_chunked_pooling_scope
from keras_sets.layers.over_sets import max_over_set
from keras_sets.layers.over_sets import mean_over_set
from keras_sets.layers.part_options import build_part
from keras_sets.layers.part_options import freeze_with
from keras_sets.layers.part_options import serialize_part
from keras_sets.layers.pooling import Pooling
from keras_sets.layers.pooling import get_pooling
from keras_sets.layers.pooling import serialize_pooling
from keras_sets.layers.weight_options import reseeded_config
from keras_sets.ops import entities as entity_ops

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
        pooling: How elements are pooled: `"sum"`, `"mean"` or another name of an
            invariant pooling, or its layer. One that gives several vectors, such as
            `keras_sets.layers.MultiPooling`, gives as many times the channels. Two
            published variants have no pooled layer: `"centered"` is `layer(x_i - mean_j x_j)`,
            `"concat_max"` is `layer(concatenate([x_i, max_j x_j]))` along the last axis.
        activation: Activation function of the sum. None is the identity.

    Call arguments:
        inputs: `(batch, n, *element)`: axis 1 is the set.
        mask: Optional bool `(batch, n)`, True for a real element.
        weights: Optional float `(batch, n)`, at least 0: multiplicities.

    Output shape:
        `(batch, n, *output)`.

    Masking:
        Masked elements change no output but their own, which is 0. A mask of what is there is
        passed on, of every place of the outputs but for its features: `(batch, n)` for vectors,
        `(batch, n, height, width)` for images. Where Keras carries one of places along with the
        inputs, elements without any place are absent. `layer` is given no mask: of an element
        that is there it sees all places. It runs on zeros in the place of masked elements, so a
        layer that mixes the elements of a batch (batch normalisation) sees these.

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

    def __init__(
        self,
        layer: keras.layers.Layer,
        pooled_layer: keras.layers.Layer | None = None,
        pooling: PoolingLike = "sum",
        activation: Activation = None,
        **kwargs: Any,
    ) -> None:
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

    def check_arguments(
        self, inputs: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        validation.check_one_tensor(self.name, inputs)
        shape = validation.shape_of(inputs)
        if len(shape) < 3:
            raise ValueError(
                f"Layer '{self.name}' expects `inputs` of shape `(batch, n, *element)` (rank 3 "
                f"or more). Received: inputs.shape={shape}"
            )
        validation.check_features(self.name, shape)
        validation.check_multiplicities(self.name, "(batch, n)", shape, shape[:2], mask, weights)

    def build(self, input_shape: Shape) -> None:
        element = (None, *input_shape[2:])
        build_part(self.layer, self._element_shape(element))
        features = None if None in element[1:] else math.prod(element[1:])
        build_part(self.pooling, (None, None, features))
        self._copies = self._pooled_copies(features or element[-1])
        build_part(self.pooled_layer, (*element[:-1], self._copies * element[-1]))
        self.built = True

    def _pooled_copies(self, features):
        """How many pooled elements the pooling gives: as many as it has features for each."""
        if not isinstance(self.pooling, Pooling):
            return 1
        pooled = self.pooling.compute_output_shape((None, None, features))[-1]
        if pooled % features:
            raise ValueError(
                f"Layer '{self.name}' expects a pooling that gives pooled elements, so a multiple "
                f"of the {features} features of an element. Received: pooling={self.pooling!r}, "
                f"which gives {pooled}"
            )
        return pooled // features

    def _element_shape(self, element):
        """The shape that `layer` gets for elements of the given shape."""
        if self.pooling == "concat_max":
            return (*element[:-1], 2 * element[-1])
        return element

    def cast_inputs(self, inputs: Tensor) -> Tensor:
        if backend.is_float_dtype(backend.standardize_dtype(inputs.dtype)):
            return super().cast_inputs(inputs)
        # They may be those of an `Embedding`, and half precision would round them.
        return ops.cast(inputs, "float64" if self.compute_dtype == "float64" else "float32")

    def fit_mask(self, mask: Tensor, inputs: Tensor) -> Tensor:
        return entity_ops.fit_mask(mask, ops.shape(inputs)[:2])

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        """The mask of all places of the output elements, which is what Keras' losses take."""
        if previous_mask is None:
            return None
        shape = self.compute_output_shape(tuple(inputs.shape))
        if len(shape) < 3:
            return None
        mask = ops.cast(self.fit_mask(previous_mask, inputs), "bool")
        # An axis of unknown size is left to broadcasting.
        places = (1, 1, *(1 if size is None else size for size in shape[2:-1]))
        mask = ops.expand_dims(mask, tuple(range(2, len(places))))
        return ops.logical_and(mask, ops.ones(places, "bool"))

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        batch, n, *element = ops.shape(x)
        flat = ops.reshape(x, (batch, n, math.prod(element)))
        if self.pooling == "centered":
            mean = ops.cast(mean_over_set(flat, mask, weights, keepdims=True), x.dtype)
            flat = set_ops.apply_mask(flat - mean, mask)
        # Elements become the batch.
        elements = ops.reshape(flat, (-1, *element))
        if self.pooling == "concat_max":
            largest = max_over_set(flat, mask, weights, keepdims=True)
            largest = ops.broadcast_to(ops.cast(largest, x.dtype), ops.shape(flat))
            largest = ops.reshape(largest, (-1, *element))
            elements = ops.concatenate([elements, largest], axis=-1)
        y = self._apply(self.layer, elements)
        y = ops.reshape(y, (batch, n, *ops.shape(y)[1:]))
        if self.pooled_layer is not None:
            pooled = self._pool(flat, mask, weights)
            if self._copies > 1:
                # Several pooled elements become channels of one.
                pooled = ops.reshape(pooled, (-1, self._copies, *element))
                pooled = ops.moveaxis(pooled, 1, -2)
                element = [*element[:-1], self._copies * element[-1]]
            pooled = ops.reshape(pooled, (-1, *element))
            y = y + ops.expand_dims(self._apply(self.pooled_layer, pooled), 1)
        return set_ops.apply_mask(self.activation(y), mask)

    def _apply(self, layer, elements):
        """`layer(elements)` in the compute dtype, for a batch of no elements as well.

        TensorFlow's convolutions make other shapes of an empty batch: it gets one element, of
        zeros, whose output is left out. In graphs that is decided when they run.
        """
        count, *element = ops.shape(elements)
        empty = isinstance(count, int) and count == 0
        if empty or (backend.backend() == "tensorflow" and not isinstance(count, int)):
            filler = ops.zeros(
                (1 if empty else 1 - ops.minimum(count, 1), *element), elements.dtype
            )
            y = layer(ops.concatenate([elements, filler], axis=0))[:count]
        else:
            y = layer(elements)
        return ops.cast(y, self.compute_dtype)  # the layer has a dtype policy of its own

    def _pool(self, x, mask, weights):
        """`(batch, features)` in the dtype of `x`."""
        scope = get_chunked_pooling_scope()
        if scope is not None:
            pooled = scope.pool(self.pooling, x, mask, weights)
        elif isinstance(self.pooling, Pooling):
            # Not `self.pooling(x)`, which asks for a known number of features.
            pooled = self.pooling.pool(x, mask, weights, False)
        else:
            pooled = self.pooling(x, mask=mask, weights=weights)
            if len(pooled.shape) != 2 or pooled.shape[-1] != x.shape[-1]:
                raise ValueError(
                    "Received an invalid value for `pooling`, expected one that gives one element "
                    f"for the whole set, here `(batch, features)` of {x.shape[-1]} features. "
                    f"Received: pooling={self.pooling!r}, which gives shape {tuple(pooled.shape)}"
                )
        return ops.cast(pooled, x.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        element = self._element_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *self.layer.compute_output_shape(element)[1:])

    def get_config(self) -> Config:
        pooling, pooled = self.pooling, self.pooled_layer
        return {
            **super().get_config(),
            "pooling": pooling if isinstance(pooling, str) else serialize_pooling(pooling),
            "activation": keras.activations.serialize(self.activation),
            "layer": serialize_part(self.layer),
            "pooled_layer": None if pooled is None else serialize_part(pooled),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        for name in ("layer", "pooled_layer"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return super().from_config(config)
