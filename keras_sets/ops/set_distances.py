"""Distances between two sets, with masks and weights on both sides.

Shapes: `x` is `(batch, n, features)`, `y` `(batch, m, features)`; masks and weights are
`(batch, n)` and `(batch, m)`, and mean what they mean in `keras_sets.ops.entities`. Every
distance is `(batch,)`. Distances between points need each pair of elements once, as one
number: memory is that of some arrays `(batch, n, m)`, gradients included.
"""

from keras import ops

from keras_sets.ops.entities import accumulate
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import counts_of
from keras_sets.ops.entities import largest_over
from keras_sets.ops.entities import lowest
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.entities import scale_weights
from keras_sets.ops.entities import sum_over_entities
from keras_sets.ops.matching import linear_sum_assignment

# Up to so many features distances are sums of squared differences. More are products of
# matrices, which are faster and round with the square of the sets' extent.
DIRECT_FEATURES = 16


class Side:
    """One of the two sets: its elements, which of them are there, how much each counts.

    Absent elements are 0, and there is at least one place.
    """

    def __init__(self, x, mask, weights):
        x, mask, weights = accumulate(x, mask, weights)
        if weights is not None:
            weights, _ = scale_weights(weights)
        counts = counts_of(x, mask, weights)[..., 0]
        present = ops.ones_like(counts, dtype="bool") if mask is None else mask
        if not x.shape[1]:  # none, or unknown
            x, counts, present = (_with_one_more(t) for t in (x, counts, present))
        self.x, self.counts, self.present = x, counts, present
        self.size = _sum(ops.cast(present, x.dtype))
        self.occupied = self.size > 0
        self.shares = safe_ratio(counts, _sum(counts, keepdims=True))

    def at(self, index):
        """The elements at the places `index` `(batch, k)`."""
        shape = (*ops.shape(index), self.x.shape[-1])
        index = ops.broadcast_to(ops.expand_dims(index, -1), shape)
        return ops.take_along_axis(self.x, index, axis=1)


def _with_one_more(x):
    return ops.pad(x, ((0, 0), (0, 1), *((0, 0) for _ in x.shape[2:])))


def _sum(x, keepdims=False):
    """Sum of `(batch, n)` over the elements."""
    return sum_over_entities(ops.expand_dims(x, -1), keepdims=keepdims)[..., 0]


def _centred(a, b):
    """The elements of both around their common mean; without gradients."""
    total = sum_over_entities(a.x) + sum_over_entities(b.x)
    mean = safe_ratio(total, ops.expand_dims(a.size + b.size, -1) + ops.zeros_like(total))
    mean = ops.expand_dims(mean, 1)
    return [ops.stop_gradient(apply_mask(side.x - mean, side.present)) for side in (a, b)]


def _squared_distances(x, y):
    """`(batch, n, m)`, of `(batch, n, features)` and `(batch, m, features)`."""
    if x.shape[-1] > DIRECT_FEATURES:
        squares = ops.expand_dims(ops.sum(ops.square(x), axis=-1), 2)
        squares = squares + ops.expand_dims(ops.sum(ops.square(y), axis=-1), 1)
        squares = squares - 2 * (x @ ops.transpose(y, (0, 2, 1)))
        return ops.where(squares < 0, ops.zeros_like(squares), squares)
    total = 0.0
    for feature in range(x.shape[-1]):
        difference = ops.expand_dims(x[..., feature], 2) - ops.expand_dims(y[..., feature], 1)
        total = total + ops.square(difference)
    return total


def chamfer(x, y, x_mask=None, y_mask=None, x_weights=None, y_weights=None):
    """Mean squared distance to the nearest element of the other set, both ways, summed.

    0 where one of the sets is empty. The gradient is that of the nearest elements.
    """
    a, b = Side(x, x_mask, x_weights), Side(y, y_mask, y_weights)
    squares = _squared_distances(*_centred(a, b))
    infinity = float("inf")
    of_a = ops.where(ops.expand_dims(b.present, 1), squares, infinity)
    of_b = ops.where(ops.expand_dims(a.present, 2), squares, infinity)
    result = _mean_square(a, b.at(ops.argmin(of_a, axis=2)))
    result = result + _mean_square(b, a.at(ops.argmin(of_b, axis=1)))
    return apply_mask(result, ops.logical_and(a.occupied, b.occupied))


def _mean_square(side, others):
    return _sum(side.shares * ops.sum(ops.square(side.x - others), axis=-1))


