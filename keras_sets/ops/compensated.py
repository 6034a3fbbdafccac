"""Sums that keep what rounding takes from them, so that the number of parts does not matter."""

from keras import ops

from keras_sets.ops.entities import larger


def exact(total):
    """A sum as a pair: what it is, and what rounding took from it so far."""
    return total, ops.zeros_like(total)


def add(a, b):
    """Sum of two such pairs; the rounding error of the addition is kept (Knuth's TwoSum)."""
    total = a[0] + b[0]
    of_b = total - a[0]
    error = (a[0] - (total - of_b)) + (b[0] - of_b)
    lost = a[1] + b[1] + error
    return total, ops.where(ops.isfinite(total), lost, ops.zeros_like(lost))


def scaled(pair, factor):
    return pair[0] * factor, pair[1] * factor


def rounded(pair):
    return pair[0] + pair[1]


def join_shifts(a, b):
    """The larger of two shifts, and the factors that bring sums of exponentials to it.

    `a` and `b` are `(shift, occupied)`. Where a side has no entity its factor is 0.
    """
    (shift_a, occupied_a), (shift_b, occupied_b) = a, b
    both = ops.where(occupied_b, larger(shift_a, shift_b), shift_a)
    shift = ops.where(occupied_a, both, shift_b)
    zero = ops.zeros_like(shift)
    factors = (
        ops.where(occupied, ops.exp(ops.where(occupied, own - shift, zero)), zero)
        for own, occupied in (a, b)
    )
    return shift, *factors
