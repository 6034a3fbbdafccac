"""Scores of the network, of classical methods and of the oracle on the same tasks."""

import dataclasses
import time
import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from examples.amortized_clustering.data import MAX_CLUSTERS
from examples.amortized_clustering.data import PADDING
from examples.amortized_clustering.data import posterior
from examples.amortized_clustering.map_em import map_em
from examples.common import devices


@dataclasses.dataclass(frozen=True)
class Score:
    """Means over tasks with their standard errors; cross entropy in nats a point.

    `right_number` is the share of tasks in which the method found as many clusters as there
    are; None where it was told. `milliseconds` is the time a task, where it was measured.
    """

    method: str
    cross_entropy: tuple | None
    accuracy: tuple
    ari: tuple
    right_number: tuple | None = None
    milliseconds: float | None = None


def contingency(true, predicted):
    table = np.zeros((MAX_CLUSTERS, MAX_CLUSTERS))
    np.add.at(table, (true, predicted), 1)
    return table


def match(labels, predicted):
    """The true label that belongs to every predicted one under the best matching."""
    rows, columns = linear_sum_assignment(-contingency(labels, predicted))
    matching = np.empty(MAX_CLUSTERS, "int64")
    matching[columns] = rows
    return matching


def matched_cross_entropy(labels, log_p):
    """Mean of -log p in nats under the best matching of labels; an independent route."""
    cost = np.zeros((MAX_CLUSTERS, MAX_CLUSTERS))
    # A finite stand-in: clusters that a method does not use have log p = -inf.
    np.add.at(cost, labels, -np.maximum(log_p, -1e4))
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].sum() / len(labels)


def score(method, tasks, predictions, told=False, milliseconds=None):
    """A `Score` from one array a task: log probabilities `(n, 10)` or labels `(n,)`.

    Points of no cluster do not count. `told` says that the method knew the number of clusters.
    """
    entropies, accuracies, indices, right = [], [], [], []
    for t, prediction in enumerate(predictions):
        labels = tasks.labels[tasks.offsets[t] : tasks.offsets[t + 1]]
        known = labels != PADDING
        labels, predicted = labels[known], prediction[known]
        if predicted.ndim == 2:
            entropies.append(matched_cross_entropy(labels, predicted))
            predicted = predicted.argmax(axis=1)
        accuracies.append(np.mean(match(labels, predicted)[predicted] == labels))
        indices.append(adjusted_rand_score(labels, predicted))
        right.append(len(np.unique(predicted)) == len(np.unique(labels)))

    def summary(values):
        return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))

    return Score(
        method,
        summary(entropies) if entropies else None,
        summary(accuracies),
        summary(indices),
        None if told else summary(right),
        milliseconds,
    )


def timed_score(method, tasks, predict, told=False):
    """The `Score` of what `predict(tasks)` returns, with the time that it takes, and that."""
    start = time.perf_counter()
    predictions = predict(tasks)
    milliseconds = 1000 * (time.perf_counter() - start) / len(tasks)
    return score(method, tasks, predictions, told, milliseconds), predictions


def task_points(tasks):
    return [tasks.points[a:b] for a, b in zip(tasks.offsets, tasks.offsets[1:], strict=False)]


