"""Exact assignment between two sets, of labels for one, batched, inside the graph."""

import functools
import itertools
import math

import numpy as np
from keras import backend
from keras import ops

from keras_sets import validation
from keras_sets._typing import Tensor
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.loops import static_loop

SUBSET_LIMIT = 12
# Stands for an infinite cost, of which sums and differences would be undefined.
FORBIDDEN = 1e30


def linear_sum_assignment(cost: Tensor, mask: Tensor | None = None) -> Tensor:
    """The assignment of rows to columns of least total cost, exactly.

    Args:
        cost: `(batch, n, m)` with n <= m. Row i assigned to column j costs `cost[b, i, j]`.
            Pairs whose cost is infinite are assigned only where there is no other way.
        mask: Optional bool `(batch, n)`, False for rows that take no column.

    Returns:
        int32 `(batch, n)`: the column of every row, 0 for masked rows. No two rows have the
        same one. No gradient passes through it; gather the costs with it to differentiate
        the optimum.

    Up to 12 rows and as many columns a dynamic programme over the subsets of columns (Held
    and Karp) takes 2 n steps, whatever the costs. Others take shortest augmenting paths
    (Jonker and Volgenant 1987, as in Crouse 2016), vectorised over the batch: one path for
    each row that does not get its cheapest column, of as many steps as the longest path in
    the batch. On torch, which runs every step by itself, they take SciPy if it is installed.
    """
    n, m = cost.shape[-2:]
    if n is not None and m is not None and n > m:
        raise ValueError(
            "Argument `cost` must have at least as many columns as rows, `(batch, n, m)` with "
            f"n <= m. Received: cost.shape={tuple(cost.shape)}"
        )
    cost = ops.stop_gradient(ops.cast(cost, accumulation_dtype(cost)))
    mask = None if mask is None else ops.cast(mask, "bool")
    if 0 in (cost.shape[0], n) or _has_no_values(cost):
        return ops.cast(ops.sum(ops.zeros_like(cost), axis=-1), "int32")
    cost = ops.where(cost == float("inf"), ops.full_like(cost, FORBIDDEN), cost)
    if n is None or n != m or n > SUBSET_LIMIT:
        assignment = _assign_on_host(cost, mask)
        return _assign_by_shortest_paths(cost, mask) if assignment is None else assignment
    assignment = _assign_by_subsets(apply_mask(cost, mask), n)
    return apply_mask(assignment, mask)


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


def _has_no_values(x):
    """Whether `x` is a shape alone, as Keras asks for those of outputs on torch."""
    return backend.backend() == "torch" and x.device.type == "meta"


def _assign_on_host(cost, mask):
    """What SciPy finds, on torch where values can be seen and SciPy is installed; else None."""
    if backend.backend() != "torch":
        return None
    try:
        from scipy import optimize
    except ImportError:
        return None
    costs = validation.visible_array(cost)
    if costs is None:
        return None
    costs = np.nan_to_num(costs, nan=FORBIDDEN, neginf=-FORBIDDEN)
    masks = np.ones(costs.shape[:2], bool) if mask is None else validation.visible_array(mask)
    assignment = np.zeros(costs.shape[:2], "int32")
    for columns, matrix, rows in zip(assignment, costs, masks, strict=True):
        columns[rows] = optimize.linear_sum_assignment(matrix[rows])[1]
    return ops.convert_to_tensor(assignment)


