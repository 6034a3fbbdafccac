"""Reductions over the entities of a set, with masks, weights and empty sets.

Shapes: `x` is `(batch, *entities, features)`, `mask` and `weights` are
`(batch, *entities)`. A mask says which entities are there, weights say how often.
An entity with weight 0 is absent, exactly as if it were masked. Sums accumulate in
float32 or wider; results have the accumulation dtype, the caller casts.

A set larger than memory is pooled in chunks: `*_state(x, mask, weights)` is what a chunk
adds, `merge_*` joins the states of two chunks, `finish_*` gives what the function of the
whole set gives. States are dicts of tensors (or pairs of them) with a leading batch axis,
float32 or wider, and sums carry their rounding errors along.
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


def counts_of(x, present, weights):
    """The multiplicity of every entity, `(batch, *entities, 1)`, in x's dtype."""
    if weights is not None:
        return ops.expand_dims(weights, -1)
    if present is not None:
        return ops.expand_dims(ops.cast(present, x.dtype), -1)
    return ops.ones_like(x[..., :1])


def scale_weights(weights):
    """`(weights / scale, scale)`, scale the largest weight of every set.

    Where only ratios matter this keeps tiny and huge weights within range. The scale
    cancels, so no gradient needs to pass through it.
    """
    axes = tuple(range(1, len(weights.shape)))
    if 0 in weights.shape[1:]:
        return weights, ops.sum(weights, axis=axes, keepdims=True)
    largest = ops.stop_gradient(ops.max(weights, axis=axes, keepdims=True))
    return weights / ops.where(largest > 0, largest, ops.ones_like(largest)), largest


def _scale_free(x, weights):
    """`(x * weights / scale, weights / scale, scale)`; see `scale_weights`."""
    weights, scale = scale_weights(weights)
    return x * ops.expand_dims(weights, -1), weights, scale


def safe_ratio(numerator, denominator):
    """`numerator / denominator`, 0 where the denominator is not positive."""
    positive = denominator > 0
    safe = ops.where(positive, denominator, ops.ones_like(denominator))
    return ops.where(positive, numerator / safe, ops.zeros_like(numerator))


def _exact(total):
    """A sum as a pair: what it is, and what rounding took from it so far."""
    return total, ops.zeros_like(total)


def _add(a, b):
    """Sum of two such pairs; the rounding error of the addition is kept (Knuth's TwoSum)."""
    total = a[0] + b[0]
    of_b = total - a[0]
    error = (a[0] - (total - of_b)) + (b[0] - of_b)
    lost = a[1] + b[1] + error
    return total, ops.where(ops.isfinite(total), lost, ops.zeros_like(lost))


def _scaled(pair, factor):
    return pair[0] * factor, pair[1] * factor


def _rounded(pair):
    return pair[0] + pair[1]


def _join_shifts(a, b):
    """The larger of two shifts, and the factors that bring sums of exponentials to it.

    `a` and `b` are `(shift, occupied)`. Where a side has no entity its factor is 0.
    """
    (shift_a, occupied_a), (shift_b, occupied_b) = a, b
    larger = ops.where(occupied_b, ops.maximum(shift_a, shift_b), shift_a)
    shift = ops.where(occupied_a, larger, shift_b)
    zero = ops.zeros_like(shift)
    factors = (
        ops.where(occupied, ops.exp(ops.where(occupied, own - shift, zero)), zero)
        for own, occupied in (a, b)
    )
    return shift, *factors


def set_sum(x, mask=None, weights=None, keepdims=False):
    """Sum over the entities, each counted `weights` times. The empty sum is 0."""
    x, _, weights = _accumulate(x, mask, weights)
    if weights is not None:
        x = x * ops.expand_dims(weights, -1)
    return ops.sum(x, axis=entity_axes(x), keepdims=keepdims)


def sum_state(x, mask=None, weights=None):
    """What a chunk adds to the sum."""
    return {"sum": _exact(set_sum(x, mask, weights))}


