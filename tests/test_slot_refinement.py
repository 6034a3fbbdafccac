"""A swarm of slots, against expectation maximisation in NumPy, and clustering with it."""

import keras
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from examples.amortized_clustering import data
from keras_sets import layers
from keras_sets import losses
from keras_sets import metrics
from keras_sets import models
from keras_sets.layers import slot_refinement
from keras_sets.ops import gaussians
from keras_sets.testing import outputs_and_gradients


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def em_step(x, logits, weights, scatter, strength):
    """Log densities plus log shares of the Gaussians of the shares that logits give."""
    shares = softmax(logits) * weights[:, None]
    answers = []
    for share in shares.T:
        mass = share.sum() + 1e-4
        mean = share @ x / mass
        square = (share[:, None] * x).T @ x - mass * np.outer(mean, mean)
        covariance = (square + scatter * np.eye(x.shape[1])) / (mass + strength)
        delta = x - mean
        distance = np.einsum("ni,ij,nj->n", delta, np.linalg.inv(covariance), delta)
        log_density = -0.5 * (distance + np.linalg.slogdet(covariance)[1])
        part = share.sum() / weights.sum() + slot_refinement.LEAST_SHARE
        answers.append(log_density + np.log(part))
    return np.stack(answers, axis=-1)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_without_a_readout_it_is_expectation_maximisation(features):
    rng = np.random.default_rng(features)
    x = rng.normal(size=(2, 40, features))
    weights = rng.integers(0, 3, size=(2, 40)).astype("float64")
    layer = layers.SlotRefinement(
        3, units=4, iterations=2, em_steps=2, return_iterations=True, dtype="float64"
    )
    layer.build(x.shape)
    layer.readout.kernel.assign(0 * layer.readout.kernel)
    steps = to_numpy(layer(x, weights=weights))
    scatter, strength = np.exp(to_numpy(layer.prior))
    for points, mass, received in zip(x, weights, steps, strict=True):
        products = [points[:, i:] * points[:, i : i + 1] for i in range(features)]
        basis = np.concatenate([np.ones((len(points), 1)), points, *products], axis=1)
        logits = basis @ to_numpy(layer.initial_scores).T
        for step in received:
            logits = em_step(points, logits, mass, scatter, strength)
            present = mass > 0
            np.testing.assert_allclose(step[present], logits[present], rtol=1e-4, atol=1e-4)
            assert (step[~present] == 0).all()


def test_slots_follow_their_order():
    x = np.random.default_rng(0).normal(size=(2, 30, 2)).astype("float32")
    layer = layers.SlotRefinement(3, units=4, iterations=2)
    expected = to_numpy(layer(x))
    for weight in (layer.initial_scores, layer.initial_states):
        weight.assign(to_numpy(weight)[[2, 0, 1]])
    np.testing.assert_allclose(to_numpy(layer(x)), expected[..., [2, 0, 1]], rtol=1e-3, atol=1e-3)


def test_steps_and_damping_change_no_answer():
    x = np.random.default_rng(0).normal(size=(2, 30, 2)).astype("float32")
    first = layers.SlotRefinement(3, units=4, iterations=3, em_steps=1)
    first.build(x.shape)
    options = {"return_iterations": True, "gradient_damping": 0.0}
    second = layers.SlotRefinement(3, units=4, iterations=3, em_steps=1, **options)
    second.build(x.shape)
    second.set_weights(first.get_weights())
    steps = to_numpy(second(x))
    assert steps.shape == (2, 4, 30, 3)
    np.testing.assert_allclose(steps[:, -1], to_numpy(first(x)), rtol=1e-4, atol=1e-4)


def test_damping_takes_its_share_of_the_gradient():
    """The first scores act on one step through its moments alone."""
    x = np.random.default_rng(0).normal(size=(2, 30, 2)).astype("float32")
    gradients, weights = [], None
    for damping in (0.0, 0.25):
        options = {"iterations": 1, "em_steps": 0, "gradient_damping": damping}
        layer = layers.SlotRefinement(3, units=4, **options)
        layer.build(x.shape)
        weights = weights or layer.get_weights()
        layer.set_weights(weights)
        place = [w.name for w in layer.weights].index("initial_scores")
        gradients.append(outputs_and_gradients(layer, x)[2][place])
    np.testing.assert_allclose(gradients[1], 0.75 * gradients[0], rtol=1e-3, atol=1e-4)
    assert np.abs(gradients[0]).max() > 0.1