# The four problems of the divergence: from x to y, back, and from each set to itself; which of
# them has the potential of the columns; and how far their updates go. Transport between two
# sets converges in a fraction of the iterations with steps that are too long (Thibault et al.
# 2021), transport within one with half steps (Feydy et al. 2019).
PAIRS = ((0, 1), (1, 0), (0, 0), (1, 1))
OPPOSITES = (1, 0, 2, 3)
STEPS = (1.5, 1.5, 0.5, 0.5)
# What is left of the regularisation after every iteration, until it is epsilon.
ANNEALING = 0.7


def sinkhorn_divergence(
    x, y, epsilon, iterations, x_mask=None, y_mask=None, x_weights=None, y_weights=None
):
    """Debiased optimal transport with the entropic regularisation `epsilon`.

    The cost is half the squared distance. Elements carry shares of their set proportional to
    their weights. 0 where one of the sets is empty. The gradients, towards weights too, are
    those of the limit of many iterations.
    """
    sides = Side(x, x_mask, x_weights), Side(y, y_mask, y_weights)
    points = _centred(*sides)
    logs = [_log_shares(side) for side in sides]
    costs = [0.5 * _squared_distances(points[i], points[j]) for i, j in PAIRS]
    # No finer than the costs are resolved: compilers compute logits more than once, and their
    # rounding must not differ by more than exponentials bear.
    double = accumulation_dtype(costs[0]) == "float64"
    finest = (1e-14 if double else 1e-6) * largest_over(costs[0], (1, 2), keepdims=True)[..., 0]
    epsilon = ops.where(finest < epsilon, ops.full_like(finest, epsilon), finest)
    potentials = _potentials(costs, logs, epsilon, iterations)
    values, barycentres = [], []
    for (_, target), opposite, cost in zip(PAIRS, OPPOSITES, costs, strict=True):
        logits, total = _transport(cost, potentials[opposite], logs[target], epsilon)
        values.append(-epsilon * total)
        barycentres.append(ops.exp(logits - ops.expand_dims(total, -1)) @ points[target])
    result = 0.0
    for k, side in enumerate(sides):
        # An element is worth what it costs beyond transport within its own set. It is drawn to
        # where it goes: by hand, because derivatives of the costs would be kept for each pair.
        worth = apply_mask(values[k] - values[k + 2], side.present)
        pull = apply_mask(barycentres[k + 2] - barycentres[k], side.present)
        moved = ops.sum((side.x - ops.stop_gradient(side.x)) * pull, axis=-1)
        result = result + _sum(side.shares * worth + ops.stop_gradient(side.shares) * moved)
    return apply_mask(result, ops.logical_and(sides[0].occupied, sides[1].occupied))


def _log_shares(side):
    # A set without elements is one of zeros: what comes of it is left out in the end.
    shares = ops.where(ops.expand_dims(side.occupied, -1), side.shares, 1.0)
    some = shares > 0
    logs = ops.log(ops.where(some, shares, ops.ones_like(shares)))
    return ops.stop_gradient(ops.where(some, logs, 0.5 * lowest(logs)))


def _transport(cost, potential, log_shares, epsilon):
    """Logits of what every row sends to the columns, and their logsumexp."""
    scaled = (ops.expand_dims(potential, 1) - cost) / ops.expand_dims(epsilon, -1)
    logits = ops.expand_dims(log_shares, 1) + scaled
    return logits, ops.logsumexp(logits, axis=-1)


def _potentials(costs, logs, epsilon, iterations):
    """Dual potentials of all four problems, by updates in the log domain.

    The regularisation falls from the largest cost to `epsilon`. A set stops when its
    potentials do.
    """
    scale = largest_over(costs[0], (1, 2), keepdims=True)[..., 0]
    precision = 1e-12 if accumulation_dtype(scale) == "float64" else 1e-6

    def going(active, *_):
        return ops.any(active)

    def update(active, current, *potentials):
        current = ops.where(current > epsilon, current, epsilon)
        changed = ops.zeros_like(scale)
        potentials = list(potentials)
        for k, ((_, target), opposite, step) in enumerate(
            zip(PAIRS, OPPOSITES, STEPS, strict=True)
        ):
            before = potentials[k]
            _, total = _transport(costs[k], potentials[opposite], logs[target], current)
            change = ops.where(active, step * (-current * total - before), 0.0)
            potentials[k] = before + change
            largest = largest_over(ops.abs(change), (1,), keepdims=True)
            changed = ops.where(largest > changed, largest, changed)
        settled = ops.logical_and(current <= epsilon, changed <= precision * scale)
        active = ops.logical_and(active, ops.logical_not(settled))
        return active, ANNEALING * current, *potentials

    active = ops.ones_like(scale, dtype="bool")
    state = (active, scale, *(ops.zeros_like(cost[..., 0]) for cost in costs))
    return ops.while_loop(going, update, state, maximum_iterations=iterations)[2:]


