"""Losses between sets against SciPy and POT, and the laws of sets."""

import numpy as np
import pytest
from keras import ops

from keras_sets import losses
from keras_sets.ops import matching
from keras_sets.ops import set_distances
from keras_sets.testing import outputs_and_gradients
from tests.set_loss_cases import EPSILON
from tests.set_loss_cases import LOSSES
from tests.set_loss_cases import Traced
from tests.set_loss_cases import cdist
from tests.set_loss_cases import chamfer
from tests.set_loss_cases import every_loss
from tests.set_loss_cases import example
from tests.set_loss_cases import expected
from tests.set_loss_cases import scipy_optimize
from tests.set_loss_cases import sinkhorn
from tests.set_loss_cases import value_and_gradient


@pytest.fixture(params=["host", "graph"])
def solver(request, monkeypatch, backend):
    """Both ways to a matching that torch has."""
    if request.param == "graph":
        monkeypatch.setattr(matching, "_assign_on_host", lambda *arguments: None)
        monkeypatch.setattr(matching, "SUBSET_LIMIT", 0)
    elif backend != "torch":
        pytest.skip("there is one way only")


# --- Values and gradients ------------------------------------------------------------


@every_loss
def test_value(name):
    given = example(name)
    values, _ = value_and_gradient(name, *given)
    np.testing.assert_allclose(values, expected(name, *given), rtol=1e-5)


@every_loss
def test_gradient(name, float64):
    """Towards the predictions, and towards the true elements by the functions."""
    y_true, y_pred, weights, mask = example(name)
    values, gradient = value_and_gradient(name, y_true, y_pred, weights, mask)
    # Keras' own losses round float64 on torch.
    np.testing.assert_allclose(values, expected(name, y_true, y_pred, weights, mask), rtol=1e-7)
    rng = np.random.default_rng(1)
    for _ in range(3):
        step = 1e-5 * rng.normal(size=y_pred.shape)
        higher, lower = (
            expected(name, y_true, y_pred + sign * step, weights, mask).sum() for sign in (1, -1)
        )
        assert higher - lower == pytest.approx(2 * (step * gradient).sum(), rel=1e-5)
    assert not gradient[~mask].any()


@pytest.mark.parametrize("name", ["earth_mover", "matched", "objects"])
def test_value_by_every_solver(name, solver):
    given = example(name)
    values, _ = value_and_gradient(name, *given)
    np.testing.assert_allclose(values, expected(name, *given), rtol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 8), (9, 9), (13, 20)])
def test_matching_of_some_rows(n, m, solver, rng):
    cost = rng.normal(size=(5, n, m)).astype("float32")
    cost[1] = rng.integers(0, 3, size=(n, m))
    mask = rng.random((5, n)) < 0.7
    mask[2], mask[3] = False, True

    def assignment(mask):
        (received,), _, _ = outputs_and_gradients(
            Traced(lambda c: matching.linear_sum_assignment(c, ops.convert_to_tensor(mask))),
            cost,
            gradients=False,
        )
        return received

    received = assignment(mask)
    if n > matching.SUBSET_LIMIT:  # zeros and ones will do
        np.testing.assert_array_equal(assignment(mask.astype("int32")), received)
    for columns, matrix, rows in zip(received.astype(int), cost, mask, strict=True):
        best = matrix[rows][scipy_optimize.linear_sum_assignment(matrix[rows])].sum()
        assert len(set(columns[rows])) == rows.sum()
        assert matrix[rows, columns[rows]].sum() == pytest.approx(best, abs=1e-5)
        assert not columns[~rows].any()