def test_the_best_start_is_the_one_of_the_largest_evidence():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(6, 40, 2)) + rng.integers(0, 3, size=(6, 40, 1)) * 4).astype("float32")
    one = layers.SlotRefinement(3, units=4, iterations=2)
    one.build(x.shape)
    # The same weights on every backend.
    one.set_weights([0.5 * rng.normal(size=w.shape) for w in one.get_weights()])
    several = layers.SlotRefinement(3, units=4, iterations=2, num_starts=4)
    several.build(x.shape)
    several.set_weights(one.get_weights())
    turns = gaussians.isometries(4, 2)
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), [np.eye(2)] * 4, atol=1e-12)
    answers = [to_numpy(one((x @ turn).astype("float32"))) for turn in turns]
    evidence = []
    scatter, strength = np.exp(to_numpy(one.prior)).astype("float64")
    for answer in answers:
        scores = []
        for points, logits in zip(x.astype("float64"), answer, strict=True):
            joint = em_step(points, logits, np.ones(40), scatter, strength)
            mass = softmax(logits).sum(axis=0) + 40 * slot_refinement.LEAST_SHARE
            fit = np.log(np.exp(joint).sum(axis=1)).sum()
            scores.append(fit - 0.5 * 6 * np.log(np.maximum(mass, 1)).sum())
        evidence.append(scores)
    best = np.argmax(evidence, axis=0)
    assert len(set(best)) > 1
    expected = [answers[start][task] for task, start in enumerate(best)]
    np.testing.assert_allclose(to_numpy(several(x)), expected, rtol=1e-3, atol=1e-2)


def test_the_best_start_is_the_one_of_the_largest_classification_likelihood():
    rng = np.random.default_rng(0)
    x = (rng.uniform(size=(6, 40, 2)) + rng.integers(0, 3, (6, 40, 1)) * [1, 2]).astype("float32")
    one = layers.SlotRefinement(3, units=4, iterations=2)
    one.build(x.shape)
    scales = [3.0 if w.shape == (3, 6) else 0.1 for w in one.get_weights()]
    one.set_weights(
        [k * rng.normal(size=w.shape) for k, w in zip(scales, one.get_weights(), strict=True)]
    )
    several = layers.SlotRefinement(3, units=4, iterations=2, num_starts=4, criterion="icl")
    several.build(x.shape)
    several.set_weights(one.get_weights())
    turns = gaussians.isometries(4, 2)
    answers = [to_numpy(one((x @ turn).astype("float32"))) for turn in turns]
    scatter, strength = np.exp(to_numpy(one.prior)).astype("float64")
    scores = np.zeros((4, 6))
    for (start, task), _ in np.ndenumerate(scores):
        labels = answers[start][task].argmax(axis=1)
        for label in np.unique(labels):
            points = x[task, labels == label].astype("float64")
            m = len(points)
            centred = points - points.mean(axis=0)
            covariance = (centred.T @ centred + scatter * np.eye(2)) / (m + strength)
            fit = np.log(m / 40) - 0.5 * np.linalg.slogdet(covariance)[1]
            scores[start, task] += m * fit - 3 * np.log(40)
    best = scores.argmax(axis=0)
    assert len(set(best)) > 1
    expected = [answers[start][task] for task, start in enumerate(best)]
    np.testing.assert_allclose(to_numpy(several(x)), expected, rtol=1e-3, atol=1e-2)


def test_of_starts_that_are_as_good_the_first_is_taken():
    logits = np.arange(6.0).reshape(3, 2, 1, 1)  # three starts of two sets
    evidence = np.array([[-5000.0, -7.0], [-5000.001, -6.0], [-4999.999, -6.00001]])
    best = gaussians.best_start(
        keras.ops.convert_to_tensor(logits.reshape(6, 1, 1)),
        keras.ops.convert_to_tensor(evidence.reshape(6)),
        3,
    )
    np.testing.assert_array_equal(to_numpy(best).ravel(), [0.0, 3.0])


def test_a_start_without_evidence_is_taken_only_where_none_has_any():
    logits = np.array([[[1.0, np.nan]], [[2.0, 4.0]], [[3.0, 5.0]]])  # three starts of two sets
    evidence = np.array([[np.nan, np.nan], [-7.0, np.nan], [-6.0, -np.inf]])
    best = gaussians.best_start(
        keras.ops.convert_to_tensor(logits.reshape(6, 1, 1)),
        keras.ops.convert_to_tensor(evidence.reshape(6)),
        3,
    )
    np.testing.assert_array_equal(to_numpy(best).ravel(), [3.0, np.nan])


@pytest.mark.parametrize("criterion", ["evidence", "icl"])
def test_points_that_are_nan_are_in_no_slot(criterion):
    """Zeros as logits would be an answer: all points in one slot."""
    x = np.random.default_rng(0).normal(size=(2, 9, 2)).astype("float32")
    x[0, 3] = np.nan
    layer = layers.SlotRefinement(
        3, units=4, iterations=1, em_steps=1, num_starts=2, criterion=criterion
    )
    logits = to_numpy(layer(x))
    assert np.isnan(logits[0]).all() and np.isfinite(logits[1]).all()


def test_points_far_from_zero():
    """Their moments have no digits for a variance: no answer, but numbers."""
    x = np.random.default_rng(0).normal(size=(8, 9, 2)).astype("float32") + 1e4
    logits = to_numpy(layers.SlotRefinement(6, units=4, iterations=2, em_steps=1)(x))
    assert np.isfinite(logits).all()


