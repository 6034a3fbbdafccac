"""Exact assignment between two sets of labels, batched, inside the graph."""

import functools
import itertools
import math

import numpy as np
from keras import backend
from keras import ops

from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.loops import static_loop

SUBSET_LIMIT = 12
# Stands for an infinite cost, of which sums and differences would be undefined.
FORBIDDEN = 1e30


def linear_sum_assignment(cost):
    """The permutation of least total cost, exactly.

    Args:
        cost: `(batch, n, n)`. Row i assigned to column j costs `cost[b, i, j]`. Pairs whose
            cost is infinite are assigned only where there is no other way.

    Returns:
        int32 `(batch, n)`: the column of every row. No gradient passes through it;
        gather the costs with it to differentiate the optimum.

    Up to 12 rows a dynamic programme over the subsets of columns (Held and Karp)
    takes 2 n steps, whatever the costs. More rows take the shortest augmenting
    path algorithm (Jonker and Volgenant 1987), vectorised over the batch.
    """
    n = cost.shape[-1]
    if n is None or cost.shape[-2] != n:
        raise ValueError(
            "Argument `cost` must be square with a known size, `(batch, n, n)`. "
            f"Received: cost.shape={tuple(cost.shape)}"
        )
    dtype = "float64" if backend.standardize_dtype(cost.dtype) == "float64" else "float32"
    cost = ops.stop_gradient(ops.cast(cost, dtype))
    if cost.shape[0] == 0:
        return ops.zeros((0, n), dtype="int32")
    cost = ops.where(cost == float("inf"), ops.full_like(cost, FORBIDDEN), cost)
    if n <= SUBSET_LIMIT:
        return _assign_by_subsets(cost, n)
    return _assign_by_shortest_paths(cost, n)


@functools.lru_cache(maxsize=SUBSET_LIMIT)
def _subset_tables(n):
    """Which column can be the last one of every subset of columns, and what remains.

    Returns `(columns, remainders, penalties)`, each `(n, m, n)` for the subsets of size
    1..n, padded to the largest number m of subsets of one size. `remainders` counts the
    subsets of the size below; `penalties` is infinite where an entry is padding.
    """
    widest = math.comb(n, n // 2)
    columns = np.zeros((n, widest, n), "int32")
    remainders = np.zeros((n, widest, n), "int32")
    penalties = np.full((n, widest, n), np.inf, "float32")
    index = {(): 0}
    for size in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), size))
        for place, subset in enumerate(subsets):
            columns[size - 1, place, :size] = subset
            remainders[size - 1, place, :size] = [
                index[subset[:i] + subset[i + 1 :]] for i in range(size)
            ]
        penalties[size - 1, : len(subsets), :size] = 0
        index = {subset: place for place, subset in enumerate(subsets)}
    return columns, remainders, penalties


def _assign_by_subsets(cost, n):
    """Rows 0..k take the columns of a subset of size k + 1; one loop forth, one back."""
    columns, remainders, penalties = (ops.convert_to_tensor(t) for t in _subset_tables(n))
    penalties = ops.cast(penalties, cost.dtype)
    widest = columns.shape[1]
    best = ops.repeat(ops.zeros_like(cost[:, 0, :1]), widest, axis=1)
    choices = ops.repeat(ops.expand_dims(ops.cast(best, "int32"), 1), n, axis=1)
    places = ops.reshape(ops.arange(n, dtype="int32"), (1, n))

    def add_row(row, best, choices):
        candidates = (
            ops.take(best, ops.take(remainders, row, axis=0), axis=1)
            + ops.take(ops.take(cost, row, axis=1), ops.take(columns, row, axis=0), axis=1)
            + ops.take(penalties, row, axis=0)
        )
        choice = ops.expand_dims(ops.cast(ops.argmin(candidates, axis=-1), "int32"), 1)
        here = ops.expand_dims(places == ops.cast(row, "int32"), -1)
        return ops.min(candidates, axis=-1), ops.where(here, choice, choices)

    _, choices = static_loop(n, add_row, (best, choices))

    def take_back(step, subset, assignment):
        row = n - 1 - step
        choice = ops.take_along_axis(ops.take(choices, row, axis=1), subset, axis=1)
        flat = subset * n + choice
        column = ops.take(ops.reshape(ops.take(columns, row, axis=0), (-1,)), flat)
        subset = ops.take(ops.reshape(ops.take(remainders, row, axis=0), (-1,)), flat)
        return subset, ops.where(places == ops.cast(row, "int32"), column, assignment)

    assignment = ops.zeros_like(choices[:, :, 0])
    return static_loop(n, take_back, (assignment[:, :1], assignment))[1]