# By hand: the loss, the true elements, the predicted ones, and the value.
ROWS = {
    # (1 + 1) / 2 there, (1 + 4 + 1) / 3 back.
    "chamfer": (losses.Chamfer, [[0], [4]], [[1], [2], [3]], 3),
    # 0 - 2 and 4 - 5.
    "earth_mover": (losses.EarthMover, [[0], [4]], [[5], [2]], 1.5),
    # 3 and 4 make 5.
    "earth_mover_of_one": (losses.EarthMover, [[0, 0]], [[3, 4]], 5),
    # Moved by 3: half the square.
    "sinkhorn": (losses.SinkhornDivergence, [[0], [1]], [[3], [4]], 4.5),
    # 0 - 2 and 4 - 5; the third prediction costs nothing.
    "matched": (lambda: losses.MatchedLoss("mae"), [[0], [4]], [[9], [5], [2]], 1.5),
    # The partner is the farther one, whose logit is larger: 2 + (0 + 0) / 2.
    "objects": (lambda: losses.MatchedLoss("mae", 1.0), [[0]], [[1, -99], [2, 99]], 2),
    # The same of two logits that are large: what counts is what the other one costs.
    "larger_logit": (
        lambda: losses.MatchedLoss("mae", 1.0),
        [[0]],
        [[1, 5], [2, 50]],
        2 + np.log1p(np.exp(5)) / 2,
    ),
    # All logits 0, no true element is near: log 2 for each.
    "no_logits": (lambda: losses.MatchedLoss("mae", 1.0), [[0]], [[0, 0], [2, 0]], np.log(2)),
}


@pytest.mark.parametrize("name", ROWS)
def test_by_hand(name):
    make, y_true, y_pred, value = ROWS[name]
    received = make()(np.array([y_true], "float32"), np.array([y_pred], "float32"))
    assert float(received) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["chamfer", "sinkhorn", "earth_mover"])
def test_many_features(name):
    """Distances by products of matrices, far from the origin."""
    y_true, y_pred, weights, mask = example(name, features=20)
    values, gradient = value_and_gradient(name, y_true + 50, y_pred + 50, weights, mask)
    np.testing.assert_allclose(values, expected(name, y_true, y_pred, weights, mask), rtol=1e-5)
    few, few_gradient = value_and_gradient(name, y_true[..., :2], y_pred[..., :2], weights, mask)
    embedded = [np.pad(y[..., :2], ((0, 0), (0, 0), (0, 18))) for y in (y_true, y_pred)]
    many, many_gradient = value_and_gradient(name, *embedded, weights, mask)
    np.testing.assert_allclose(many, few, rtol=1e-5)
    np.testing.assert_allclose(many_gradient[..., :2], few_gradient, rtol=1e-4, atol=1e-6)


# --- Symmetry, padding, multiplicity, empty sets --------------------------------------


@every_loss
def test_order(name):
    y_true, y_pred, weights, mask = example(name)
    values, gradient = value_and_gradient(name, y_true, y_pred, weights, mask)
    order, other = [2, 0, 3, 1], [5, 2, 0, 1, 4, 3]
    received, received_gradient = value_and_gradient(
        name, y_true[:, order], y_pred[:, other], weights[:, order], mask[:, other]
    )
    np.testing.assert_allclose(received, values, rtol=1e-5)
    np.testing.assert_allclose(received_gradient, gradient[:, other], atol=1e-5)


@every_loss
def test_padding(name):
    """What absent elements hold makes no difference, and they are as if they were not there."""
    y_true, y_pred, weights, mask = example(name)
    values, gradient = value_and_gradient(name, y_true, y_pred, weights, mask)
    dirty = np.where(weights[..., None] > 0, y_true, np.nan)
    hidden = np.where(mask[..., None], y_pred, np.nan)
    hidden[0, ~mask[0], 0] = np.inf
    received, received_gradient = value_and_gradient(name, dirty, hidden, weights, mask)
    np.testing.assert_array_equal(received, values)
    np.testing.assert_array_equal(received_gradient, gradient)
    real, seen = weights[1] > 0, mask[1]
    alone, alone_gradient = value_and_gradient(
        name, y_true[1:2, real], y_pred[1:2, seen], weights[1:2, real]
    )
    np.testing.assert_allclose(alone, values[1:2], rtol=1e-5)
    np.testing.assert_allclose(alone_gradient[0], gradient[1, seen], atol=1e-5)


@pytest.mark.parametrize("name", ["chamfer", "sinkhorn"])
def test_multiplicity(name):
    y_true, y_pred, _, _ = example(name)
    counts = np.array([3, 1, 0, 2])
    repeated, gradient = value_and_gradient(name, np.repeat(y_true, counts, axis=1), y_pred)
    for factor in (1, 1e-30, 1e38):
        weights = np.tile(factor * counts, (3, 1))
        counted, counted_gradient = value_and_gradient(name, y_true, y_pred, weights)
        np.testing.assert_allclose(counted, repeated, rtol=1e-5)
        np.testing.assert_allclose(counted_gradient, gradient, atol=1e-5)