def test_gaussians_without_entities_cost_nothing():
    share, size, likelihood = ([[1.0, 1e-4]], [[100.0]], [-7.0])
    evidence = gaussians.log_evidence(
        *map(keras.ops.convert_to_tensor, (likelihood, share, size)), 2
    )
    assert float(evidence[0]) == pytest.approx(-7 - 3 * np.log(100), rel=1e-6)


def test_a_square_cut_in_two_is_no_better_than_the_square():
    x = np.random.default_rng(0).uniform(size=(1, 20_000, 2)).astype("float32")
    counts, size = keras.ops.ones((1, 1, 20_000)), keras.ops.full((1, 1), 20_000.0)
    basis = gaussians.monomials(keras.ops.convert_to_tensor(x))
    values = {}
    for name, cut in {"square": np.zeros(20_000), "halves": x[0, :, 0] > 0.5}.items():
        shares = keras.ops.convert_to_tensor(np.eye(2, dtype="float32")[cut.astype(int)].T[None])
        mass, mean, covariance = gaussians.of_moments(shares @ basis, 0.0, 1e-9)
        share, factor = mass / 20_000 + 1e-9, gaussians.cholesky(covariance, 2)
        values[name] = [
            float(to_numpy(value)[0]) / 20_000
            for value in (
                gaussians.classification_likelihood(share, mean, factor, size),
                gaussians.log_evidence(
                    gaussians.log_likelihood(share, mean, factor, basis, counts), share, size, 2
                ),
            )
        ]
    likelihood, evidence = np.subtract(values["halves"], values["square"])
    assert abs(likelihood) < 0.01 and evidence > 0.05


@pytest.mark.parametrize("features", [1, 2, 3])
def test_principal_axes(features):
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(3, 50, features)) * [3.0, 1.5, 0.5][:features]
    turn = np.linalg.qr(rng.normal(size=(features, features)))[0]
    layer = layers.PrincipalAxes(dtype="float64")
    y = to_numpy(layer(x))
    tolerance = 1e-6 if y.dtype == "float64" else 1e-4  # JAX has no float64 by default
    np.testing.assert_allclose(y, to_numpy(layer(1000 * x @ turn + 5000)), atol=tolerance)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=tolerance)
    covariance = np.swapaxes(y, 1, 2) @ y / 50
    variances = np.einsum("bii->bi", covariance)
    np.testing.assert_allclose(covariance, variances[:, None] * np.eye(features), atol=tolerance)
    np.testing.assert_allclose(variances.mean(axis=1), 1, atol=1e-5)
    assert (np.diff(variances, axis=1) < 0).all() and ((y**3).mean(axis=1) > 0).all()


def test_a_set_without_extent_has_no_axes():
    y = to_numpy(layers.PrincipalAxes()(np.full((1, 9, 2), 1234567.0, "float32")))
    assert (y == 0).all()


def test_the_loss_of_several_steps():
    """Half of it is the last step, matched; the others follow its matching."""
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, (2, 9)), rng.normal(size=(2, 4, 9, 3)).astype("float32")
    scores[:, -1] += 5 * np.eye(3)[(labels + 1) % 3]  # so the matching is known
    log_p = np.log(softmax(scores))
    chosen = np.take_along_axis(log_p, ((labels + 1) % 3)[:, None, :, None], axis=-1)[..., 0]
    each = -chosen.mean(axis=2)
    expected = (each[:, -1] + each[:, :-1].mean(axis=1)) / 2
    loss = losses.MatchedCrossentropy(reduction=None)(labels, scores)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-5)
    for metric in (metrics.MatchedAccuracy(), metrics.AdjustedRandIndex()):
        metric.update_state(labels, scores)
        last = type(metric)()
        last.update_state(labels, scores[:, -1])
        assert float(metric.result()) == float(last.result())


def test_the_shipped_network_knows_no_unit_order_or_direction():
    network = models.load_pretrained("clustering_2d_protocol")
    tasks = data.generate_tasks(12, seed=5, entities=(200, 200))
    points = tasks.points.reshape(12, 200, 2)
    mask = np.ones((12, 200), bool)

    def labels(points):
        logits = network.predict_on_batch({"entities": points.astype("float32"), "mask": mask})
        return to_numpy(logits).argmax(axis=-1)

    def agreement(other):
        return np.mean([adjusted_rand_score(*pair) for pair in zip(expected, other, strict=True)])

    expected = labels(points)
    assert agreement(labels(1000.0 * points + 5000)) > 0.98
    assert agreement(labels(points[:, ::-1])[:, ::-1]) > 0.99
    for angle in (0.3, 2.0, 4.5):
        turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        assert agreement(labels(points @ np.array(turn))) > 0.98


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_slots": 0}, "`num_slots`"),
        ({"iterations": 0}, "`iterations`"),
        ({"em_steps": -1}, "`em_steps`"),
        ({"gradient_damping": 1.0}, "`gradient_damping`"),
        ({"num_starts": 0}, "`num_starts`"),
        ({"scatter": 0.0}, "`scatter`"),
        ({"criterion": "bic"}, "`criterion`"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        layers.SlotRefinement(**{"num_slots": 3, **options})
