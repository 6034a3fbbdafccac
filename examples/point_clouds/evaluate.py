"""Accuracies, and a reference: gradient boosting on summaries of every set."""

import time

import numpy as np

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def summaries(sets):
    """What is usually computed of a set: `(sets, 10 d + d (d - 1) / 2 + 1)` for d features.

    Number of points; mean, standard deviation, least, largest and five quantiles of every
    feature; covariances. Those of an empty set are 0.
    """
    return np.stack([_summary(np.asarray(points, "float64")) for points in sets])


def _summary(points):
    count, features = points.shape
    if not count:
        points = np.zeros((1, features))
    ordered = np.sort(points, axis=0)
    place = np.array(QUANTILES) * (len(points) - 1)
    lower = place.astype(int)
    upper = np.minimum(lower + 1, len(points) - 1)
    # As `np.quantile`, at a tenth of its time.
    quantiles = ordered[lower] + (place - lower)[:, None] * (ordered[upper] - ordered[lower])
    mean = points.mean(axis=0)
    covariance = (points - mean).T @ (points - mean) / len(points)
    spread = np.sqrt(np.diag(covariance))
    pairs = covariance[np.triu_indices(features, 1)]
    return np.concatenate(
        [[count], mean, spread, ordered[0], ordered[-1], quantiles.ravel(), pairs]
    )


def boosting(data, seed):
    """Classes that gradient boosting predicts for the test sets, and the minutes it took."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    start = time.monotonic()
    sets, labels = data.training
    model = HistGradientBoostingClassifier(random_state=seed).fit(summaries(sets), labels)
    predicted = model.predict(summaries(data.test[0]))
    return predicted, (time.monotonic() - start) / 60


def score(method, predicted, labels, minutes, model=None):
    """The row of a method in the final table."""
    accuracy = float(np.mean(predicted == labels))
    return {
        "method": method,
        "sets": len(labels),
        "accuracy": accuracy,
        "error": float(np.sqrt(accuracy * (1 - accuracy) / len(labels))),
        "minutes": minutes,
        "parameters": None if model is None else model.count_params(),
    }
