"""Losses and metrics of labels: strange labels, infinite scores, weights of entities."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import losses
from keras_sets import metrics
from keras_sets import validation
from keras_sets.ops import linear_sum_assignment
from keras_sets.ops import matching
from keras_sets.testing import outputs_and_gradients

LABELS = np.array([[0, 1, 1, -1], [2, 2, 0, 1], [0, -1, -1, -1]])
SCORES = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")


class Traced:
    """A function that is compiled, and has nothing to be built outside the trace."""

    built = True

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


def expected_loss(labels, scores, weights=None, ignore_class=-1):
    """The least weighted mean cross entropy of every set over all permutations."""
    weights = np.ones(labels.shape) if weights is None else weights
    result = []
    with np.errstate(divide="ignore"):
        e = np.exp(scores.astype("float64") - scores.max(axis=-1, keepdims=True))
        log_p = np.log(e / e.sum(axis=-1, keepdims=True))
    for y, log_p_i, w in zip(labels, log_p, weights, strict=True):
        real = (y != ignore_class) & (w > 0)
        y, log_p_i, w = y[real].astype(int), log_p_i[real], w[real]
        orders = itertools.permutations(range(scores.shape[-1]))
        costs = [
            -(w * log_p_i[np.arange(len(y)), np.array(order)[y]]).sum() / max(w.sum(), 1e-9)
            for order in orders
        ]
        result.append(min(costs))
    return np.array(result)


def loss_and_gradient(labels, scores, weights=None, **options):
    loss = losses.MatchedCrossentropy(reduction=None, **options)
    (values,), gradient, _ = outputs_and_gradients(
        Traced(lambda s: loss(labels, s, weights)), scores, [np.ones(len(scores))]
    )
    return values, gradient


@pytest.fixture(params=["subsets", "shortest_paths"])
def algorithm(request, monkeypatch):
    if request.param == "shortest_paths":
        monkeypatch.setattr(matching, "SUBSET_LIMIT", 0)
        monkeypatch.setattr(matching, "_assign_on_host", lambda *arguments: None)


def test_scores_of_ignored_entities_do_not_reach_the_gradient():
    labels = np.array([[0, 1, -1, -1]])
    scores = np.array([[[1, 0], [0, 1], [np.nan, np.inf], [-np.inf, np.inf]]], "float32")
    values, gradient = loss_and_gradient(labels, scores)
    clean = np.where(np.isfinite(scores), scores, 0).astype("float32")
    expected, expected_gradient = loss_and_gradient(labels, clean)
    assert values == pytest.approx(np.log1p(np.exp(-1)))
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)
    for metric in (metrics.MatchedAccuracy(), metrics.AdjustedRandIndex()):
        metric.update_state(labels, scores)
        assert float(metric.result()) == 1.0


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64"])
def test_every_dtype_of_labels_goes_with_a_mask(dtype):
    labels = np.array([[0, 1, 1, 0], [1, 1, 0, 1]])
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 1]], bool)
    scores = np.where(mask[..., None], SCORES[:2, :, :2], 0)
    masked = keras.layers.Masking(0.0)(scores)
    expected = expected_loss(np.where(mask, labels, -1), scores).mean()
    assert float(losses.MatchedCrossentropy()(labels.astype(dtype), masked)) == pytest.approx(
        expected, rel=1e-5
    )
    for cls in (metrics.MatchedAccuracy, metrics.AdjustedRandIndex):
        metric, reference = cls(), cls()
        metric.update_state(labels.astype(dtype), masked)
        reference.update_state(np.where(mask, labels, -1), scores)
        assert float(metric.result()) == float(reference.result())


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_labels_beyond_the_classes(dtype, monkeypatch):
    """NaN where no check can see them; sets whose labels are right keep value and gradient."""
    labels = np.array([[7, 8, 0], [0, 1, 2]]).astype(dtype)
    scores = np.zeros((2, 3, 3), "float32")
    for consume in (losses.MatchedCrossentropy(), metrics.MatchedAccuracy().update_state):
        with pytest.raises(ValueError, match=r"in 0\.\.2.*2 of 6 labels are others.*first is 7"):
            consume(labels, scores)
        with pytest.raises(ValueError, match=r"1 of 6 labels are others, the first is 1\.5"):
            consume(np.array([[0, 1.5, 0], [0, 1, 2]]), scores)
    monkeypatch.setattr(validation, "visible_array", lambda x: None)
    values, gradient = loss_and_gradient(labels, scores)
    assert np.isnan(values[0])
    assert values[1] == pytest.approx(np.log(3))
    np.testing.assert_allclose(gradient[1].sum(axis=-1), 0, atol=1e-6)
    assert np.abs(gradient[1]).max() > 0.1
    for metric in (metrics.MatchedAccuracy(), metrics.AdjustedRandIndex()):
        metric.update_state(labels, scores)
        assert np.isnan(float(metric.result()))


def test_no_class_is_ignored():
    labels = np.array([[0, 1, 1, 0]])
    loss = losses.MatchedCrossentropy(ignore_class=None)
    assert float(loss(labels, SCORES[:1])) == pytest.approx(
        expected_loss(labels, SCORES[:1])[0], rel=1e-5
    )
    with pytest.raises(ValueError, match=r"in 0\.\.2, the classes of `y_pred`\. Received: 2 of"):
        loss(np.array([[0, 1, -1, -1]]), SCORES[:1])
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    metric = metrics.MatchedAccuracy(ignore_class=None)
    metric.update_state(labels, np.eye(3)[[[1, 0, 0, 1]]])
    assert float(metric.result()) == 1.0
    for wrong in (1.5, "-1", True):
        with pytest.raises(ValueError, match="`ignore_class`, expected an integer or None"):
            losses.MatchedCrossentropy(ignore_class=wrong)
        with pytest.raises(ValueError, match="`ignore_class`, expected an integer or None"):
            metrics.AdjustedRandIndex(ignore_class=wrong)


def test_probabilities_of_0():
    """As in Keras: as if they were its epsilon."""
    labels, p = np.array([[0, 0, 1]]), np.array([[[1, 0], [0, 1], [0, 1]]], "float32")
    values, gradient = loss_and_gradient(labels, p, from_logits=False)
    np.testing.assert_allclose(values, -np.log(keras.config.epsilon()) / 3, rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_classes_that_entities_cannot_have(algorithm):
    labels = np.array([[0, 1, 1, 0], [0, 1, 2, 2], [0, 0, 0, 0]])
    scores = SCORES.copy()
    scores[0, :, 2] = -np.inf
    scores[1, :2, 2] = -np.inf
    scores[2, 0, 0] = scores[2, 1, 1] = -np.inf
    values, gradient = loss_and_gradient(labels, scores)
    np.testing.assert_allclose(values, expected_loss(labels, scores), rtol=1e-5)
    assert np.isfinite(values).all() and np.isfinite(gradient).all()
    scores[2, 2, 2] = -np.inf  # every class is impossible for one of them
    values, gradient = loss_and_gradient(labels, scores)
    assert values[2] == np.inf and np.isfinite(values[:2]).all()
    assert np.isfinite(gradient).all()
    inf = np.inf
    costs = [[[inf, 1, 5], [1, inf, 7], [0, 0, inf]], [[inf, inf, inf], [1, 0, 5], [0, 9, 9]]]
    received = linear_sum_assignment(np.array(costs, "float32"))
    assert ops.convert_to_numpy(received).tolist() == [[2, 0, 1], [2, 1, 0]]


def test_weights_of_entities(algorithm, rng):
    """Fractions, absence by 0, and the matching that is best for the weighted mean."""
    labels, scores = LABELS[:, :4], SCORES
    weights = rng.random((3, 4)).astype("float32") * np.array([1, 1, 0, 1])
    weights[1] = [1e-3, 1, 1, 5]
    values, gradient = loss_and_gradient(labels, scores, weights)
    np.testing.assert_allclose(values, expected_loss(labels, scores, weights), rtol=1e-5)
    assert not gradient[weights == 0].any()
    counts = np.array([3, 1, 2, 0])
    repeated, _ = loss_and_gradient(
        np.repeat(labels, counts, axis=1), np.repeat(scores, counts, axis=1)
    )
    counted, _ = loss_and_gradient(labels, scores, np.tile(counts, (3, 1)))
    np.testing.assert_allclose(counted, repeated, rtol=1e-5)
    hidden = scores.copy()
    hidden[weights == 0] = np.nan
    received, dirty_gradient = loss_and_gradient(labels, hidden, weights)
    np.testing.assert_array_equal(received, values)
    np.testing.assert_array_equal(dirty_gradient, gradient)


def test_the_rank_of_weights_decides():
    """As many sets as entities: the weights of sets are not those of entities."""
    labels = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 1]])
    scores, sets = SCORES[:, :3], np.array([1.0, 0.0, 3.0])
    values = expected_loss(labels, scores)
    loss = losses.MatchedCrossentropy()
    assert float(loss(labels, scores, sets)) == pytest.approx((values * sets).mean(), rel=1e-5)
    weights = np.tile(sets, (3, 1))
    assert float(loss(labels, scores, weights)) == pytest.approx(
        expected_loss(labels, scores, weights).mean(), rel=1e-5
    )


def accuracy_of(labels, predicted, weights):
    best = 0.0
    for order in itertools.permutations(range(3)):
        best = max(best, (weights * (np.array(order)[labels] == predicted)).sum())
    return best / weights.sum()


def test_metrics_with_weights_of_entities(rng):
    labels, predicted = rng.integers(0, 3, size=(2, 4, 6))
    weights = rng.random((4, 6))
    weights[3] = 0
    metric = metrics.MatchedAccuracy()
    metric.update_state(labels, np.eye(3)[predicted], weights)
    expected = np.mean([accuracy_of(labels[i], predicted[i], weights[i]) for i in range(3)])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"AdjustedRandIndex.*`\(batch,\)`.*`ignore_class`"):
        metrics.AdjustedRandIndex().update_state(labels, np.eye(3)[predicted], weights)


def test_pairs_of_entities_that_a_weight_of_0_leaves_out(rng):
    """As `SetDataset` weights padding, whose labels are 0."""
    labels, predicted = (
        np.array([[0, 0, 1, 1, 0], [2, 2, 0, 0, 0]]),
        np.array([[0, 0, 1, 2, 0]] * 2),
    )
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    for weights in (mask, mask.astype(bool), mask.astype("float32")):
        metric = metrics.AdjustedRandIndex()
        metric.update_state(labels, np.eye(3)[predicted], weights)
        # Pairs of four: 1 together, 2 and 1 in the partitions, 2 * 1 / 6 by chance.
        expected = (1 - 1 / 3) / (3 / 2 - 1 / 3)
        assert float(metric.result()) == pytest.approx((expected + 1) / 2, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_weights_of_entities_in_fit(backend, jit_compile):
    if jit_compile and backend == "torch":
        pytest.skip("torch's compiler is experimental in Keras")
    labels = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 1]])
    weights = np.array([[1, 2, 0], [0.5, 1, 1], [0, 0, 0]])
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(
        "sgd",
        losses.MatchedCrossentropy(),
        weighted_metrics=[metrics.MatchedAccuracy()],
        jit_compile=jit_compile,
    )
    scores = SCORES[:, :3]
    received = model.evaluate(scores, labels, sample_weight=weights, verbose=0, return_dict=True)
    expected = expected_loss(labels, scores, weights)
    assert received["loss"] == pytest.approx(expected.mean(), rel=1e-5)
    chosen = scores.argmax(axis=-1)
    accuracies = [accuracy_of(labels[i], chosen[i], weights[i]) for i in range(2)]
    assert received["matched_accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-5)


CONSUMERS = {
    "loss": lambda w: losses.MatchedCrossentropy()(LABELS, SCORES, w),
    "accuracy": lambda w: metrics.MatchedAccuracy()(LABELS, SCORES, w),
    "mixture": lambda w: losses.GaussianMixtureLoss()(
        SCORES[..., :1], np.zeros((3, 2, 3), "float32"), w
    ),
}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_weights_that_are_no_weights(consumer, monkeypatch):
    for shape in ((4,), (3, 1), (3, 5), (3, 4, 1)):
        with pytest.raises(ValueError, match=r"`sample_weight` of shape `\(batch, n\)` or\s+`\("):
            CONSUMERS[consumer](np.ones(shape))
    for wrong in (-1.0, np.nan):
        weights = np.ones((3, 4))
        weights[0, 0] = wrong
        with pytest.raises(ValueError, match=r"finite `sample_weight` >= 0.*1 of 12"):
            CONSUMERS[consumer](weights)
    monkeypatch.setattr(validation, "visible_array", lambda x: None)
    received = CONSUMERS[consumer](weights)
    assert np.isnan(float(received))


def test_a_batch_of_no_sets():
    loss = losses.MatchedCrossentropy()
    assert float(loss(LABELS[:0], SCORES[:0])) == 0
    values, gradient = loss_and_gradient(LABELS[:0], SCORES[:0])
    assert values.shape == (0,) and gradient.shape == (0, 4, 3)
    assert float(losses.GaussianMixtureLoss()(np.zeros((0, 4, 2)), np.zeros((0, 3, 5)))) == 0
    for metric in (metrics.MatchedAccuracy(), metrics.AdjustedRandIndex()):
        metric.update_state(LABELS[:0], SCORES[:0])
        assert float(metric.result()) == 0