def merge_sums(a, b):
    """State of two chunks together, for states that are sums only."""
    return {name: _add(a[name], b[name]) for name in a}


def finish_sum(state):
    """The sum of all entities in a state; 0 for none."""
    return _rounded(state["sum"])


def set_mean(x, mask=None, weights=None, keepdims=False):
    """Weighted mean over the entities. The mean of nothing is 0."""
    x, present, weights = _accumulate(x, mask, weights)
    if weights is not None:
        x, weights, _ = _scale_free(x, weights)
    axes = entity_axes(x)
    total = ops.sum(x, axis=axes, keepdims=keepdims)
    size = x.shape[1:-1]
    if present is None and None not in size and 0 not in size:
        return total / math.prod(size)
    count = ops.sum(counts_of(x, present, weights), axis=axes, keepdims=keepdims)
    return safe_ratio(total, count)


def mean_state(x, mask=None, weights=None):
    """What a chunk adds to the mean: its sum and count in units of its largest weight."""
    x, present, weights = _accumulate(x, mask, weights)
    if weights is not None:
        x, weights, scale = _scale_free(x, weights)
    axes = entity_axes(x)
    count = ops.sum(counts_of(x, present, weights), axis=axes)
    if weights is None:
        scale = ops.cast(count > 0, x.dtype)
    return {
        "scale": ops.reshape(scale, (-1, 1)),
        "sum": _exact(ops.sum(x, axis=axes)),
        "count": _exact(count),
    }


def merge_means(a, b):
    """State of the mean of two chunks together."""
    scale = ops.maximum(a["scale"], b["scale"])
    sums = (
        {name: _scaled(state[name], safe_ratio(state["scale"], scale)) for name in ("sum", "count")}
        for state in (a, b)
    )
    return {"scale": scale, **merge_sums(*sums)}


def finish_mean(state):
    """The mean of all entities in a state; 0 for none."""
    return safe_ratio(_rounded(state["sum"]), _rounded(state["count"]))


def set_max(x, mask=None, weights=None, keepdims=False):
    """Largest value of every feature over the present entities; 0 for none."""
    x, present, _ = _accumulate(x, mask, weights)
    if present is None and 0 not in x.shape[1:-1]:
        return ops.max(x, axis=entity_axes(x), keepdims=keepdims)
    return finish_max(_max_state(x, present, keepdims))


def max_state(x, mask=None, weights=None):
    """What a chunk adds to the maximum: its own, and whether it has an entity."""
    x, present, _ = _accumulate(x, mask, weights)
    return _max_state(x, present)


def _max_state(x, present, keepdims=False):
    axes = entity_axes(x)
    if 0 in x.shape[1:-1]:
        nothing = ops.sum(x, axis=axes, keepdims=keepdims)
        occupied = ops.zeros_like(nothing[..., :1], dtype="bool")
        return {"largest": ops.full_like(nothing, -float("inf")), "occupied": occupied}
    present = counts_of(x, present, None) > 0 if present is None else ops.expand_dims(present, -1)
    lowest = ops.full_like(x, -float("inf"))
    return {
        "largest": ops.max(ops.where(present, x, lowest), axis=axes, keepdims=keepdims),
        "occupied": ops.any(present, axis=axes, keepdims=keepdims),
    }


def merge_maxima(a, b):
    """State of the maximum of two chunks together."""
    return {
        "largest": ops.maximum(a["largest"], b["largest"]),
        "occupied": ops.logical_or(a["occupied"], b["occupied"]),
    }


def finish_max(state):
    """The largest value of all entities in a state; 0 for none."""
    return ops.where(state["occupied"], state["largest"], ops.zeros_like(state["largest"]))


