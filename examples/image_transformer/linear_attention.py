"""The published peer: a causal transformer whose attention is linear in the number of places."""

import math

import keras
from keras import ops

# Places whose attention is a product of matrices; what came before them is a sum.
BLOCK = 32
EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_sets.examples")
class LinearAttentionBlock(keras.layers.Layer):
    """Causal linear attention and a feed-forward network, each after a normalisation.

    With `phi(x) = elu(x) + 1`, a place i attends to the places j up to its own by

    ```
    y_i = phi(q_i) sum_j phi(k_j) v_j^T / (phi(q_i) sum_j phi(k_j))
    ```

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
        query, key, value = self._query_key_value(x)
        x = self._rest(x, causal_linear_attention(query, key, value))
        return ops.reshape(x, (-1, *shape[1:]))

    def _query_key_value(self, x):
        """`phi(q)`, `phi(k)` and `v` beside ones, `(..., heads, features / heads)`."""
        parts = ops.split(self.projection(self.norms[0](x)), 3, axis=-1)
        head = parts[0].shape[-1] // self.heads
        parts = [ops.reshape(p, (*ops.shape(p)[:-1], self.heads, head)) for p in parts]
        query, key = (ops.elu(p) + 1 for p in parts[:2])
        return query, key, ops.concatenate([parts[2], ops.ones_like(parts[2][..., :1])], axis=-1)

    def _rest(self, x, attended):
        """All of the block after its sums; their last feature is the denominator."""
        y = attended[..., :-1] / (attended[..., -1:] + EPSILON)
        x = x + self.merge(ops.reshape(y, ops.shape(x)))
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
        self.head = features // block.heads
        self.state_size = [block.heads * self.head * (self.head + 1)]

    def call(self, inputs, states):
        block = self.block
        query, key, value = block._query_key_value(inputs)
        shape = (-1, block.heads, self.head, self.head + 1)
        query, key, value = (ops.cast(part, states[0].dtype) for part in (query, key, value))
        sums = ops.reshape(states[0], shape) + ops.expand_dims(key, -1) * ops.expand_dims(value, -2)
        attended = ops.squeeze(ops.matmul(ops.expand_dims(query, -2), sums), -2)
        attended = ops.cast(attended, block.compute_dtype)
        return block._rest(inputs, attended), [ops.reshape(sums, ops.shape(states[0]))]

    def get_initial_state(self, batch_size=None):
        dtype = _dtype_of_sums(self.compute_dtype)
        return [ops.zeros((batch_size, size), dtype) for size in self.state_size]


def _dtype_of_sums(dtype):
    """Sums of hundreds of places need more than 16 bits."""
    return keras.backend.result_type(dtype, "float32")


def causal_linear_attention(query, key, value, block=BLOCK):
    """`sum over j <= i of (query_i . key_j) value_j`, at a cost linear in the places.

    Args:
        query, key: `(batch, places, heads, features)`.
        value: `(batch, places, heads, values)`.
        block: Positive integer. Within so many places the sum is a masked product, before them
            a running sum.

    Returns:
        `(batch, places, heads, values)`.
    """
    batch, places, heads, _ = query.shape
    batch = -1 if batch is None else batch
    missing = -places % block

    def blocks(x):
        """`(batch, heads, blocks, block, ...)`."""
        x = ops.pad(x, [[0, 0], [0, missing], [0, 0], [0, 0]])
        x = ops.reshape(x, (batch, (places + missing) // block, block, heads, x.shape[-1]))
        return ops.transpose(x, (0, 3, 1, 2, 4))

    query, key, value = blocks(query), blocks(key), blocks(value)
    sums = ops.matmul(ops.swapaxes(key, -1, -2), value)
    sums = ops.cumsum(ops.cast(sums, _dtype_of_sums(sums.dtype)), axis=2)
    # No difference of sums: its rounding would depend on what comes later.
    before = ops.pad(sums[:, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]])
    before = ops.cast(before, query.dtype)
    scores = ops.tril(ops.matmul(query, ops.swapaxes(key, -1, -2)))
    y = ops.matmul(query, before) + ops.matmul(scores, value)
    y = ops.transpose(y, (0, 2, 3, 1, 4))
    y = ops.reshape(y, (batch, places + missing, heads, value.shape[-1]))
    return y[:, :places]
