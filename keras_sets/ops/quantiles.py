"""Sorted sets: quantiles, and integrals of the quantile function.

The quantile function Q of a weighted set is the inverse of its cumulative distribution: Q(u) is
the smallest value whose entities and all smaller ones have at least the share u of the weight.
"""

import numpy as np
from keras import backend
from keras import ops

from keras_sets.ops.entities import accumulate
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import counts_of
from keras_sets.ops.entities import entity_axes
from keras_sets.ops.entities import flatten_entities
from keras_sets.ops.entities import lowest
from keras_sets.ops.entities import running_sum
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.entities import scale_weights
from keras_sets.ops.pooling import set_max

# Shares that differ by so many roundings are equal: counts are exact, sums of weights are not.
CLOSE_COUNTS, CLOSE_WEIGHTS = 2, 84


def sorted_set(x, mask=None, weights=None):
    """Every feature sorted on its own.

    Returns:
        `(values, shares)`, both `(batch, n, features)`: the values in rising order, absent
        entities last, and the share of the weight that a value and all before it have. Both
        are 0 in sets without entities.
    """
    x, mask, weights = accumulate(x, mask, weights)
    if weights is not None:
        weights, _ = scale_weights(weights)
    counts = flatten_entities(counts_of(x, mask, weights))
    x = flatten_entities(x)
    counts = ops.broadcast_to(counts, ops.shape(x))
    last = ops.where(counts == 0, ops.full_like(x, -lowest(x)), x)
    order = ops.argsort(ops.stop_gradient(last), axis=1)
    values, counts = (_in_order(t, order) for t in (x, counts))
    total = running_sum(counts)
    return values, safe_ratio(total, total[:, -1:])


def _in_order(x, order):
    """`ops.take_along_axis` over the entities, which torch exports for one size of sets only."""
    if backend.backend() == "torch":
        return x.gather(1, ops.cast(order, "int64"))
    return ops.take_along_axis(x, order, axis=1)


def set_quantile(x, q, mask=None, weights=None):
    """Quantiles `(batch, len(q) * features)` of every feature, those of one q together; 0 for none.

    Where a share q falls between two entities exactly, the mean of both is given, so that q = 0.5
    is the usual median. An entity of weight w counts like w copies.

    Args:
        q: Sequence of numbers in [0, 1].
    """
    if 0 in x.shape[1:-1]:
        # Nothing to sort; the sum has the shape, and a batch of any size.
        x = accumulate(x, None, None)[0]
        nothing = ops.sum(x, axis=entity_axes(x))
        return ops.concatenate([nothing] * len(q), axis=-1)
    x, mask, weights = accumulate(x, mask, weights)
    roundings = CLOSE_COUNTS if weights is None else CLOSE_WEIGHTS
    close = roundings * float(np.finfo(accumulation_dtype(x)).eps)
    between = [share for share in q if 0 < share < 1]
    values, shares = sorted_set(x, mask, weights) if between else (None, None)

    def quantile(q):
        # The ends are those of all that is there, however small its share.
        if q == 0:
            return -set_max(-x, mask, weights)
        if q == 1:
            return set_max(x, mask, weights)
        # The first places at which the share is reached, and passed. There is always an entity
        # that has reached it, and none has passed the whole.
        reached = _first(values, shares >= q - close)
        passed = _first(values, shares > min(q, 1.0 - 2 * close) + close)
        # Weights that are none make shares NaN, which no comparison shows.
        return 0.5 * (reached + passed) + 0 * ops.sum(shares, axis=1)

    return ops.concatenate([quantile(share) for share in q], axis=-1)


def _first(values, there):
    """Of `(batch, n, features)` the first along n where `there` holds; 0 where it nowhere does."""
    # Numbers, because files in ONNX from TensorFlow fill up nothing else.
    before = ops.pad(ops.cast(there, values.dtype), ((0, 0), (1, 0), (0, 0)))[:, :-1]
    first = ops.logical_and(there, before == 0)
    return ops.sum(ops.where(first, values, ops.zeros_like(values)), axis=1)


def set_quantile_integral(x, values, mask=None, weights=None):
    """`integral over u in [0, 1] of Q(u) f(u)` of every feature, for piecewise linear f.

    Args:
        values: `(knots, features)`, f at equidistant knots from 0 to 1.
    """
    if 0 in x.shape[1:-1]:
        x = accumulate(x, None, None)[0]
        return ops.sum(x, axis=entity_axes(x))
    x, shares = sorted_set(x, mask, weights)
    values = ops.cast(values, x.dtype)
    until = _antiderivative(values, shares)
    before = ops.pad(until, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return ops.sum(x * (until - before), axis=1)


def _antiderivative(values, shares):
    """Integral from 0 to every share of the function with these values at the knots."""
    pieces, features = values.shape[0] - 1, values.shape[1]
    means = 0.5 * (values[:-1] + values[1:]) / pieces
    # Sums of whole pieces, `(pieces, features)`, by a product: `ops.cumsum` rounds on torch.
    lower = ops.tri(pieces, k=-1, dtype=backend.standardize_dtype(values.dtype))
    whole = lower @ means
    place = shares * pieces
    piece = ops.clip(ops.floor(ops.stop_gradient(place)), 0, pieces - 1)
    piece = ops.where(piece >= 0, piece, ops.zeros_like(piece))  # NaN is no index
    inside = place - piece
    index = ops.cast(piece, "int32") * features + ops.arange(features, dtype="int32")

    def at(table):
        return ops.take(ops.reshape(table, (-1,)), index)

    left, right = at(values[:-1]), at(values[1:])
    part = inside * left + 0.5 * ops.square(inside) * (right - left)
    return at(whole) + part / pieces