def set_logsumexp(x, mask=None, weights=None, keepdims=False):
    """`log sum_i w_i exp(x_i)` over the present entities; 0 for none."""
    x, present, weights = _accumulate(x, mask, weights)
    axes = entity_axes(x)
    if 0 in x.shape[1:-1]:
        return ops.sum(x, axis=axes, keepdims=keepdims)
    result = _log_of_sum(*_shifted_sum(x, present, weights))
    return result if keepdims else ops.squeeze(result, axis=axes)


def _shifted_sum(x, present, weights):
    """`(shift, sum_i w_i exp(x_i - shift))`, shift the maximum, entity axes of size 1."""
    shift = ops.stop_gradient(set_max(x, present, keepdims=True))
    terms = ops.exp(zero_absent(x - shift, present))
    terms = terms * counts_of(x, present, weights)
    return shift, ops.sum(terms, axis=entity_axes(x), keepdims=True)


def _log_of_sum(shift, total):
    occupied = total > 0
    total = ops.where(occupied, total, ops.ones_like(total))
    return ops.where(occupied, ops.log(total) + shift, ops.zeros_like(total))


def logsumexp_state(x, mask=None, weights=None):
    """What a chunk adds to the logarithm of the sum of exponentials."""
    x, present, weights = _accumulate(x, mask, weights)
    axes = entity_axes(x)
    if 0 in x.shape[1:-1]:
        shift = total = ops.sum(x, axis=axes)
    else:
        shift, total = (ops.squeeze(t, axis=axes) for t in _shifted_sum(x, present, weights))
    return {"shift": shift, "sum": _exact(total)}


def merge_logsumexps(a, b):
    """State of the logarithm of the sum of exponentials of two chunks together."""
    shift, factor_a, factor_b = _join_shifts(
        (a["shift"], a["sum"][0] > 0), (b["shift"], b["sum"][0] > 0)
    )
    total = _add(_scaled(a["sum"], factor_a), _scaled(b["sum"], factor_b))
    return {"shift": shift, "sum": total}


def finish_logsumexp(state):
    """The logarithm of the sum of exponentials in a state; 0 for none."""
    return _log_of_sum(state["shift"], _rounded(state["sum"]))


def set_causal_mean(x, mask=None, weights=None):
    """Running weighted mean in row-major order over the entity axes.

    Entity t gets the mean over the present entities 1..t, itself included, and 0
    where there is none so far. The shape of `x` is kept; absent entities get 0.
    """
    return scan_causal_mean(None, x, mask, weights)[0]


def causal_mean_state(x, mask=None, weights=None):
    """What a chunk adds to a running mean: its sum and its count.

    They have the unit of the weights, because a unit that is found in a chunk would let
    later entities act on earlier ones.
    """
    x, present, weights = _accumulate(x, mask, weights)
    axes = entity_axes(x)
    counts = counts_of(x, present, weights)
    x = x if weights is None else x * counts
    return {"sum": _exact(ops.sum(x, axis=axes)), "count": _exact(ops.sum(counts, axis=axes))}


def scan_causal_mean(state, x, mask=None, weights=None):
    """`(means, state)`: the running means of a chunk, after the entities in `state`.

    `state=None` is nothing before, and then no state is returned either.
    """
    shape = ops.shape(x)
    after = None if state is None else merge_sums(state, causal_mean_state(x, mask, weights))
    x, present, weights = _accumulate(x, mask, weights)
    if weights is not None:
        x = x * ops.expand_dims(weights, -1)
    totals = ops.cumsum(flatten_entities(x), axis=1)
    if state is None and present is None and totals.shape[1] is not None:
        counts = ops.expand_dims(ops.arange(1, totals.shape[1] + 1, dtype=x.dtype), -1)
        return ops.reshape(totals / counts, shape), None
    counts = ops.cumsum(flatten_entities(counts_of(x, present, weights)), axis=1)
    if state is not None:
        totals = _add_before(state["sum"], totals)
        counts = _add_before(state["count"], counts)
    means = ops.reshape(safe_ratio(totals, counts), shape)
    return zero_absent(means, present), after


