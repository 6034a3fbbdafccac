"""Reductions over the entities of a set, with masks, weights and empty sets.

Shapes: `x` is `(batch, *entities, features)`, `mask` and `weights` are
`(batch, *entities)`. A mask says which entities are there, weights say how often.
An entity with weight 0 is absent, exactly as if it were masked. Sums accumulate in
float32 or wider; results have the accumulation dtype, the caller casts.
"""

import math

from keras import backend
from keras import ops


def accumulation_dtype(x):
    """float64 for float64 input, float32 for everything else."""
    return "float64" if backend.standardize_dtype(x.dtype) == "float64" else "float32"


def entity_axes(x):
    """All axes between the first (batch) and the last (features)."""
    return tuple(range(1, len(x.shape) - 1))


def multiplicities(mask=None, weights=None, dtype="float32"):
    """Reduces a mask and weights to `(present, weights)`.

    `present` is bool `(batch, *entities)`, or None when every entity is there.
    `weights` is float, 0 at absent entities whatever they held before (NaN
    included), or None when every present entity counts once.
    """
    if mask is not None:
        mask = ops.cast(mask, "bool")
    if weights is None:
        return mask, None
    weights = ops.cast(weights, dtype)
    present = ops.greater(weights, 0)
    if mask is not None:
        present = ops.logical_and(present, mask)
    return present, ops.where(present, weights, ops.zeros_like(weights))


def zero_absent(x, present):
    """`x` with exact zeros at absent entities, in value and in gradient."""
    if present is None:
        return x
    present = ops.expand_dims(present, -1)
    return ops.where(present, x, ops.zeros_like(x))


def flatten_entities(x):
    """`(batch, *entities, features)` to `(batch, n, features)`, row-major."""
    if len(x.shape) == 3:
        return x
    entities = x.shape[1:-1]
    if None in entities:
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
    # An empty tensor leaves nothing to infer the batch from.
    batch = ops.shape(x)[0] if 0 in entities else -1
    return ops.reshape(x, (batch, math.prod(entities), x.shape[-1]))


def expand_over_entities(pooled, rank):
    """`(batch, features)` to `(batch, 1, ..., 1, features)` of the given rank."""
    shape = (-1,) + (1,) * (rank - 2) + (pooled.shape[-1],)
    return ops.reshape(pooled, shape)


def _accumulate(x, mask, weights):
    """Widens `x`, zeroes absent entities; returns x, present, weights."""
    dtype = accumulation_dtype(x)
    present, weights = multiplicities(mask, weights, dtype)
    return zero_absent(ops.cast(x, dtype), present), present, weights


def _counts(x, present, weights):
    """The multiplicity of every entity, `(batch, *entities, 1)`, in x's dtype."""
    if weights is not None:
        return ops.expand_dims(weights, -1)
    if present is not None:
        return ops.expand_dims(ops.cast(present, x.dtype), -1)
    return ops.ones_like(x[..., :1])


def _scale_free(weights):
    """Weights divided by the largest of their set.

    Where only ratios matter this keeps tiny and huge weights within range. The
    divisor cancels, so no gradient needs to pass through it.
    """
    axes = tuple(range(1, len(weights.shape)))
    if 0 in weights.shape[1:]:
        return weights
    largest = ops.stop_gradient(ops.max(weights, axis=axes, keepdims=True))
    return weights / ops.where(largest > 0, largest, ops.ones_like(largest))


def _ratio(numerator, denominator):
    """`numerator / denominator`, 0 where the denominator is not positive."""
    positive = denominator > 0
    safe = ops.where(positive, denominator, ops.ones_like(denominator))
    return ops.where(positive, numerator / safe, ops.zeros_like(numerator))


def set_sum(x, mask=None, weights=None, keepdims=False):
    """Sum over the entities, each counted `weights` times. The empty sum is 0."""
    x, _, weights = _accumulate(x, mask, weights)
    if weights is not None:
        x = x * ops.expand_dims(weights, -1)
    return ops.sum(x, axis=entity_axes(x), keepdims=keepdims)


