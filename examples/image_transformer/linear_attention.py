"""The published peer: a causal transformer whose attention is linear in the number of places."""

import math

import keras
from keras import ops

from keras_sets.ops import linear_attention as linear_attention_ops


@keras.saving.register_keras_serializable(package="keras_sets.examples")
class LinearAttentionBlock(keras.layers.Layer):
    """Causal linear attention and a feed-forward network, each after a normalisation.

    Args:
        heads: Positive integer, number of heads; the features are a multiple of it.
        expansion: Positive integer, width of the feed-forward network in features.
        activation: Activation of the feed-forward network.

    Call arguments:
        inputs: `(batch, *places, features)`, the places in row-major order.

    Output shape:
        As the inputs.

    Reference:
        [Katharopoulos et al., 2020, Transformers are RNNs](https://arxiv.org/abs/2006.16236),
        equations 9 and 18 to 20.
    """

    def __init__(self, heads=4, expansion=4, activation="gelu", **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.expansion = expansion
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        features = input_shape[-1]
        width = self.expansion * features
        dense, shape = keras.layers.Dense, (None, features)
        self.norms = [keras.layers.LayerNormalization(name=f"norm_{i}") for i in range(2)]
        self.projection = dense(3 * features, use_bias=False, name="query_key_value")
        self.merge = dense(features, name="merge")
        self.inner = dense(width, self.activation, name="inner")
        self.outer = dense(features, name="outer")
        for layer in (*self.norms, self.projection, self.merge, self.inner):
            layer.build(shape)
        self.outer.build((None, width))
        self.built = True

    def call(self, inputs):
        *_, features = shape = inputs.shape
        x = ops.reshape(inputs, (-1, math.prod(shape[1:-1]), features))
        x = self._rest(x, linear_attention_ops.causal_sums(*self._query_key_value(x)))
        return ops.reshape(x, (-1, *shape[1:]))

    def _query_key_value(self, x):
        return linear_attention_ops.split_heads(self.projection(self.norms[0](x)), self.heads)

    def _rest(self, x, sums):
        """All of the block after the sums of the attention."""
        x = x + self.merge(linear_attention_ops.merge_heads(sums))
        return x + self.outer(self.inner(self.norms[1](x)))

    def streaming_cell(self):
        """The block place by place, as `keras_sets.models.generate` wants it."""
        return _StreamingCell(self)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "expansion": self.expansion,
            "activation": keras.activations.serialize(self.activation),
        }


class _StreamingCell(keras.layers.Layer):
    """The recurrent form: its state is `sum_j phi(k_j) [v_j, 1]^T`, flat."""

    def __init__(self, block):
        super().__init__(dtype=block.dtype_policy)
        self.block = block
        features = block.merge.kernel.shape[-1]
        self.state_size = [linear_attention_ops.size_of_sums(features, block.heads)]

    def call(self, inputs, states):
        parts = self.block._query_key_value(inputs)
        sums, after = linear_attention_ops.one_place(*parts, states[0])
        return self.block._rest(inputs, sums), [after]

    def get_initial_state(self, batch_size=None):
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        return [ops.zeros((batch_size, size), dtype) for size in self.state_size]
