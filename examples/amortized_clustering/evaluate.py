"""Scores of the network, of classical methods and of the oracle on the same tasks."""

import dataclasses
import warnings

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from examples.amortized_clustering.data import MAX_CLUSTERS
from examples.amortized_clustering.data import posterior


@dataclasses.dataclass(frozen=True)
class Score:
    """Means over tasks with their standard errors; cross entropy in nats a point."""

    method: str
    cross_entropy: tuple | None
    accuracy: tuple
    ari: tuple


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


def score(method, tasks, predictions):
    """A `Score` from one array a task: log probabilities `(n, 10)` or labels `(n,)`."""
    entropies, accuracies, indices = [], [], []
    for t, prediction in enumerate(predictions):
        labels = tasks.labels[tasks.offsets[t] : tasks.offsets[t + 1]]
        predicted = prediction
        if prediction.ndim == 2:
            entropies.append(matched_cross_entropy(labels, prediction))
            predicted = prediction.argmax(axis=1)
        accuracies.append(np.mean(match(labels, predicted)[predicted] == labels))
        indices.append(adjusted_rand_score(labels, predicted))

    def summary(values):
        return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))

    return Score(
        method, summary(entropies) if entropies else None, summary(accuracies), summary(indices)
    )


def task_points(tasks):
    return [tasks.points[a:b] for a, b in zip(tasks.offsets, tasks.offsets[1:], strict=False)]


def network_predictions(model, tasks, batch_size=20):
    """Log probabilities of the network for every task, padded and batched by size."""
    predictions = [None] * len(tasks)
    order = np.argsort(tasks.sizes, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        # Few shapes, so that a compiling backend compiles a few times only.
        size = int(-(-tasks.sizes[chosen].max() // 250) * 250)
        filled = np.resize(chosen, batch_size)
        points, mask, _ = tasks.padded(filled, size)
        logits = model.predict_on_batch({"entities": points, "mask": mask})
        for row, t in enumerate(chosen):
            logit = np.asarray(logits[row, : tasks.sizes[t]], "float64")
            shift = logit.max(axis=1, keepdims=True)
            log_sum = np.log(np.exp(logit - shift).sum(axis=1, keepdims=True))
            predictions[t] = logit - shift - log_sum
    return predictions


def kmeans_predictions(tasks, seed=0):
    """k-means with ten restarts, given the true number of clusters."""
    return [
        KMeans(k, n_init=10, random_state=seed).fit_predict(points)
        for k, points in zip(tasks.clusters, task_points(tasks), strict=True)
    ]


def mixture_predictions(tasks, seed=0):
    """A Gaussian mixture with full covariances, given the true number of clusters."""
    predictions = []
    for k, points in zip(tasks.clusters, task_points(tasks), strict=True):
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


def oracle_predictions(tasks):
    """The posterior under the mixture that generated each task."""
    return [
        posterior(tasks, np.array([t]), points[None])[0]
        for t, points in enumerate(task_points(tasks))
    ]


def compare(name, model, tasks, seed=0):
    """The table's rows: network, k-means, Gaussian mixture, oracle."""
    return [
        score(name, tasks, network_predictions(model, tasks)),
        score("k-means, true k", tasks, kmeans_predictions(tasks, seed)),
        score("Gaussian mixture, true k", tasks, mixture_predictions(tasks, seed)),
        score("oracle", tasks, oracle_predictions(tasks)),
    ]


def table(scores, count):
    """The scores as text."""
    width = max(len(s.method) for s in scores)
    lines = [
        f"{count} fresh tasks, mean ± standard error; cross entropy in nats a point",
        f"{'':{width}}  {'cross entropy':>15}  {'accuracy':>15}  {'ARI':>15}",
    ]
    for s in scores:
        cells = [
            "-" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"
            for value in (s.cross_entropy, s.accuracy, s.ari)
        ]
        lines.append(f"{s.method:{width}}  " + "  ".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)