@every_loss
def test_empty_sets(name):
    y_true, y_pred, weights, mask = example(name)
    weights[0] = weights[1] = 0
    mask[0] = False
    if name in ("chamfer", "sinkhorn"):
        mask[2] = False
    if name == "earth_mover":
        mask[1] = False
    values, gradient = value_and_gradient(name, y_true, y_pred, weights, mask)
    assert np.isfinite(values).all() and np.isfinite(gradient).all()
    if name == "objects":
        logits = y_pred[1, mask[1], -1]
        assert values[1] == pytest.approx(0.1 * np.log1p(np.exp(logits)).mean(), rel=1e-5)
        assert values[0] == 0
    else:
        assert not values[:2].any() and not gradient[:2].any()
    if name in ("chamfer", "sinkhorn"):  # there is nothing to compare the true elements with
        assert values[2] == 0 and not gradient[2].any()


@every_loss
def test_no_sets_and_no_places(name):
    y_true, y_pred, _, _ = example(name, m=4)
    values, gradient = value_and_gradient(name, y_true[:0], y_pred[:0])
    assert values.shape == (0,) and gradient.shape == (0, *y_pred.shape[1:])
    assert float(LOSSES[name]()(y_true[:0], y_pred[:0])) == 0
    values, _ = value_and_gradient(name, y_true[:, :0], y_pred[:, :0])
    assert not values.any() and values.shape == (3,)
    if name != "earth_mover":
        values, gradient = value_and_gradient(name, y_true[:, :0], y_pred)
        assert np.isfinite(values).all() and np.isfinite(gradient).all()


@every_loss
def test_weights_of_sets(name):
    y_true, y_pred, _, _ = example(name, m=4)
    values, _ = value_and_gradient(name, y_true, y_pred)
    sets = np.array([2.0, 0.0, 1.0])
    received = float(LOSSES[name]()(y_true, y_pred, sets))
    assert received == pytest.approx((values * sets).mean(), rel=1e-5)
    mean = LOSSES[name](reduction="mean_with_sample_weight")
    assert float(mean(y_true, y_pred, sets)) == pytest.approx((values * sets).sum() / 3, rel=1e-5)


@pytest.mark.parametrize("features", [2, 20])
def test_equal_sets(features):
    """No distance, and no infinite derivative; no root of a product that is rounded below 0."""
    y_true, _, _, _ = example("chamfer", n=6, features=features)
    for name in ("chamfer", "sinkhorn", "earth_mover"):
        values, gradient = value_and_gradient(name, y_true, y_true)
        np.testing.assert_allclose(values, 0, atol=1e-6 if features == 2 else 1e-5)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_function_with_weights_on_both_sides(float64):
    y_true, y_pred, a, mask = example("chamfer")
    b = np.where(mask, np.random.default_rng(2).uniform(0.5, 2, mask.shape), np.nan)
    given = {"x_mask": a > 0, "x_weights": a, "y_mask": mask}
    given = {key: ops.convert_to_tensor(value) for key, value in given.items()}
    functions = {
        chamfer: set_distances.chamfer,
        sinkhorn: lambda x, y, **given: set_distances.sinkhorn_divergence(
            x, y, EPSILON, 1000, **given
        ),
    }

    def by_numpy(function, b):
        sets = zip(y_true, y_pred, a, b, mask, strict=True)
        return np.array([function(x[u > 0], y[m], u[u > 0], v[m]) for x, y, u, v, m in sets])

    for reference, function in functions.items():
        (values,), gradient, _ = outputs_and_gradients(
            Traced(
                lambda w, function=function: function(
                    ops.convert_to_tensor(y_true),
                    ops.convert_to_tensor(y_pred),
                    y_weights=w,
                    **given,
                )
            ),
            b,
        )
        np.testing.assert_allclose(values, by_numpy(reference, b), rtol=1e-7)
        step = 1e-5 * np.random.default_rng(3).normal(size=b.shape)
        difference = (by_numpy(reference, b + step) - by_numpy(reference, b - step)).sum()
        assert difference == pytest.approx(2 * (step * gradient).sum(), rel=1e-5)