def _add_before(pair, running):
    """Running sums of a chunk plus the sum of all chunks before it."""
    total, lost = (ops.expand_dims(part, 1) for part in pair)
    return total + (running + lost)


def finish_causal_mean(state):
    """The mean of all entities so far; 0 for none."""
    return safe_ratio(_rounded(state["sum"]), _rounded(state["count"]))


def set_pooling_maps(x, num_maps, mask=None, weights=None):
    """Summaries of the set under learned maps, dealt out to the entities by gates.

    The features of `x` split into values, `num_maps` keys and `num_maps` gates. Map s is
    the softmax of its key over the present entities, each counted `weights` times;
    entity e gets `sum_s gate[e, s] sum_j map[s, j] values[j]`. The cost is linear in the
    number of entities. The shape is `(batch, *entities, features - 2 * num_maps)`, absent
    entities get 0.
    """
    x, present, weights = _accumulate(x, mask, weights)
    _, _, totals, summaries = _map_sums(x, num_maps, present, weights)
    return deal_out_maps(safe_ratio(summaries, totals), x, num_maps, present)


def deal_out_maps(summaries, x, num_maps, present=None):
    """Every entity's mixture `(batch, *entities, values)` of `(batch, num_maps, values)`."""
    shape = ops.shape(x)[:-1] + (summaries.shape[-1],)
    gates = flatten_entities(ops.cast(x[..., -num_maps:], summaries.dtype))
    return zero_absent(ops.reshape(gates @ summaries, shape), present)


def _map_sums(x, num_maps, present, weights):
    """`(shift, scale, totals, summaries)`: softmax sums before they are normalised.

    `totals` `(batch, num_maps, 1)` and `summaries` `(batch, num_maps, values)` are in units
    of `exp(shift) * scale`, the largest key of every map and the largest weight. `scale` is
    None without weights.
    """
    values = x.shape[-1] - 2 * num_maps
    keys = x[..., values : values + num_maps]
    counts, scale = counts_of(x, present, weights), None
    if weights is not None:
        counts, _, scale = _scale_free(ops.ones_like(counts), weights)
    shift = ops.stop_gradient(set_max(keys, present, keepdims=True))
    maps = flatten_entities(ops.exp(zero_absent(keys - shift, present)) * counts)
    totals = ops.expand_dims(ops.sum(maps, axis=1), -1)
    # One product with the values for all maps; the softmax is normalised after it.
    summaries = ops.swapaxes(maps, 1, 2) @ flatten_entities(x[..., :values])
    return shift, scale, totals, summaries


def pooling_maps_state(x, num_maps, mask=None, weights=None):
    """What a chunk adds to the summaries under learned maps."""
    x, present, weights = _accumulate(x, mask, weights)
    shift, scale, totals, summaries = _map_sums(x, num_maps, present, weights)
    if scale is None:
        scale = ops.cast(totals[:, :1] > 0, x.dtype)
    return {
        "shift": ops.reshape(shift, (-1, num_maps, 1)),
        "scale": ops.reshape(scale, (-1, 1, 1)),
        "count": _exact(totals),
        "sum": _exact(summaries),
    }


def merge_pooling_maps(a, b):
    """State of the summaries of two chunks together."""
    shift, *factors = _join_shifts((a["shift"], a["count"][0] > 0), (b["shift"], b["count"][0] > 0))
    scale = ops.maximum(a["scale"], b["scale"])
    sums = (
        {
            name: _scaled(state[name], factor * safe_ratio(state["scale"], scale))
            for name in ("count", "sum")
        }
        for state, factor in zip((a, b), factors, strict=True)
    )
    return {"shift": shift, "scale": scale, **merge_sums(*sums)}


def finish_pooling_maps(state):
    """The summaries, `(batch, num_maps, values)`; 0 for none."""
    return safe_ratio(_rounded(state["sum"]), _rounded(state["count"]))
