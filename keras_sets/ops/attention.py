"""Attention over the entities of a set."""

from keras import ops

from keras_sets.ops.pooling import accumulation_dtype
from keras_sets.ops.pooling import counts_of
from keras_sets.ops.pooling import multiplicities
from keras_sets.ops.pooling import safe_ratio
from keras_sets.ops.pooling import scale_weights


def set_attention(query, key, value, mask=None, weights=None):
    """Softmax attention of every query over the present entities.

    `y_t = sum_i p_ti value_i` with p the softmax over i of
    `query_t . key_i / sqrt(dim) + log w_i`: an entity of weight w counts like w copies.

    Args:
        query: `(batch, queries, heads, dim)`.
        key: `(batch, n, heads, dim)`, finite at absent entities too.
        value: `(batch, n, heads, value_dim)`, the same.
        mask: Optional bool `(batch, n)`.
        weights: Optional float `(batch, n)`, at least 0.

    Returns:
        `(batch, queries, heads, value_dim)` in the accumulation dtype. Attention to
        nothing is 0.
    """
    dtype = accumulation_dtype(query)
    present, weights = multiplicities(mask, weights, dtype)
    if weights is not None:
        weights, _ = scale_weights(weights)
    if 0 in (query.shape[1], key.shape[1]):
        shape = ops.shape(query)[:3] + (value.shape[-1],)
        return ops.zeros(shape, dtype=dtype)
    counts = counts_of(ops.cast(key[:, :, 0, :1], dtype), present, weights)
    counts = ops.expand_dims(counts[..., 0], (1, 2))
    query = ops.transpose(ops.cast(query, dtype), (0, 2, 1, 3)) * query.shape[-1] ** -0.5
    key = ops.transpose(ops.cast(key, dtype), (0, 2, 3, 1))
    value = ops.transpose(ops.cast(value, dtype), (0, 2, 1, 3))
    scores = query @ key
    scores = scores - ops.stop_gradient(_largest(scores, present))
    if present is None:
        terms = ops.exp(scores)
    else:
        # `(batch, n)` to `(batch, heads, queries, n)`; the exponent is made safe before
        # the exponential, so that absent entities get no gradient either.
        there = present[:, None, None, :]
        terms = ops.exp(ops.where(there, scores, ops.zeros_like(scores))) * counts
    # The softmax is normalised after the product with the values.
    total = ops.sum(terms, axis=-1, keepdims=True)
    return ops.transpose(safe_ratio(terms @ value, total), (0, 2, 1, 3))


def _largest(scores, present):
    if present is None:
        return ops.max(scores, axis=-1, keepdims=True)
    there = present[:, None, None, :]
    lowest = ops.full_like(scores, -float("inf"))
    largest = ops.max(ops.where(there, scores, lowest), axis=-1, keepdims=True)
    occupied = ops.any(there, axis=-1, keepdims=True)
    return ops.where(occupied, largest, ops.zeros_like(largest))
