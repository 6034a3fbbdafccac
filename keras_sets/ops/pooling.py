"""Reductions over the entities of a set, with masks, weights and empty sets.

Shapes, masks and weights are those of `keras_sets.ops.entities`. Sums accumulate in
float32 or wider; results have the accumulation dtype, the caller casts.

A set larger than memory is pooled in chunks: `*_state(x, mask, weights)` is what a chunk
adds, `merge_*` joins the states of two chunks, `finish_*` gives what the function of the
whole set gives. States are dicts of tensors (or pairs of them) with a leading batch axis,
float32 or wider, and sums carry their rounding errors along.
"""

import functools
from collections.abc import Callable
from collections.abc import Iterable

from keras import ops

from keras_sets import validation
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.ops import compensated
from keras_sets.ops.entities import accumulate
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import counts_of
from keras_sets.ops.entities import entity_axes
from keras_sets.ops.entities import flatten_entities
from keras_sets.ops.entities import known_size
from keras_sets.ops.entities import larger
from keras_sets.ops.entities import largest_over
from keras_sets.ops.entities import log_weights
from keras_sets.ops.entities import lowest
from keras_sets.ops.entities import nan_unless_weights
from keras_sets.ops.entities import running_sum
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.entities import scale_weights
from keras_sets.ops.entities import sum_over_entities