def _assign_by_shortest_paths(cost, mask):
    """Rows that do not get their cheapest column join by shortest augmenting paths.

    n as a row, and m as a column, mean none. What belongs to a set of the batch that is
    finished waits until all are.
    """
    batch, n, m = ops.shape(cost)
    rows = ops.expand_dims(ops.arange(n, dtype="int32"), 0)
    columns = ops.expand_dims(ops.arange(m, dtype="int32"), 0)
    starts = ops.expand_dims(ops.arange(batch, dtype="int32"), -1) * n
    flat = ops.reshape(cost, (-1, m))
    # As tensors: next to Python's integers Keras may widen.
    no_row, no_column = (ops.convert_to_tensor(size, "int32") for size in (n, m))
    infinity = float("inf")
    take = lambda x, index: ops.take_along_axis(x, index, axis=1)  # noqa: E731
    index = lambda x: ops.expand_dims(ops.cast(x, "int32"), -1)  # noqa: E731

    # A column goes to the first of the rows to which it is the cheapest.
    row_potential = ops.min(cost, axis=-1)
    cheapest = ops.cast(ops.argmin(cost, axis=-1), "int32")
    prefers = ops.equal(ops.expand_dims(cheapest, -1), ops.expand_dims(columns, 0))
    prefers = apply_mask(prefers, mask)
    first = ops.cast(ops.argmax(ops.cast(prefers, "int32"), axis=1), "int32")
    owner = ops.where(ops.any(prefers, axis=1), first, no_row)
    column_of = ops.where(take(owner, cheapest) == rows, cheapest, no_column)
    column_potential = ops.zeros_like(cost[:, 0])

    def waiting(column_of):
        return apply_mask(column_of == no_column, mask)

    def incomplete(owner, column_of, *_):
        return ops.any(waiting(column_of))

    def add_row(owner, column_of, row_potential, column_potential):
        missing = waiting(column_of)
        row = index(ops.argmax(ops.cast(missing, "int32"), axis=1))
        joins = ops.any(missing, axis=1, keepdims=True)
        reached = ops.zeros_like(row_potential[:, :1])
        distance = ops.full_like(column_potential, infinity)
        previous = ops.zeros_like(owner)
        visited = ops.zeros_like(owner, dtype="bool")
        end = ops.where(joins, no_column, ops.zeros_like(row))

        def searching(end, *_):
            return ops.any(end == no_column)

        def search(end, current, reached, distance, previous, visited):
            active = end == no_column
            costs = ops.take(flat, (starts + current)[:, 0], axis=0)
            through = reached - take(row_potential, current) + costs - column_potential
            shorter = ops.logical_and(active, ops.logical_not(visited))
            shorter = ops.logical_and(shorter, through < distance)
            distance = ops.where(shorter, through, distance)
            previous = ops.where(shorter, current, previous)
            ahead = ops.where(visited, infinity, distance)
            nearest = index(ops.argmin(ahead, axis=1))
            reached = ops.where(active, take(ahead, nearest), reached)
            visited = ops.logical_or(visited, ops.logical_and(active, columns == nearest))
            following = take(owner, nearest)
            free = following == no_row
            end = ops.where(ops.logical_and(active, free), nearest, end)
            current = ops.where(ops.logical_and(active, ops.logical_not(free)), following, current)
            return end, current, reached, distance, previous, visited

        end, _, reached, distance, previous, visited = ops.while_loop(
            searching,
            search,
            (end, row, reached, distance, previous, visited),
            maximum_iterations=m,
        )
        gain = ops.where(visited, reached - distance, ops.zeros_like(distance))
        row_gain = take(ops.pad(gain, ((0, 0), (0, 1))), column_of)
        row_gain = ops.where(rows == row, reached, row_gain)

        # Back along the path, every column goes to the row before it.
        def walking(column, *_):
            return ops.any(column < no_column)

        def walk(column, owner, column_of):
            active = column < no_column
            here = ops.where(active, column, ops.zeros_like(column))
            row = take(previous, here)
            following = take(column_of, row)
            owner = ops.where(ops.logical_and(active, columns == here), row, owner)
            column_of = ops.where(ops.logical_and(active, rows == row), here, column_of)
            return ops.where(active, following, column), owner, column_of

        _, owner, column_of = ops.while_loop(
            walking,
            walk,
            (ops.where(joins, end, no_column), owner, column_of),
            maximum_iterations=n,
        )
        return (
            owner,
            column_of,
            ops.where(joins, row_potential + row_gain, row_potential),
            column_potential - gain,
        )

    state = (owner, column_of, row_potential, column_potential)
    column_of = ops.while_loop(incomplete, add_row, state, maximum_iterations=n)[1]
    # Costs that are NaN leave rows without a column.
    return ops.where(column_of == no_column, ops.zeros_like(column_of), column_of)


def class_members(
    y_true: Tensor,
    num_classes: int,
    ignore_class: int | None = -1,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
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


def class_overlap(members: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
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