def set_mean(x, mask=None, weights=None, keepdims=False):
    """Weighted mean over the entities. The mean of nothing is 0."""
    x, present, weights = _accumulate(x, mask, weights)
    axes = entity_axes(x)
    if weights is not None:
        weights = _scale_free(weights)
        x = x * ops.expand_dims(weights, -1)
    total = ops.sum(x, axis=axes, keepdims=keepdims)
    size = x.shape[1:-1]
    if present is None and None not in size and 0 not in size:
        return total / math.prod(size)
    count = ops.sum(_counts(x, present, weights), axis=axes, keepdims=keepdims)
    return _ratio(total, count)


def set_max(x, mask=None, weights=None, keepdims=False):
    """Largest value of every feature over the present entities; 0 for none."""
    x, present, _ = _accumulate(x, mask, weights)
    axes = entity_axes(x)
    if 0 in x.shape[1:-1]:
        return ops.sum(x, axis=axes, keepdims=keepdims)
    if present is None:
        return ops.max(x, axis=axes, keepdims=keepdims)
    present = ops.expand_dims(present, -1)
    lowest = ops.full_like(x, -float("inf"))
    largest = ops.max(ops.where(present, x, lowest), axis=axes, keepdims=keepdims)
    occupied = ops.any(present, axis=axes, keepdims=keepdims)
    return ops.where(occupied, largest, ops.zeros_like(largest))


def set_logsumexp(x, mask=None, weights=None, keepdims=False):
    """`log sum_i w_i exp(x_i)` over the present entities; 0 for none."""
    x, present, weights = _accumulate(x, mask, weights)
    axes = entity_axes(x)
    if 0 in x.shape[1:-1]:
        return ops.sum(x, axis=axes, keepdims=keepdims)
    shift = ops.stop_gradient(set_max(x, present, keepdims=True))
    terms = ops.exp(zero_absent(x - shift, present))
    terms = terms * _counts(x, present, weights)
    total = ops.sum(terms, axis=axes, keepdims=True)
    occupied = total > 0
    total = ops.where(occupied, total, ops.ones_like(total))
    result = ops.where(occupied, ops.log(total) + shift, ops.zeros_like(total))
    return result if keepdims else ops.squeeze(result, axis=axes)


def set_causal_mean(x, mask=None, weights=None):
    """Running weighted mean in row-major order over the entity axes.

    Entity t gets the mean over the present entities 1..t, itself included, and 0
    where there is none so far. The shape of `x` is kept; absent entities get 0.
    """
    shape = ops.shape(x)
    x, present, weights = _accumulate(x, mask, weights)
    if weights is not None:
        x = x * ops.expand_dims(weights, -1)
    counts = flatten_entities(_counts(x, present, weights))
    totals = ops.cumsum(flatten_entities(x), axis=1)
    mean = ops.reshape(_ratio(totals, ops.cumsum(counts, axis=1)), shape)
    return zero_absent(mean, present)


def set_pooling_maps(x, num_maps, mask=None, weights=None):
    """Summaries of the set under learned maps, dealt out to the entities by gates.

    The features of `x` split into values, `num_maps` keys and `num_maps` gates. Map s is
    the softmax of its key over the present entities, each counted `weights` times;
    entity e gets `sum_s gate[e, s] sum_j map[s, j] values[j]`. The cost is linear in the
    number of entities. The shape is `(batch, *entities, features - 2 * num_maps)`, absent
    entities get 0.
    """
    values = x.shape[-1] - 2 * num_maps
    shape = ops.shape(x)[:-1] + (values,)
    x, present, weights = _accumulate(x, mask, weights)
    if weights is not None:
        weights = _scale_free(weights)
    keys = x[..., values : values + num_maps]
    gates = flatten_entities(x[..., values + num_maps :])
    if 0 not in x.shape[1:-1]:
        keys = keys - ops.stop_gradient(set_max(keys, present, keepdims=True))
    maps = ops.exp(zero_absent(keys, present)) * _counts(x, present, weights)
    maps = flatten_entities(maps)
    totals = ops.expand_dims(ops.sum(maps, axis=1), -1)
    # One product with the values for all maps; the softmax is normalised after it.
    summaries = ops.swapaxes(maps, 1, 2) @ flatten_entities(x[..., :values])
    return zero_absent(ops.reshape(gates @ _ratio(summaries, totals), shape), present)
