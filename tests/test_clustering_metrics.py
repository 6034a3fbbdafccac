"""Mutual information and F1 of labels that have no order, against scikit-learn."""

import itertools

import keras
import numpy as np
import pytest

from keras_sets import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def best_f1(labels, predicted, weights):
    """The largest macro average over all ways to name the predicted labels."""
    return max(
        sklearn_metrics.f1_score(
            labels, np.array(order)[predicted], average="macro", sample_weight=weights
        )
        for order in itertools.permutations(range(4))
    )


def mutual_information(labels, predicted, weights):
    """Whole weights are repetitions."""
    counts = weights.astype(int)
    return sklearn_metrics.normalized_mutual_info_score(
        np.repeat(labels, counts), np.repeat(predicted, counts)
    )


METRICS = {
    "nmi": (metrics.NormalizedMutualInformation, mutual_information),
    "f1": (metrics.MatchedF1, best_f1),
}
every_metric = pytest.mark.parametrize("name", METRICS)


def example(rng):
    labels, predicted = rng.integers(0, 4, size=(2, 8, 12))
    predicted[:2] = rng.permutation(4)[labels[:2]]
    labels[2], predicted[3], labels[3] = 0, 1, 2
    labels[4] = labels[4] % 2
    predicted[5] = predicted[5] % 2
    labels[6, 7:] = -1
    return labels, predicted


@every_metric
@pytest.mark.parametrize("weighted", [False, True])
def test_values(name, weighted, rng):
    make, reference = METRICS[name]
    labels, predicted = example(rng)
    weights = rng.integers(0, 4, size=labels.shape) if weighted else np.ones(labels.shape, int)
    expected = []
    for y, p, w in zip(labels, predicted, weights, strict=True):
        real = (y >= 0) & (w > 0)
        expected.append(reference(y[real], p[real], w[real]))
    metric = make()
    scores = np.eye(4, dtype="float32")[predicted]
    for i in range(len(labels)):
        metric.reset_state()
        metric.update_state(labels[i : i + 1], scores[i : i + 1], weights[i : i + 1])
        assert float(metric.result()) == pytest.approx(expected[i], abs=1e-5)
    metric.reset_state()
    metric.update_state(labels, scores, weights if weighted else None)
    assert float(metric.result()) == pytest.approx(np.mean(expected), abs=1e-5)
    sets = np.arange(8.0)
    if not weighted:
        metric.reset_state()
        metric.update_state(labels, scores, sets)
        mean = np.average(expected, weights=sets)
        assert float(metric.result()) == pytest.approx(mean, abs=1e-5)


@every_metric
def test_empty_sets_and_config(name):
    metric = METRICS[name][0](ignore_class=9)
    assert float(metric.result()) == 0
    labels = np.array([[0, 1, 1], [9, 9, 9]])
    metric.update_state(labels, np.eye(2)[[[1, 0, 0], [0, 0, 0]]])
    assert float(metric.result()) == pytest.approx(1, abs=1e-6)
    # Nor does the weight of an empty set count.
    metric.update_state(labels, np.eye(2)[[[1, 0, 0], [0, 0, 0]]], np.array([1.0, 2.0]))
    assert float(metric.result()) == pytest.approx(1, abs=1e-6)
    metric.update_state(labels[:0], np.zeros((0, 3, 2)))
    assert float(metric.result()) == pytest.approx(1, abs=1e-6)
    config = keras.metrics.serialize(metric)
    assert config["registered_name"].startswith("keras_sets>")
    assert keras.metrics.deserialize(config).get_config() == metric.get_config()


def test_by_hand():
    """Class 0 has labels 0 0 1, class 1 has label 1: F1 of 4 / 5 and of 2 / 3."""
    labels, scores = np.array([[0, 0, 0, 1]]), np.eye(2)[[[0, 0, 1, 1]]]
    f1, information = metrics.MatchedF1(), metrics.NormalizedMutualInformation()
    assert float(f1(labels, scores)) == pytest.approx((4 / 5 + 2 / 3) / 2, rel=1e-5)
    entropy = lambda *p: -sum(q * np.log(q) for q in p)  # noqa: E731
    held = entropy(3 / 4, 1 / 4) + entropy(1 / 2, 1 / 2)
    shared = held - entropy(1 / 2, 1 / 4, 1 / 4)
    assert float(information(labels, scores)) == pytest.approx(2 * shared / held, rel=1e-5)
