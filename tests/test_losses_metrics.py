"""Matching, the matched loss, and clustering metrics against SciPy and scikit-learn."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import losses
from keras_sets import metrics
from keras_sets import testing
from keras_sets.ops import linear_sum_assignment
from keras_sets.ops import matching

scipy_optimize = pytest.importorskip("scipy.optimize")
scipy_special = pytest.importorskip("scipy.special")
scipy_stats = pytest.importorskip("scipy.stats")
sklearn_metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture(params=["subsets", "shortest_paths"])
def algorithm(request, monkeypatch):
    if request.param == "shortest_paths":
        monkeypatch.setattr(matching, "SUBSET_LIMIT", 0)
        monkeypatch.setattr(matching, "_assign_on_host", lambda *arguments: None)
    return request.param


class Traced:
    """A function without weights: nothing has to be built by a call outside a trace."""

    built = True

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


def assignments(cost):
    """The matching inside a compiled function, as it is used."""
    outputs, _, _ = testing.outputs_and_gradients(
        Traced(linear_sum_assignment), cost, gradients=False
    )
    return outputs[0].astype(int)


def total(cost, assignment):
    return np.take_along_axis(cost, assignment[..., None], axis=-1).sum(axis=(1, 2))


def matrices(n, rng):
    """Random and degenerate cost matrices."""
    shape = (6, n, n)
    return np.concatenate(
        [
            rng.normal(size=shape),
            rng.integers(0, 3, size=shape),
            rng.random(shape) < 0.3,
            np.zeros((1, n, n)),
            np.ones((1, n, n)),
            np.broadcast_to(rng.normal(size=(1, n, 1)), (1, n, n)),
            np.broadcast_to(rng.normal(size=(1, 1, n)), (1, n, n)),
            -np.eye(n)[None],
            100 * rng.normal(size=shape),
        ]
    ).astype("float32")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10])
def test_matching(n, algorithm, rng):
    assert_optimal(matrices(n, rng))


@pytest.mark.parametrize("n", [13, 15])
def test_matching_of_many_classes(n, rng):
    assert_optimal(matrices(n, rng))


def assert_optimal(cost):
    received = assignments(cost)
    n = cost.shape[-1]
    assert (np.sort(received, axis=1) == np.arange(n)).all()
    wide = cost.astype("float64")
    best = np.array([c[scipy_optimize.linear_sum_assignment(c)].sum() for c in wide])
    scale = np.abs(wide).max(axis=(1, 2)) + 1e-12
    assert (np.abs(total(wide, received) - best) / scale).max() < 1e-5


def test_matching_is_broken():
    """The check finds a greedy matching."""
    cost = np.array([[[0.0, 1.0], [0.5, 9.0]]])
    greedy = np.array([[0, 1]])
    best = cost[0][scipy_optimize.linear_sum_assignment(cost[0])].sum()
    assert total(cost, greedy)[0] > best + 1.0
    assert total(cost, assignments(cost))[0] == best


def test_matching_needs_enough_columns():
    with pytest.raises(ValueError, match="at least as many columns as rows.*Received: cost.shape"):
        linear_sum_assignment(keras.KerasTensor((2, 4, 3)))


# --- The loss ------------------------------------------------------------------------


def example(batch=4, n=7, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, n, classes)).astype("float32")
    labels = rng.integers(0, classes, size=(batch, n)).astype("int32")
    labels[1, 5:] = -1
    labels[2, 1:] = -1
    return labels, logits


def brute_force(labels, logits):
    """The least cross entropy over all permutations."""
    logits = logits.astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    result = []
    for y, scores in zip(labels, log_p, strict=True):
        real = y >= 0
        result.append(
            min(
                -scores[real][np.arange(real.sum()), np.array(order)[y[real]]].mean()
                if real.any()
                else 0.0
                for order in itertools.permutations(range(logits.shape[-1]))
            )
        )
    return np.array(result)


def loss_of(labels, scores, **options):
    loss = losses.MatchedCrossentropy(reduction=None, **options)
    function = Traced(lambda s: loss(labels, s))
    shape = labels.shape[:1]
    outputs, gradient, _ = testing.outputs_and_gradients(function, scores, [np.ones(shape)])
    return outputs[0], gradient


def test_loss(algorithm):
    labels, logits = example()
    labels[3] = -1
    received, gradient = loss_of(labels, logits)
    assert np.allclose(received, brute_force(labels, logits), atol=1e-5)
    assert received[3] == 0.0
    assert np.isfinite(gradient).all()
    assert not gradient[labels < 0].any()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    from_probabilities, _ = loss_of(labels, probabilities, from_logits=False)
    assert np.allclose(from_probabilities, received, atol=1e-5)


def test_loss_is_invariant():
    labels, logits = example()
    expected, _ = loss_of(labels, logits)
    renamed = np.where(labels < 0, -1, np.array([2, 0, 3, 1])[labels]).astype("int32")
    assert np.allclose(loss_of(renamed, logits)[0], expected, atol=1e-6)
    assert np.allclose(loss_of(labels, logits[..., ::-1])[0], expected, atol=1e-6)
    backwards, _ = loss_of(labels[:, ::-1], logits[:, ::-1])
    assert np.allclose(backwards, expected, atol=1e-6)


def test_loss_ignores_what_padding_holds():
    labels, logits = example()
    expected, expected_gradient = loss_of(labels, logits)
    logits[labels < 0] = np.nan
    received, gradient = loss_of(labels, logits)
    assert np.allclose(received, expected)
    real = labels >= 0
    assert np.allclose(gradient[real], expected_gradient[real])


def test_loss_with_another_ignore_class():
    labels, logits = example()
    expected, _ = loss_of(labels, logits)
    other = np.where(labels < 0, 99, labels)
    assert np.allclose(loss_of(other, logits, ignore_class=99)[0], expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_loss_in_fit(backend, algorithm, jit_compile):
    """An implicit mask of the scores is the same as labels of -1, and reweights nothing."""
    if jit_compile and backend == "torch":
        pytest.skip("torch's compiler is experimental in Keras")
    labels, _ = example(batch=4)
    real = labels >= 0
    x = np.random.default_rng(1).normal(size=(4, 7, 3)).astype("float32")
    x[~real] = 0.0
    # Labels of masked entities do not matter when the mask says so.
    full = np.where(real, labels, 2).astype("int32")
    inputs = keras.Input((7, 3))
    # One model trains both: no gradient of one reaches the other.
    outputs = {
        "labels": keras.layers.Dense(4)(inputs),
        "mask": keras.layers.Dense(4)(keras.layers.Masking(0.0)(inputs)),
    }
    model = keras.Model(inputs, outputs)
    kernel, bias, *_ = model.get_weights()
    model.set_weights([kernel, bias, kernel, bias])
    scoring = ["MatchedAccuracy", "AdjustedRandIndex"] if algorithm == "subsets" else []
    model.compile(
        keras.optimizers.SGD(0.5),
        {name: losses.MatchedCrossentropy() for name in outputs},
        metrics={name: [getattr(metrics, metric)() for metric in scoring] for name in outputs},
        jit_compile=jit_compile,
    )
    targets = {"labels": labels, "mask": full}
    history = model.fit(x, targets, batch_size=4, epochs=3, shuffle=False, verbose=0).history
    first = brute_force(labels, x @ kernel + bias).mean()
    for name in outputs:
        assert np.isclose(history[f"{name}_loss"][0], first, atol=1e-5)
    assert history["labels_loss"][-1] < history["labels_loss"][0]
    assert len(history) == 3 + 2 * len(scoring)
    # Keras' JAX trainer hands metrics a y_pred that has lost its mask.
    compared = ["loss"] if backend == "jax" else {key.partition("_")[2] for key in history} - {""}
    for key in compared:
        assert np.allclose(history[f"labels_{key}"], history[f"mask_{key}"], atol=1e-5), key
    weights = model.get_weights()
    assert np.abs(weights[0] - kernel).max() > 1e-2
    for one, other in zip(weights[:2], weights[2:], strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_loss_config():
    loss = losses.MatchedCrossentropy(from_logits=False, ignore_class=7, reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


# --- Metrics -------------------------------------------------------------------------


def scores_of(predicted, classes):
    return np.eye(classes, dtype="float32")[predicted]


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics(classes, rng):
    labels = rng.integers(0, classes, size=(8, 12))
    predicted = rng.integers(0, classes, size=(8, 12))
    predicted[:3] = rng.permutation(classes)[labels[:3]]
    labels[3], predicted[3] = 0, 1
    labels[4, 6:] = -1
    labels[5, 1:] = -1
    ari, accuracy = [], []
    for y, p in zip(labels, predicted, strict=True):
        y, p = y[y >= 0], p[y >= 0]
        ari.append(sklearn_metrics.adjusted_rand_score(y, p))
        table = np.zeros((classes, classes))
        np.add.at(table, (y, p), 1)
        rows, columns = scipy_optimize.linear_sum_assignment(-table)
        accuracy.append(table[rows, columns].sum() / len(y))
    for metric, values in (
        (metrics.AdjustedRandIndex(), ari),
        (metrics.MatchedAccuracy(), accuracy),
    ):
        metric.update_state(labels, scores_of(predicted, classes))
        assert np.isclose(float(metric.result()), np.mean(values), atol=1e-5)
        metric.reset_state()
        weights = np.arange(8.0)
        metric.update_state(labels[:4], scores_of(predicted[:4], classes), weights[:4])
        metric.update_state(labels[4:], scores_of(predicted[4:], classes), weights[4:])
        expected = np.average(values, weights=weights)
        assert np.isclose(float(metric.result()), expected, atol=1e-5)
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert again.get_config() == metric.get_config()


def test_metrics_ignore_empty_sets():
    labels = np.array([[0, 1, 1], [-1, -1, -1]])
    scores = scores_of(np.array([[1, 0, 0], [0, 0, 0]]), 2)
    for metric in (metrics.AdjustedRandIndex(), metrics.MatchedAccuracy()):
        assert float(metric.result()) == 0.0
        metric.update_state(labels, scores)
        assert float(metric.result()) == 1.0


def test_metrics_ignore_what_the_mask_of_scores_excludes(rng):
    labels, logits = example()
    real = labels >= 0
    masked = np.where(real[..., None], logits, 0.0).astype("float32")
    scores = keras.layers.Masking(0.0)(ops.convert_to_tensor(masked))
    full = np.where(real, labels, 2)
    for metric in (metrics.AdjustedRandIndex(), metrics.MatchedAccuracy()):
        metric.update_state(labels, logits)
        expected = float(metric.result())
        metric.reset_state()
        metric.update_state(full, scores)
        assert np.isclose(float(metric.result()), expected, atol=1e-6)


# --- Bad input -----------------------------------------------------------------------

CONSUMERS = [
    lambda y, p: losses.MatchedCrossentropy()(y, p),
    lambda y, p: metrics.MatchedAccuracy().update_state(y, p),
    lambda y, p: metrics.AdjustedRandIndex().update_state(y, p),
]


@pytest.mark.parametrize("consume", CONSUMERS, ids=["loss", "accuracy", "ari"])
def test_bad_input(consume):
    labels, logits = example()
    with pytest.raises(ValueError, match=r"`y_pred` of shape.*y_pred\.shape=\(4, 7\)"):
        consume(labels, logits[..., 0])
    with pytest.raises(ValueError, match=r"`y_true` of shape.*y_true\.shape=\(4, 6\)"):
        consume(labels[:, :-1], logits)
    with pytest.raises(ValueError, match=r"`y_true` of shape.*y_true\.shape=\(4, 7, 1\)"):
        consume(labels[..., None], logits)
    for wrong in (4, -2):
        bad = labels.copy()
        bad[0, 0] = wrong
        with pytest.raises(ValueError, match=rf"0\.\.3.*1 of 28.*the first is {wrong}"):
            consume(bad, logits)


def test_labels_in_a_traced_function_are_not_seen():
    labels, logits = example()
    bad = np.where(labels < 0, -1, labels + 10)
    outputs, _, _ = testing.outputs_and_gradients(
        lambda y: losses.MatchedCrossentropy(reduction=None)(
            ops.cast(y, "int32"), ops.convert_to_tensor(logits)
        ),
        np.where(labels < 0, -1, labels),
        gradients=False,
    )
    assert np.isfinite(outputs[0]).all()
    with pytest.raises(ValueError, match="y_true"):
        losses.MatchedCrossentropy()(bad, logits)


# --- The likelihood of mixtures ------------------------------------------------------


def mixture_example(batch=3, n=6, components=4, features=2, sigmas=None, seed=0):
    rng = np.random.default_rng(seed)
    width = 1 + features + (features if sigmas is None else sigmas)
    parameters = rng.normal(size=(batch, components, width)).astype("float32")
    points = rng.normal(size=(batch, n, features)).astype("float32")
    return points, parameters


def negative_log_likelihoods(points, parameters):
    """By SciPy, point by point."""
    points, parameters = points.astype("float64"), parameters.astype("float64")
    features = points.shape[-1]
    logits = parameters[..., 0]
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    means = parameters[..., 1 : 1 + features]
    sigmas = np.broadcast_to(np.log1p(np.exp(parameters[..., 1 + features :])), means.shape)
    density = sum(
        np.stack(
            [
                weights[b, k]
                * scipy_stats.multivariate_normal(means[b, k], np.diag(sigmas[b, k] ** 2)).pdf(x)
                for b, x in enumerate(points)
            ]
        )
        for k in range(parameters.shape[1])
    )
    return -np.log(density)


@pytest.mark.parametrize("features, sigmas", [(2, None), (2, 1), (3, None), (1, None)])
def test_mixture_loss(features, sigmas):
    points, parameters = mixture_example(features=features, sigmas=sigmas)
    loss = losses.GaussianMixtureLoss(reduction=None)
    outputs, gradient, _ = testing.outputs_and_gradients(
        Traced(lambda y: loss(points, y)), parameters, [np.ones((3, 6))]
    )
    expected = negative_log_likelihoods(points, parameters)
    np.testing.assert_allclose(outputs[0], expected, rtol=2e-5)
    assert float(losses.GaussianMixtureLoss()(points, parameters)) == pytest.approx(
        expected.mean(), rel=1e-5
    )
    step = 1e-3 * gradient / np.abs(gradient).max()
    lower = negative_log_likelihoods(points, parameters - step).sum()
    higher = negative_log_likelihoods(points, parameters + step).sum()
    np.testing.assert_allclose(higher - lower, 2 * (step * gradient).sum(), rtol=1e-3)


def test_mixture_loss_with_sample_weights():
    points, parameters = mixture_example()
    expected = negative_log_likelihoods(points, parameters)
    counts = np.array([[1, 1, 1, 0, 0, 0], [2, 1, 0, 0, 0, 3], [0, 0, 0, 0, 0, 0.5]])
    for reduction, total in (
        ("mean_with_sample_weight", np.average(expected, weights=counts)),
        ("sum", (expected * counts).sum()),
        ("sum_over_batch_size", (expected * counts).mean()),
    ):
        loss = losses.GaussianMixtureLoss(reduction=reduction)
        assert float(loss(points, parameters, counts)) == pytest.approx(total, rel=1e-5)
    assert float(losses.GaussianMixtureLoss()(points, parameters, counts > 0)) == pytest.approx(
        expected[counts > 0].mean(), rel=1e-5
    )
    sets = np.array([1.0, 0.0, 3.0])
    assert float(losses.GaussianMixtureLoss()(points, parameters, sets)) == pytest.approx(
        np.average(expected.mean(axis=1), weights=sets), rel=1e-5
    )
    assert float(losses.GaussianMixtureLoss()(points, parameters, 0 * counts)) == 0


def test_mixture_loss_ignores_what_padding_holds():
    points, parameters = mixture_example()
    mask = np.arange(6) < np.array([[6], [2], [4]])
    function = lambda x: Traced(  # noqa: E731
        lambda y: losses.GaussianMixtureLoss()(x, y, mask)
    )
    expected, expected_gradient, _ = testing.outputs_and_gradients(function(points), parameters)
    points[~mask] = np.nan
    received, gradient, _ = testing.outputs_and_gradients(function(points), parameters)
    np.testing.assert_array_equal(received[0], expected[0])
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_mixture_loss_is_invariant():
    points, parameters = mixture_example()
    loss = losses.GaussianMixtureLoss(reduction=None)
    expected = keras.ops.convert_to_numpy(loss(points, parameters))
    np.testing.assert_allclose(loss(points, parameters[:, [2, 0, 3, 1]]), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(points[:, ::-1], parameters), expected[:, ::-1], rtol=1e-5)
    other = keras.ops.convert_to_numpy(loss(points[::-1], parameters))
    assert np.abs(other - expected).max() > 0.1


def test_mixture_loss_far_from_the_points():
    """Where every density vanishes in float32, and where a Gaussian has no width."""
    points, parameters = mixture_example()
    parameters[..., 0] *= 50
    parameters[0, :, 1:3] += 1e3
    parameters[1, :, 3:] = -200.0
    parameters[2, :, 3:] = 300.0
    loss = losses.GaussianMixtureLoss(reduction=None)
    outputs, gradient, _ = testing.outputs_and_gradients(
        Traced(lambda y: loss(points, y)), parameters, [np.ones((3, 6))]
    )
    assert np.isfinite(outputs[0]).all() and np.isfinite(gradient).all()
    wide = parameters.astype("float64")
    distance = (points[0, :, None] - wide[0, None, :, 1:3]) / np.log1p(np.exp(wide[0, None, :, 3:]))
    log_p = (
        scipy_special.log_softmax(wide[0, :, 0])
        - 0.5 * np.square(distance).sum(axis=-1)
        - np.log(np.log1p(np.exp(wide[0, :, 3:]))).sum(axis=-1)
        - np.log(2 * np.pi)
    )
    np.testing.assert_allclose(outputs[0][0], -scipy_special.logsumexp(log_p, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mixture_loss_in_fit(backend, jit_compile):
    """Sets of several sizes, their mask as sample weights, in float32 under bfloat16."""
    if jit_compile and backend == "torch":
        pytest.skip("torch's compiler is experimental in Keras")
    points, _ = mixture_example(batch=4)
    mask = np.arange(6) < np.array([[6], [2], [4], [5]])
    inputs = keras.Input((6, 2), dtype="float32")
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(15, dtype="mixed_bfloat16")(x)
    model = keras.Model(inputs, keras.layers.Reshape((3, 5), dtype="mixed_bfloat16")(x))
    model.compile(keras.optimizers.SGD(0.05), losses.GaussianMixtureLoss(), jit_compile=jit_compile)
    predicted = np.asarray(model.predict(points, verbose=0), "float32")
    first = negative_log_likelihoods(points, predicted)[mask].mean()
    history = model.fit(
        points, points, sample_weight=mask.astype("float32"), epochs=5, shuffle=False, verbose=0
    )
    # The outputs are rounded to bfloat16, the loss is not.
    assert history.history["loss"][0] == pytest.approx(first, rel=1e-4)
    assert history.history["loss"][-1] < first


def test_mixture_loss_config():
    loss = losses.GaussianMixtureLoss(epsilon=0.01, reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    points, parameters = mixture_example()
    log_weights, means, sigmas = again.mixture(ops.convert_to_tensor(parameters), 2)
    np.testing.assert_allclose(ops.sum(ops.exp(log_weights), axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(means, parameters[..., 1:3])
    np.testing.assert_allclose(sigmas, np.log1p(np.exp(parameters[..., 3:])) + 0.01, rtol=1e-5)


def test_mixture_loss_bad_input():
    points, parameters = mixture_example()
    loss = losses.GaussianMixtureLoss()
    with pytest.raises(ValueError, match=r"`y_true` of shape.*y_true\.shape=\(3, 6\)"):
        loss(points[..., 0], parameters)
    for wrong in (parameters[..., :3], parameters[:2], parameters[:, 0]):
        with pytest.raises(ValueError, match=r"`y_pred` of shape.*with 5 parameters.*y_pred\.sh"):
            loss(points, wrong)
    for shape in ((6,), (3, 5), (3, 6, 1), (2,)):
        with pytest.raises(ValueError, match=r"`sample_weight` of shape.*or\s+`\(batch,\)`"):
            loss(points, parameters, np.ones(shape))
    for epsilon in (0, -1.0, None):
        with pytest.raises(ValueError, match="`epsilon`, expected a positive number"):
            losses.GaussianMixtureLoss(epsilon=epsilon)
