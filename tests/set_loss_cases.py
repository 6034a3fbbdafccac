"""The losses between sets: how they are made, what they are in NumPy, and examples."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import losses
from keras_sets.testing import outputs_and_gradients

scipy_optimize = pytest.importorskip("scipy.optimize")
cdist = pytest.importorskip("scipy.spatial.distance").cdist

EPSILON = 0.3


@keras.saving.register_keras_serializable(package="tests")
def distance(y_true, y_pred):
    """Euclidean; its derivative is infinite where both are the same."""
    return ops.sqrt(ops.sum(ops.square(y_true - y_pred), axis=-1))


LOSSES = {
    "chamfer": losses.Chamfer,
    "sinkhorn": lambda **options: losses.SinkhornDivergence(EPSILON, 500, **options),
    "earth_mover": losses.EarthMover,
    "matched": lambda **options: losses.MatchedLoss(distance, **options),
    "objects": lambda **options: losses.MatchedLoss("mse", 0.1, **options),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


# --- What the losses are, set by set, in NumPy ---------------------------------------


def chamfer(x, y, a, b):
    squares = cdist(x, y, "sqeuclidean")
    return squares.min(axis=1) @ a / a.sum() + squares.min(axis=0) @ b / b.sum()


def transport(x, y, a, b, epsilon=EPSILON):
    """The entropic cost of a plan from x to y."""
    cost = cdist(x, y, "sqeuclidean") / 2
    a, b = a / a.sum(), b / b.sum()
    kernel = np.exp(-cost / epsilon)
    v, residual = np.ones(len(y)), 1.0
    while residual > 1e-11:
        u = 1 / (kernel @ (b * v))
        v = 1 / (kernel.T @ (a * u))
        residual = np.abs(u * (kernel @ (b * v)) - 1).max()
    ratios = u[:, None] * kernel * v
    plan = ratios * a[:, None] * b
    return (plan * cost).sum() + epsilon * (plan * np.log(ratios)).sum()


def sinkhorn(x, y, a, b):
    return transport(x, y, a, b) - (transport(x, x, a, a) + transport(y, y, b, b)) / 2


def earth_mover(x, y, a, b):
    cost = cdist(x, y)
    return cost[scipy_optimize.linear_sum_assignment(cost)].mean()


def matched(x, y, a, b):
    cost = a[:, None] * cdist(x, y) / a.sum()
    return cost[scipy_optimize.linear_sum_assignment(cost)].sum()


def objects(x, y, a, b, no_object=0.1):
    """The least over all ordered choices of partners."""
    y, logits = y[:, :-1], y[:, -1]
    pairs = cdist(x, y, "sqeuclidean") / x.shape[1]
    best = np.inf
    for partners in itertools.permutations(range(len(y)), len(x)):
        costs = no_object * np.log1p(np.exp(logits))
        costs[list(partners)] = np.log1p(np.exp(-logits[list(partners)]))
        own = (a * pairs[range(len(x)), partners]).sum() / a.sum() if len(x) else 0.0
        best = min(best, own + costs.mean())
    return best


NUMPY = {
    "chamfer": chamfer,
    "sinkhorn": sinkhorn,
    "earth_mover": earth_mover,
    "matched": matched,
    "objects": objects,
}


# --- Examples ------------------------------------------------------------------------


def example(name, batch=3, n=4, m=6, features=2, seed=0):
    """`(y_true, y_pred, weights, mask)`, of as many elements on both sides where they must be."""
    rng = np.random.default_rng(seed)
    y_true = rng.normal(size=(batch, n, features))
    y_pred = rng.normal(size=(batch, m, features + (name == "objects")))
    weights = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0]], float)
    mask = np.array([[1, 0, 1, 1, 1, 1], [1, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0]], bool)
    if name == "earth_mover":
        mask[:, -1] = False
        mask[2, 3] = False
    else:
        weights = weights * rng.uniform(0.5, 2, size=weights.shape)
    return y_true, y_pred, weights, mask


class Masked(keras.layers.Layer):
    """Hands on a mask of its own, as a layer on sets does."""

    def __init__(self, mask):
        super().__init__(dtype=keras.config.floatx())
        self.mask = mask

    def call(self, x):
        return x

    def compute_mask(self, x, mask=None):
        return ops.convert_to_tensor(self.mask)


class Traced:
    """A function that is compiled, and has nothing to be built outside the trace."""

    built = True

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


def value_and_gradient(name, y_true, y_pred, weights=None, mask=None, loss=None):
    loss = loss or LOSSES[name](reduction=None)
    layer = (lambda y: y) if mask is None else Masked(mask)
    (values,), gradient, _ = outputs_and_gradients(
        Traced(lambda y: loss(y_true, layer(y), weights)), y_pred, [np.ones(len(y_pred))]
    )
    return values, gradient


def expected(name, y_true, y_pred, weights, mask):
    function = NUMPY[name]
    y_true, y_pred, weights = (np.asarray(t, "float64") for t in (y_true, y_pred, weights))
    return np.array(
        [
            function(x[a > 0], y[b], a[a > 0], np.ones(b.sum()))
            for x, y, a, b in zip(y_true, y_pred, weights, mask, strict=True)
        ]
    )