def earth_mover(x, y, x_mask=None, y_mask=None):
    """Mean distance between partners under the matching that makes it least.

    NaN where the sets have different numbers of elements, 0 where they have none.
    """
    a, b = Side(x, x_mask, None), Side(y, y_mask, None)
    points = _centred(a, b)
    matching, _ = match(ops.sqrt(_squared_distances(*points)), a.present, b.present)
    difference = apply_mask(a.x - b.at(matching), a.present)
    squares = ops.sum(ops.square(difference), axis=-1)
    apart = squares > 0
    roots = ops.sqrt(ops.where(apart, squares, ops.ones_like(squares)))
    result = _sum(a.shares * ops.where(apart, roots, squares))
    return _nan_unless(ops.equal(a.size, b.size), result)


def matched_loss(x, y, pairwise, no_object_weight=None, x_mask=None, y_mask=None, x_weights=None):
    """The least loss over all ways of matching every element of x to one of y.

    `pairwise(x, y)` takes elements `(..., features)` of both and gives `(...)`. See
    `keras_sets.losses.MatchedLoss`. NaN where y has fewer elements than x.
    """
    a, b = Side(x, x_mask, x_weights), Side(y, y_mask, None)
    logits = None
    elements = b.x
    if no_object_weight is not None:
        elements, logits = b.x[..., :-1], b.x[..., -1]
        taken, left = ops.softplus(-logits), no_object_weight * ops.softplus(logits)
    shape = (*ops.shape(a.counts), ops.shape(b.counts)[1])
    rows = ops.broadcast_to(ops.expand_dims(a.x, 2), (*shape, a.x.shape[-1]))
    columns = ops.broadcast_to(ops.expand_dims(elements, 1), (*shape, elements.shape[-1]))
    cost = _values(pairwise, ops.stop_gradient(rows), ops.stop_gradient(columns))
    cost = ops.expand_dims(a.shares, -1) * cost
    if logits is not None:
        cost = cost + ops.expand_dims(b.shares * (taken - left), 1)
    matching, matched = match(cost, a.present, b.present)
    partners = b.at(matching)[..., : elements.shape[-1]]
    # Of places without an element any partner will do that no derivative is infinite for.
    partners = ops.where(ops.expand_dims(a.present, -1), partners, ops.ones_like(partners))
    values = apply_mask(_values(pairwise, a.x, partners), a.present)
    result = _sum(a.shares * values)
    if logits is not None:
        result = result + _sum(b.shares * ops.where(matched, taken, left))
    return _nan_unless(a.size <= b.size, result)


def _values(pairwise, x, y):
    values = pairwise(x, y)
    if len(values.shape) != len(x.shape) - 1:
        raise ValueError(
            "`pairwise` must give one number for each pair of elements: a tensor `(...)` for two "
            f"tensors `(..., features)`. Received: shape {tuple(values.shape)} for tensors of "
            f"shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return values


def match(cost, rows, columns):
    """The exact matching of the rows of a set to its columns.

    Args:
        cost: `(batch, n, m)`, of pairs that are there; others may hold anything.
        rows, columns: bool `(batch, n)` and `(batch, m)`, which of them are there.

    Returns:
        int32 `(batch, n)`, the column of every row, and bool `(batch, m)`, whether a column
        is that of a row. Both mean nothing for sets that have more rows than columns.
    """
    cost = ops.where(ops.expand_dims(columns, 1), cost, float("inf"))
    n, m = cost.shape[-2:]
    known = None not in (n, m)
    if not known or n > m:
        # Columns that no row takes, so that there are as many as rows.
        shape = (*ops.shape(rows), n - m if known else ops.shape(rows)[1])
        more = ops.full(shape, float("inf"), dtype=cost.dtype)
        cost = ops.concatenate([cost, more], axis=-1)
    matching = linear_sum_assignment(cost, rows)
    places = ops.arange(ops.shape(columns)[1], dtype="int32")
    matching = ops.where(matching <= places[-1], matching, ops.zeros_like(matching))
    pairs = apply_mask(ops.equal(ops.expand_dims(matching, -1), places), rows)
    return matching, ops.any(pairs, axis=1)


def _nan_unless(condition, x):
    return ops.where(condition, x, float("nan"))
