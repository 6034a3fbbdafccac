from typing import Any

import keras

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Initializer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.set_attention import SetAttention
from keras_sets.ops import entities as entity_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class PoolingByMultiheadAttention(SetAttention):
    """Pools a set to a few vectors: seeds attend to its entities.

    `y = block(seeds, feed_forward(x))`, where `block(q, k)` lets q attend to k, as in
    `keras_sets.layers.SetAttentionBlock`. Inputs may have any width.

    Args:
        units: Positive integer, width of the output, a multiple of `num_heads`.
        num_heads: Positive integer.
        num_seeds: Positive integer, how many vectors to make of a set.
        seeds_initializer: Initializer of the seeds, `(num_seeds, units)`.
        input_feed_forward_layers: Non-negative integer, how many Dense layers, each with the
            feed-forward activation, every entity passes before the attention: `rFF` in the
            paper, which has some. 0, as in its code, for none.
        normalization, residual, feed_forward_layers, feed_forward_units,
        feed_forward_activation, dropout, epsilon, use_bias, kernel_initializer,
        bias_initializer, kernel_regularizer, bias_regularizer, seed, attention_dropout: As in
            `keras_sets.layers.SetAttentionBlock`. Every seed draws anew.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
        training: Whether to apply dropout.

    Output shape:
        `(batch, num_seeds, units)`.

    Masking:
        Masked entities do not count, whatever they hold. The attention to a set without
        entities is 0. The output has no mask.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.PoolingByMultiheadAttention(8, num_heads=2, num_seeds=4)
    >>> layer(np.ones((2, 50, 3))).shape == (2, 4, 8)
    True

    Reference:
        [Lee et al., 2019, Set Transformer](https://arxiv.org/abs/1810.00825), equation 11.
    """

    symmetry = "invariant"

    def __init__(
        self,
        units: int,
        num_heads: int,
        num_seeds: int = 1,
        seeds_initializer: Initializer = "glorot_uniform",
        input_feed_forward_layers: int = 0,
        **kwargs: Any,
    ) -> None:
        num_seeds = validation.positive_integer("num_seeds", num_seeds)
        input_feed_forward_layers = validation.non_negative_integer(
            "input_feed_forward_layers", input_feed_forward_layers
        )
        super().__init__(units, num_heads, **kwargs)
        self.num_seeds = num_seeds
        self.seeds_initializer = keras.initializers.get(seeds_initializer)
        self.input_feed_forward_layers = input_feed_forward_layers
        self.input_feed_forward = [
            self._dense(f"input_feed_forward_{i}", self.feed_forward_activation)
            for i in range(input_feed_forward_layers)
        ]
        self.block = self._block("block", self.seed, points="queries")

    def build(self, input_shape: Shape) -> None:
        self.seeds = self.add_weight(
            name="seeds",
            shape=(self.num_seeds, self.units),
            initializer=self.seeds_initializer,
        )
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})
        entities = (input_shape[0], None, input_shape[-1])
        for layer in self.input_feed_forward:
            layer.build(entities)
            entities = layer.compute_output_shape(entities)
        self.block.build((input_shape[0], self.num_seeds, self.units), entities)
        self._restore_parts()
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        x, mask, weights = entity_ops.flatten_set(x, mask, weights)
        for layer in self.input_feed_forward:
            x = layer(x)
        seeds = self._points(self.seeds, x)
        return self.block(seeds, x, None, None, mask, weights, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_seeds, self.units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_seeds": self.num_seeds,
            "seeds_initializer": keras.initializers.serialize(self.seeds_initializer),
            "input_feed_forward_layers": self.input_feed_forward_layers,
        }