def network_predictions(model, tasks, batch_size=20, step=250):
    """Log probabilities of the network for every task, batched by size, padded to steps of it."""
    predictions = [None] * len(tasks)
    order = np.argsort(tasks.sizes, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        # Few shapes, so that a compiling backend compiles a few times only.
        size = int(-(-tasks.sizes[chosen].max() // step) * step)
        filled = np.resize(chosen, batch_size)
        points, mask, _ = tasks.padded(filled, size)
        logits = devices.predict_once(model, {"entities": points, "mask": mask})
        for row, t in enumerate(chosen):
            logit = np.asarray(logits[row, : tasks.sizes[t]], "float64")
            shift = logit.max(axis=1, keepdims=True)
            log_sum = np.log(np.exp(logit - shift).sum(axis=1, keepdims=True))
            predictions[t] = logit - shift - log_sum
    return predictions


def standardised_points(tasks):
    """The points of every task around 0 and of variance 1, in float64, for mixtures."""
    for points in task_points(tasks):
        points = points - points.mean(axis=0, dtype="float64")
        yield points / (np.sqrt(np.square(points).mean()) or 1.0)


def kmeans_predictions(tasks, seed=0):
    """k-means with ten restarts, given the true number of clusters."""
    return [
        KMeans(k, n_init=10, random_state=seed).fit_predict(points)
        for k, points in zip(tasks.clusters, standardised_points(tasks), strict=True)
    ]


def mixture_predictions(tasks, seed=0):
    """A Gaussian mixture with full covariances, given the true number of clusters."""
    predictions = []
    for k, points in zip(tasks.clusters, standardised_points(tasks), strict=True):
        mixture = GaussianMixture(k, n_init=3, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EM that has not converged is still an answer
            mixture.fit(points)
        log_p = np.full((len(points), MAX_CLUSTERS), -np.inf)
        # Not the logarithm of `predict_proba`, which rounds small probabilities to zero.
        for j in range(k):
            component = multivariate_normal(mixture.means_[j], mixture.covariances_[j])
            log_p[:, j] = np.log(mixture.weights_[j]) + component.logpdf(points)
        predictions.append(log_p - logsumexp(log_p, axis=1, keepdims=True))
    return predictions


def mixture_by_bic_predictions(tasks, seed=0):
    """Labels of the Gaussian mixture of 1 to 10 components that has the lowest BIC."""
    predictions = []
    for points in standardised_points(tasks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mixtures = [
                GaussianMixture(k, n_init=3, random_state=seed).fit(points)
                for k in range(1, MAX_CLUSTERS + 1)
            ]
            best = min(mixtures, key=lambda mixture: mixture.bic(points))
        predictions.append(best.predict(points))
    return predictions


def map_em_predictions(tasks, seed=0):
    """Labels of EM with the prior of the protocol; finds the number of clusters itself."""
    return [map_em(points, seed=seed).argmax(axis=1) for points in task_points(tasks)]


def oracle_predictions(tasks):
    """The posterior under the mixture that generated each task."""
    return [
        posterior(tasks, np.array([t]), points[None])[0]
        for t, points in enumerate(task_points(tasks))
    ]


def compare(name, model, tasks, seed=0, slow_tasks=0):
    """The table's rows: network, k-means, Gaussian mixtures, EM with the prior, oracle.

    Methods that find the number of clusters by trying all of them take about a second a task:
    they see the first `slow_tasks` tasks only, and their names say how many. Rows that need
    the prior of the protocol are left out where the tasks do not come from it.

    Returns:
        The scores, and `{method: log probabilities}` of those methods that say how sure they are.
    """
    protocol = tasks.means is not None
    count = min(slow_tasks, len(tasks))
    # Whether a method is told the number of clusters, and whether it is slow.
    methods = {
        name: (lambda t: network_predictions(model, t), False, False),
        "k-means, true k": (lambda t: kmeans_predictions(t, seed), True, False),
        "Gaussian mixture, true k": (lambda t: mixture_predictions(t, seed), True, False),
    }
    if count:
        methods["Gaussian mixture, BIC"] = (
            lambda t: mixture_by_bic_predictions(t, seed),
            False,
            True,
        )
    if count and protocol:
        methods["EM with the prior"] = (lambda t: map_em_predictions(t, seed), False, True)
    if protocol:
        methods["oracle"] = (oracle_predictions, True, False)

    network_predictions(model, tasks)  # a backend may compile first
    scores, probabilities = [], {}
    for method, (predict, told, slow) in methods.items():
        part = slow and count < len(tasks)
        title = f"{method}, first {count}" if part else method
        shown = tasks.select(0, count) if part else tasks
        row, predictions = timed_score(title, shown, predict, told)
        scores.append(row)
        if predictions[0].ndim == 2:
            probabilities[method] = predictions
    return scores, probabilities


def table(scores, count):
    """The scores as text."""
    width = max(len(s.method) for s in scores)
    lines = [
        f"{count} fresh tasks, mean ± standard error; cross entropy in nats a point; right: "
        "share of tasks with the right number of clusters",
        f"{'':{width}}  {'cross entropy':>15}  {'accuracy':>15}  {'ARI':>15}  {'right':>13}  "
        "ms a task",
    ]
    for s in scores:
        cells = [
            "-" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"
            for value in (s.cross_entropy, s.accuracy, s.ari)
        ]
        number = "told"
        if s.right_number is not None:
            number = f"{s.right_number[0]:.3f} ± {s.right_number[1]:.3f}"
        speed = "-" if s.milliseconds is None else f"{s.milliseconds:.1f}"
        row = "  ".join(f"{cell:>15}" for cell in cells)
        lines.append(f"{s.method:{width}}  {row}  {number:>13}  {speed:>9}")
    return "\n".join(lines)
