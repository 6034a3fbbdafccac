"""Attention of every place to those before it, at a cost linear in their number.

With `phi(x) = elu(x) + 1`, a place i attends to the places j up to its own by

    y_i = phi(q_i) sum_j phi(k_j) v_j^T / (phi(q_i) sum_j phi(k_j))

Katharopoulos et al., 2020, Transformers are RNNs, equations 9 and 18 to 20.
"""

from keras import ops

from keras_sets.ops.entities import accumulation_dtype

# Places whose attention is a product of matrices; what came before them is a sum.
BLOCK = 32


def split_heads(x, num_heads):
    """`phi(q)`, `phi(k)` and v beside ones, from `(..., 3 * features)` of all heads.

    Returns:
        Three of `(..., num_heads, features / num_heads)`, the last with one more.
    """
    parts = ops.split(x, 3, axis=-1)
    head = parts[0].shape[-1] // num_heads
    query, key, value = (
        ops.reshape(part, (*ops.shape(part)[:-1], num_heads, head)) for part in parts
    )
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    return ops.elu(query) + 1, ops.elu(key) + 1, value


def merge_heads(sums):
    """The attention `(..., features)` from sums whose last feature is the denominator.

    It is 0 where there is nothing to attend to. No constant is added to the denominator: small
    multiplicities would be lost in it.
    """
    denominator = sums[..., -1:]
    y = sums[..., :-1] / ops.where(denominator > 0, denominator, ops.ones_like(denominator))
    return ops.reshape(y, (*ops.shape(y)[:-2], y.shape[-2] * y.shape[-1]))


def causal_sums(query, key, value, block=BLOCK):
    """`sum over j <= i of (query_i . key_j) value_j`.

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
    # Sums of hundreds of places need more than 16 bits.
    sums = ops.cumsum(ops.cast(sums, accumulation_dtype(sums)), axis=2)
    # No difference of sums: its rounding would depend on what comes later.
    before = ops.pad(sums[:, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]])
    before = ops.cast(before, query.dtype)
    scores = ops.tril(ops.matmul(query, ops.swapaxes(key, -1, -2)))
    y = ops.matmul(query, before) + ops.matmul(scores, value)
    y = ops.transpose(y, (0, 2, 3, 1, 4))
    y = ops.reshape(y, (batch, places + missing, heads, value.shape[-1]))
    return y[:, :places]


def one_place(query, key, value, sums):
    """The sums of the next place, and what the place after it begins with.

    Args:
        query, key: `(batch, heads, features)`.
        value: `(batch, heads, values)`.
        sums: `sum_j key_j value_j^T` over the places before, flat, `(batch, heads * features *
            values)`, in a dtype that holds it.

    Returns:
        `(batch, heads, values)`, in the dtype of the query, and the new sums.
    """
    dtype, size = query.dtype, (*key.shape[1:], value.shape[-1])
    query, key, value = (ops.cast(part, sums.dtype) for part in (query, key, value))
    added = ops.expand_dims(key, -1) * ops.expand_dims(value, -2)
    sums = sums + ops.reshape(added, ops.shape(sums))
    by_head = ops.reshape(sums, (-1, *size))
    y = ops.squeeze(ops.matmul(ops.expand_dims(query, -2), by_head), -2)
    return ops.cast(y, dtype), sums


def size_of_sums(features, num_heads):
    """Numbers that `one_place` hands on, for one set."""
    head = features // num_heads
    return num_heads * head * (head + 1)