def scale_free(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(x * weights / scale, weights / scale, scale)`; see `scale_weights`."""
    weights, scale = scale_weights(weights)
    return x * ops.expand_dims(weights, -1), weights, scale


def of_the_same_sets(merge: Callable[[State, State], State]) -> Callable[[State, State], State]:
    """A merge that refuses states of other sets, where one would be broadcast to the other."""

    @functools.wraps(merge)
    def checked(a: State, b: State) -> State:
        if not validation.compatible_states(a, b):
            raise ValueError(
                "Expected two states of the same sets, with as many sets and features. Received: "
                f"states whose tensors have the shapes {validation.shapes_of(a)} and "
                f"{validation.shapes_of(b)}"
            )
        return merge(a, b)

    return checked


def set_sum(
    x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None, keepdims: bool = False
) -> Tensor:
    """Sum over the entities, each counted `weights` times. The empty sum is 0."""
    x, _, weights = accumulate(x, mask, weights)
    if weights is not None:
        x = x * ops.expand_dims(weights, -1)
    return sum_over_entities(x, keepdims)


def sum_state(x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> State:
    """What a chunk adds to the sum."""
    return total_state(set_sum(x, mask, weights))


def total_state(total: Tensor) -> State:
    """The state of a chunk whose sum is known."""
    return {"sum": compensated.exact(total)}


@of_the_same_sets
def merge_sums(a: State, b: State) -> State:
    """State of two chunks together, for states that are sums only."""
    return {name: compensated.add(a[name], b[name]) for name in a}


def finish_sum(state: State) -> Tensor:
    """The sum of all entities in a state; 0 for none."""
    return compensated.rounded(state["sum"])


def set_mean(
    x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None, keepdims: bool = False
) -> Tensor:
    """Weighted mean over the entities. The mean of nothing is 0."""
    x, mask, weights = accumulate(x, mask, weights)
    if weights is not None:
        x, weights, _ = scale_free(x, weights)
    total = sum_over_entities(x, keepdims)
    size = known_size(x)
    if mask is None and size is not None:
        return total / size
    count = sum_over_entities(counts_of(x, mask, weights), keepdims)
    return safe_ratio(total, count)


def mean_state(x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> State:
    """What a chunk adds to the mean: its sum and count in units of its largest weight."""
    x, mask, weights = accumulate(x, mask, weights)
    if weights is not None:
        x, weights, scale = scale_free(x, weights)
    count = sum_over_entities(counts_of(x, mask, weights))
    if weights is None:
        scale = ops.cast(count > 0, x.dtype)
    return {
        "scale": ops.reshape(scale, (-1, 1)),
        "sum": compensated.exact(sum_over_entities(x)),
        "count": compensated.exact(count),
    }


def in_units_of(scale: Tensor, state: State, names: Iterable[str]) -> State:
    """Some sums of a state, in another unit of the weights."""
    factor = safe_ratio(state["scale"], scale)
    return {name: compensated.scaled(state[name], factor) for name in names}


@of_the_same_sets
def merge_means(a: State, b: State) -> State:
    """State of the mean of two chunks together."""
    scale = larger(a["scale"], b["scale"])
    sums = (in_units_of(scale, state, ("sum", "count")) for state in (a, b))
    return {"scale": scale, **merge_sums(*sums)}


def finish_mean(state: State) -> Tensor:
    """The mean of all entities in a state, under softmaxes too; 0 for none."""
    return safe_ratio(compensated.rounded(state["sum"]), compensated.rounded(state["count"]))


def set_max(
    x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None, keepdims: bool = False
) -> Tensor:
    """Largest value of every feature over the present entities; 0 for none."""
    x, mask, weights = accumulate(x, mask, weights)
    if mask is None and known_size(x) is not None:
        return largest_over(x, entity_axes(x), keepdims)
    return finish_max(_max_state(x, mask, weights, keepdims))


def max_state(x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> State:
    """What a chunk adds to the maximum: its own, and whether it has an entity."""
    return _max_state(*accumulate(x, mask, weights))


def _max_state(x, mask, weights=None, keepdims=False):
    if 0 in x.shape[1:-1]:
        largest = ops.full_like(sum_over_entities(x, keepdims), lowest(x))
    elif mask is None:
        largest = largest_over(x, entity_axes(x), keepdims)
    else:
        fill = ops.full_like(x, lowest(x))
        there = ops.where(ops.expand_dims(mask, -1), x, fill)
        largest = largest_over(there, entity_axes(x), keepdims)
    if weights is not None:
        doubt = ops.expand_dims(nan_unless_weights(weights), -1)
        largest = largest + ops.sum(doubt, axis=entity_axes(x), keepdims=keepdims)
    return {"largest": largest, "occupied": _occupied(x, mask, keepdims)}


def _occupied(x, mask, keepdims=False):
    """Which sets have an entity, `(batch, 1)`, whether their size is known or not."""
    # A sum: `any` of nothing is True in ONNX files.
    return sum_over_entities(counts_of(x, mask, None), keepdims) > 0


def _minus_infinity_where(condition, dtype):
    """To add to a result: -inf where the condition holds, 0 elsewhere."""
    return ops.log(ops.cast(ops.logical_not(condition), dtype))


@of_the_same_sets
def merge_maxima(a: State, b: State) -> State:
    """State of the maximum of two chunks together."""
    return {
        "largest": larger(a["largest"], b["largest"]),
        "occupied": ops.logical_or(a["occupied"], b["occupied"]),
    }


def finish_max(state: State) -> Tensor:
    """The largest value of all entities in a state; 0 for none."""
    largest, occupied = state["largest"], state["occupied"]
    all_minus_infinity = ops.logical_and(largest <= lowest(largest), occupied)
    largest = ops.where(occupied, largest, ops.zeros_like(largest))
    return largest + _minus_infinity_where(all_minus_infinity, largest.dtype)


def set_logsumexp(
    x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None, keepdims: bool = False
) -> Tensor:
    """`log sum_i w_i exp(x_i)` over the present entities; 0 for none."""
    return finish_logsumexp(_logsumexp_state(*accumulate(x, mask, weights), keepdims))


def add_log_weights(x: Tensor, weights: Tensor | None) -> Tensor:
    """Exponents `x` that count `weights` times."""
    return x if weights is None else x + ops.expand_dims(log_weights(weights), -1)


def exponentials(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """`(shift, exp(x - shift))`, shift the maximum or the finite number next to it."""
    shift = ops.stop_gradient(set_max(x, mask, keepdims=True))
    shift = ops.clip(shift, lowest(x), -lowest(x))
    terms = ops.exp(apply_mask(x - shift, mask))
    return shift, terms if mask is None else terms * counts_of(x, mask, None)


def logsumexp_state(x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> State:
    """What a chunk adds to the logarithm of the sum of exponentials."""
    return _logsumexp_state(*accumulate(x, mask, weights))


def _logsumexp_state(x, mask, weights, keepdims=False):
    shift, terms = exponentials(add_log_weights(x, weights), mask)
    return {
        "shift": shift if keepdims else ops.squeeze(shift, axis=entity_axes(x)),
        "sum": compensated.exact(sum_over_entities(terms, keepdims)),
        "occupied": _occupied(x, mask, keepdims),
    }


@of_the_same_sets
def merge_logsumexps(a: State, b: State) -> State:
    """State of the logarithm of the sum of exponentials of two chunks together."""
    shift, factor_a, factor_b = compensated.join_shifts(
        (a["shift"], a["sum"][0] > 0), (b["shift"], b["sum"][0] > 0)
    )
    return {
        "shift": shift,
        "sum": compensated.add(
            compensated.scaled(a["sum"], factor_a), compensated.scaled(b["sum"], factor_b)
        ),
        "occupied": ops.logical_or(a["occupied"], b["occupied"]),
    }


def finish_logsumexp(state: State) -> Tensor:
    """The logarithm of the sum of exponentials in a state; 0 for none."""
    total = compensated.rounded(state["sum"])
    nothing = total <= 0
    result = ops.log(ops.where(nothing, ops.ones_like(total), total)) + state["shift"]
    result = ops.where(nothing, ops.zeros_like(total), result)
    all_minus_infinity = ops.logical_and(nothing, state["occupied"])
    return result + _minus_infinity_where(all_minus_infinity, total.dtype)


def set_causal_mean(x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Running weighted mean in row-major order over the entity axes.

    Entity t gets the mean over the present entities 1..t, itself included, and 0
    where there is none so far. The shape of `x` is kept; absent entities get 0.
    """
    return scan_causal_mean(None, x, mask, weights)[0]


def causal_mean_state(
    x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
) -> State:
    """What a chunk adds to a running mean: its sum and its count.

    They have the unit of the weights, because a unit that is found in a chunk would let
    later entities act on earlier ones.
    """
    x, mask, weights = accumulate(x, mask, weights)
    counts = counts_of(x, mask, weights)
    x = x if weights is None else x * counts
    return {
        "sum": compensated.exact(sum_over_entities(x)),
        "count": compensated.exact(sum_over_entities(counts)),
    }


def scan_causal_mean(
    state: State, x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, State]:
    """`(means, state)`: the running means of a chunk, after the entities in `state`.

    `state=None` is nothing before, and then no state is returned either.
    """
    shape = ops.shape(x)
    after = None if state is None else merge_sums(state, causal_mean_state(x, mask, weights))
    x, mask, weights = accumulate(x, mask, weights)
    if weights is not None:
        x = x * ops.expand_dims(weights, -1)
    totals = running_sum(flatten_entities(x))
    if state is None and mask is None and totals.shape[1] is not None:
        counts = ops.expand_dims(ops.arange(1, totals.shape[1] + 1, dtype=x.dtype), -1)
        return ops.reshape(totals / counts, shape), None
    counts = running_sum(flatten_entities(counts_of(x, mask, weights)))
    if state is not None:
        totals = _add_before(state["sum"], totals)
        counts = _add_before(state["count"], counts)
    means = ops.reshape(safe_ratio(totals, counts), shape)
    return apply_mask(means, mask), after


def _add_before(pair, running):
    """Running sums of a chunk plus the sum of all chunks before it."""
    total, lost = (ops.expand_dims(part, 1) for part in pair)
    return total + (running + lost)


def set_pooling_maps(
    x: Tensor, num_maps: int, mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Summaries of the set under learned maps, dealt out to the entities by gates.

    The features of `x` split into values, `num_maps` keys and `num_maps` gates. Map s is
    the softmax of its key over the present entities, each counted `weights` times;
    entity e gets `sum_s gate[e, s] sum_j map[s, j] values[j]`. The cost is linear in the
    number of entities. The shape is `(batch, *entities, features - 2 * num_maps)`, absent
    entities get 0.
    """
    x, mask, weights = accumulate(x, mask, weights)
    _, totals, summaries = _map_sums(x, num_maps, mask, weights)
    return mix_by_gates(safe_ratio(summaries, totals), x, num_maps, mask)


def mix_by_gates(summaries: Tensor, x: Tensor, num_maps: int, mask: Tensor | None = None) -> Tensor:
    """Every entity's mixture `(batch, *entities, values)` of `(batch, num_maps, values)`."""
    shape = ops.shape(x)[:-1] + (summaries.shape[-1],)
    gates = flatten_entities(ops.cast(x[..., -num_maps:], summaries.dtype))
    return apply_mask(ops.reshape(gates @ summaries, shape), mask)


def _map_sums(x, num_maps, mask, weights):
    """`(shift, totals, summaries)`: softmax sums before they are normalised.

    `totals` `(batch, num_maps, 1)` and `summaries` `(batch, num_maps, values)` are in units
    of `exp(shift)`, of the largest key with its weight, of every map.
    """
    values = x.shape[-1] - 2 * num_maps
    keys = add_log_weights(x[..., values : values + num_maps], weights)
    shift, maps = exponentials(keys, mask)
    totals = ops.expand_dims(sum_over_entities(maps), -1)
    # One product with the values for all maps; the softmax is normalised after it.
    summaries = ops.swapaxes(flatten_entities(maps), 1, 2) @ flatten_entities(x[..., :values])
    return shift, totals, summaries


def pooling_maps_state(
    x: Tensor, num_maps: int, mask: Tensor | None = None, weights: Tensor | None = None
) -> State:
    """What a chunk adds to the summaries under learned maps."""
    x, mask, weights = accumulate(x, mask, weights)
    shift, totals, summaries = _map_sums(x, num_maps, mask, weights)
    return {
        "shift": ops.reshape(shift, (-1, num_maps, 1)),
        "count": compensated.exact(totals),
        "sum": compensated.exact(summaries),
    }


@of_the_same_sets
def merge_softmaxes(a: State, b: State) -> State:
    """State of two chunks together, for sums and counts in units of `exp(shift)`."""
    shift, *factors = compensated.join_shifts(
        (a["shift"], a["count"][0] > 0), (b["shift"], b["count"][0] > 0)
    )
    sums = (
        {name: compensated.scaled(state[name], factor) for name in ("count", "sum")}
        for state, factor in zip((a, b), factors, strict=True)
    )
    return {"shift": shift, **merge_sums(*sums)}