# --- Precision and public comparisons ---------------------------------------------------


@pytest.mark.parametrize("name", ["chamfer", "earth_mover"])
def test_neighbors_beside_an_outlier(name):
    """Squares of its distance have no digits for those of the others."""
    y_true, y_pred, weights, mask = example(name)
    y_true[:, 0], y_pred[:, 0] = 1e5, 1e5 + 1
    values, _ = value_and_gradient(name, y_true, y_pred, weights, mask)
    given = (y_true.astype("float32"), y_pred.astype("float32"), weights, mask)
    np.testing.assert_allclose(values, expected(name, *given), rtol=1e-4)


@every_loss
def test_predictions_of_zeros(name):
    """Of a network that starts so; padding holds zeros as well."""
    y_true, y_pred, weights, mask = example(name)
    values, gradient = value_and_gradient(name, y_true, 0 * y_pred, weights, mask)
    assert (values > 0).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["earth_mover", "matched"])
def test_predictions_that_are_no_numbers(name, solver):
    """The loss of their set is none, that of others is as before."""
    y_true, y_pred, weights, mask = example(name)
    values, _ = value_and_gradient(name, y_true, y_pred, weights, mask)
    for wrong in (np.nan, -np.inf):
        y_pred[1] = wrong
        received, _ = value_and_gradient(name, y_true, y_pred, weights, mask)
        assert not np.isfinite(received[1])
        np.testing.assert_allclose(received[::2], values[::2], rtol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-4, 1e-6])
def test_small_epsilon(epsilon, rng):
    """Half the squared Wasserstein distance, by matching, and no overflow in float32."""
    y_true, y_pred = rng.normal(size=(2, 3, 10, 2))
    y_true[2] *= 100
    loss = losses.SinkhornDivergence(epsilon, iterations=300, reduction=None)
    values, gradient = value_and_gradient("sinkhorn", y_true, y_pred, loss=loss)
    for x, y, value, slope in zip(y_true, y_pred, values, gradient, strict=True):
        cost = cdist(x, y, "sqeuclidean") / 2
        rows, columns = scipy_optimize.linear_sum_assignment(cost)
        assert value == pytest.approx(cost[rows, columns].mean(), rel=10 * epsilon + 1e-3)
        pull = np.zeros_like(y)
        pull[columns] = (y[columns] - x[rows]) / len(x)
        if epsilon < 1e-2:
            np.testing.assert_allclose(slope, pull, atol=1e-2 * np.abs(pull).max())


def test_sinkhorn_by_pot(float64):
    ot = pytest.importorskip("ot")
    y_true, y_pred, weights, mask = example("sinkhorn")

    def entropic(x, y, a, b):
        a, b = a / a.sum(), b / b.sum()
        cost = ot.dist(x, y) / 2
        options = {"method": "sinkhorn_log", "stopThr": 1e-10, "numItermax": 3000}
        plan = ot.sinkhorn(a, b, cost, EPSILON, **options)
        ratios = np.where(plan > 0, plan / (a[:, None] * b), 1)
        return (plan * cost).sum() + EPSILON * (plan * np.log(ratios)).sum()

    values, _ = value_and_gradient("sinkhorn", y_true, y_pred, weights, mask)
    for x, y, a, m, value in zip(y_true, y_pred, weights, mask, values, strict=True):
        x, y, a, b = x[a > 0], y[m], a[a > 0], np.ones(m.sum())
        reference = entropic(x, y, a, b) - (entropic(x, x, a, a) + entropic(y, y, b, b)) / 2
        assert value == pytest.approx(reference, rel=1e-5)


def test_earth_mover_by_pot():
    ot = pytest.importorskip("ot")
    y_true, y_pred, _, _ = example("earth_mover", m=4)
    values, _ = value_and_gradient("earth_mover", y_true, y_pred)
    reference = [
        ot.emd2([], [], ot.dist(x, y, "euclidean")) for x, y in zip(y_true, y_pred, strict=True)
    ]
    np.testing.assert_allclose(values, reference, rtol=1e-5)