def _assign_by_shortest_paths(cost, n):
    """Every row in turn is joined by the shortest augmenting path.

    Column n is a virtual column that holds the row being added. All state is
    `(batch, n + 1)`; entries that are finished wait until the whole batch is.
    """
    int_zeros = ops.zeros_like(ops.cast(cost[:, 0, :1], "int32"))
    float_zeros = ops.zeros_like(cost[:, 0, :1])
    # The row at every column, n where there is none yet.
    owner = ops.repeat(int_zeros, n + 1, axis=1) + n
    row_potential = ops.repeat(float_zeros, n + 1, axis=1)
    column_potential = ops.repeat(float_zeros, n + 1, axis=1)
    padded = ops.concatenate([cost, ops.zeros_like(cost[:, :1, :])], axis=1)
    columns = ops.expand_dims(ops.arange(n + 1, dtype="int32"), 0)
    infinity = float("inf")

    def one_hot(index):
        return ops.equal(columns, index)

    def add_row(row, owner, row_potential, column_potential):
        owner = ops.where(columns == n, ops.cast(row, "int32"), owner)
        distance = ops.full_like(row_potential[:, :n], infinity)
        previous = ops.repeat(int_zeros, n, axis=1) + n
        visited = ops.repeat(ops.cast(int_zeros, "bool"), n + 1, axis=1)
        column = int_zeros + n

        def searching(column, *_):
            return ops.any(ops.take_along_axis(owner, column, axis=1) < n)

        def search(column, visited, distance, previous, row_potential, column_potential):
            current = ops.take_along_axis(owner, column, axis=1)
            active = current < n
            visited = ops.logical_or(visited, ops.logical_and(one_hot(column), active))
            reduced = (
                ops.take_along_axis(padded, ops.expand_dims(current, -1), axis=1)[:, 0, :]
                - ops.take_along_axis(row_potential, current, axis=1)
                - column_potential[:, :n]
            )
            free = ops.logical_not(visited[:, :n])
            shorter = ops.logical_and(ops.logical_and(free, reduced < distance), active)
            distance = ops.where(shorter, reduced, distance)
            previous = ops.where(shorter, column, previous)
            open_distance = ops.where(free, distance, infinity)
            step = ops.min(open_distance, axis=1, keepdims=True)
            nearest = ops.cast(ops.expand_dims(ops.argmin(open_distance, axis=1), 1), "int32")
            step = ops.where(active, step, ops.zeros_like(step))
            # Rows of visited columns gain the step, the columns lose it.
            gain = ops.where(visited, step, ops.zeros_like(step))
            owned = ops.expand_dims(owner, -1) == ops.expand_dims(columns, 1)
            row_potential = row_potential + ops.sum(
                ops.where(owned, ops.expand_dims(gain, -1), 0.0), axis=1
            )
            column_potential = column_potential - gain
            distance = ops.where(ops.logical_and(free, active), distance - step, distance)
            column = ops.where(active, nearest, column)
            return column, visited, distance, previous, row_potential, column_potential

        state = (column, visited, distance, previous, row_potential, column_potential)
        column, _, _, previous, row_potential, column_potential = ops.while_loop(
            searching, search, state, maximum_iterations=n + 1
        )

        # Walk back along the path, handing every column the row before it.
        def walking(column, _):
            return ops.any(column < n)

        def walk(column, owner):
            active = column < n
            before = ops.take_along_axis(previous, ops.minimum(column, n - 1), axis=1)
            row = ops.take_along_axis(owner, before, axis=1)
            owner = ops.where(ops.logical_and(one_hot(column), active), row, owner)
            return ops.where(active, before, column), owner

        _, owner = ops.while_loop(walking, walk, (column, owner), maximum_iterations=n + 1)
        return owner, row_potential, column_potential

    state = (owner, row_potential, column_potential)
    owner = static_loop(n, add_row, state)[0]
    # From the row of every column to the column of every row.
    return ops.cast(ops.argsort(owner[:, :n], axis=1), "int32")


def class_members(y_true, num_classes, ignore_class=-1, mask=None, weights=None):
    """How much every entity counts in every class.

    Args:
        y_true: `(batch, n)`; entities labelled `ignore_class` do not count, None is no label.
        num_classes: number of true classes.
        mask: Optional bool `(batch, n)`, True for entities that count.
        weights: Optional float `(batch, n)`, how much each entity counts, at least 0.

    Returns:
        float `(batch, n, num_classes)`: the weight of an entity, or 1, at its class, and 0
        elsewhere; NaN for labels of entities that count and are no class.
    """
    if backend.standardize_dtype(y_true.dtype) not in ("int32", "int64", "float32", "float64"):
        y_true = ops.cast(y_true, "float32")  # `ignore_class` might not fit the others
    if ignore_class is not None:
        ignored = ops.convert_to_tensor(ignore_class, y_true.dtype)
        labelled = ops.not_equal(y_true, ignored)
        mask = labelled if mask is None else ops.logical_and(mask, labelled)
    mask, weights = multiplicities(mask, weights)
    classes = ops.cast(ops.arange(num_classes, dtype="int32"), y_true.dtype)
    members = ops.cast(ops.equal(ops.expand_dims(y_true, -1), classes), "float32")
    unknown = ops.sum(members, axis=-1) == 0
    if weights is not None:
        members = members * ops.expand_dims(weights, -1)
    members = ops.where(ops.expand_dims(unknown, -1), float("nan"), members)
    return apply_mask(members, mask)


def class_overlap(members, values):
    """Sums `values` over the entities of every true class.

    Args:
        members: `(batch, n, true classes)`, see `class_members`.
        values: `(batch, n, classes)`; those of entities that do not count may be anything.

    Returns:
        `(overlap, counts)`: `overlap[b, k, j]` is the sum of `values[b, i, j]` over
        the entities i of class k, `counts` `(batch,)` the number of entities.
    """
    dtype = accumulation_dtype(values)
    members = ops.cast(members, dtype)
    counts = ops.sum(members, axis=-1)
    values = apply_mask(ops.cast(values, dtype), ops.not_equal(counts, 0))
    # Infinite values of one class are none of the others, whose factor is 0.
    infinite = values == float("inf")
    finite = ops.where(infinite, ops.zeros_like(values), values)
    by_class = ops.transpose(members, (0, 2, 1))
    overlap = by_class @ finite
    met = ops.cast(by_class > 0, dtype) @ ops.cast(infinite, dtype)
    overlap = ops.where(met > 0, ops.full_like(overlap, float("inf")), overlap)
    return overlap, ops.sum(counts, axis=1)
