"""Variances over the entities of a set, and means under weights that depend on the values.

Conventions are those of `keras_sets.ops.pooling`.
"""

from keras import ops

from keras_sets.ops import compensated
from keras_sets.ops.entities import accumulate
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import counts_of
from keras_sets.ops.entities import entity_axes
from keras_sets.ops.entities import expand_over_entities
from keras_sets.ops.entities import larger
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.entities import sum_over_entities
from keras_sets.ops.pooling import add_log_weights
from keras_sets.ops.pooling import exponentials
from keras_sets.ops.pooling import finish_logsumexp
from keras_sets.ops.pooling import in_units_of
from keras_sets.ops.pooling import logsumexp_state
from keras_sets.ops.pooling import max_state
from keras_sets.ops.pooling import merge_logsumexps
from keras_sets.ops.pooling import merge_maxima
from keras_sets.ops.pooling import merge_sums
from keras_sets.ops.pooling import of_the_same_sets
from keras_sets.ops.pooling import scale_free
from keras_sets.ops.pooling import set_mean

# Below this an exponent of a power mean is taken for a small one of its sign.
LEAST_EXPONENT = 1e-3


def variance_state(x, mask=None, weights=None):
    """What a chunk adds to the variance: its size, its mean, and squares around that mean."""
    x, mask, weights = accumulate(x, mask, weights)
    rank = len(x.shape)
    mean = set_mean(x, mask, weights)
    # The mean of numbers far from 0 is rounded: what is left over is taken off as well.
    deviation = apply_mask(x - expand_over_entities(ops.stop_gradient(mean), rank), mask)
    rest = set_mean(deviation, mask, weights)
    deviation = apply_mask(deviation - expand_over_entities(rest, rank), mask)
    square = ops.square(deviation)
    if weights is not None:
        square, weights, scale = scale_free(square, weights)
    count = sum_over_entities(counts_of(x, mask, weights))
    if weights is None:
        scale = ops.cast(count > 0, x.dtype)
    return {
        "scale": ops.reshape(scale, (-1, 1)),
        "count": compensated.exact(count),
        "mean": (mean, ops.stop_gradient(rest)),
        "square": compensated.exact(sum_over_entities(square)),
    }


@of_the_same_sets
def merge_variances(a, b):
    """State of the variance of two chunks together (Chan, Golub and LeVeque, 1983)."""
    scale = larger(a["scale"], b["scale"])
    sums_a, sums_b = (in_units_of(scale, state, ("count", "square")) for state in (a, b))
    sums = merge_sums(sums_a, sums_b)
    difference = (b["mean"][0] - a["mean"][0]) + (b["mean"][1] - a["mean"][1])
    count_a, count_b = (compensated.rounded(s["count"]) for s in (sums_a, sums_b))
    share = safe_ratio(count_b, compensated.rounded(sums["count"]))
    # Between the means of both: towards the second one by its share.
    mean = compensated.add(a["mean"], compensated.exact(difference * share))
    mean = tuple(ops.where(count_a > 0, m, of_b) for m, of_b in zip(mean, b["mean"], strict=True))
    between = compensated.exact(ops.square(difference) * share * count_a)
    return {
        "scale": scale,
        "count": sums["count"],
        "mean": mean,
        "square": compensated.add(sums["square"], between),
    }


def finish_variance(state):
    """The variance of all entities in a state; 0 for none."""
    return safe_ratio(compensated.rounded(state["square"]), compensated.rounded(state["count"]))


def root(variance):
    """The square root, with gradient 0 at 0."""
    nothing = variance <= 0
    safe = ops.where(nothing, ops.ones_like(variance), variance)
    return ops.where(nothing, ops.zeros_like(variance), ops.sqrt(safe))


def softmax_state(x, exponents, mask=None, weights=None):
    """What a chunk adds to the mean under the softmax of `exponents + log w`.

    Args:
        exponents: `(batch, *entities, features)`, or of one feature for all.
    """
    x, mask, weights = accumulate(x, mask, weights)
    exponents = apply_mask(ops.cast(exponents, x.dtype), mask)
    shift, terms = exponentials(add_log_weights(exponents, weights), mask)
    return {
        "shift": ops.squeeze(shift, axis=entity_axes(x)),
        "count": compensated.exact(sum_over_entities(terms)),
        "sum": compensated.exact(sum_over_entities(terms * x)),
    }


def softmax_shares(exponents, mask=None, weights=None):
    """The softmax of `exponents + log w` over the entities; 0 at absent ones."""
    exponents, mask, weights = accumulate(exponents, mask, weights)
    _, terms = exponentials(add_log_weights(exponents, weights), mask)
    return safe_ratio(terms, sum_over_entities(terms, keepdims=True))


def power_mean_state(x, exponent, least, mask=None, weights=None):
    """What a chunk adds to `(sum w max(x, least)^p / sum w)^(1 / p)`, in logarithms."""
    x, mask, weights = accumulate(x, mask, weights)
    logarithms = ops.log(larger(x, ops.full_like(x, least)))
    powers = logarithms * _away_from_zero(ops.cast(exponent, x.dtype))
    return {
        "power": logsumexp_state(powers, mask, weights),
        "count": logsumexp_state(ops.zeros_like(x[..., :1]), mask, weights),
        "occupied": max_state(x[..., :1], mask, weights),
    }


def merge_power_means(a, b):
    """State of two chunks together."""
    return {
        "power": merge_logsumexps(a["power"], b["power"]),
        "count": merge_logsumexps(a["count"], b["count"]),
        "occupied": merge_maxima(a["occupied"], b["occupied"]),
    }


def finish_power_mean(state, exponent):
    """The power mean of all entities in a state; 0 for none."""
    mean = finish_logsumexp(state["power"]) - finish_logsumexp(state["count"])
    mean = ops.exp(mean / _away_from_zero(ops.cast(exponent, mean.dtype)))
    return ops.where(state["occupied"]["occupied"], mean, ops.zeros_like(mean))


def _away_from_zero(exponent):
    sign = ops.where(exponent < 0, -ops.ones_like(exponent), ops.ones_like(exponent))
    return ops.where(ops.abs(exponent) < LEAST_EXPONENT, LEAST_EXPONENT * sign, exponent)
