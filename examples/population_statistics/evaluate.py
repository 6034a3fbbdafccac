"""References: a kernel method, and estimates that are told what the statistic is."""

import warnings

import numpy as np

from examples.population_statistics.data import PARAMETERS
from examples.population_statistics.data import family
from examples.population_statistics.data import statistic

FEATURES = 300
GRID = 4000


def plug_in(task, samples):
    """The statistic of the covariance of the samples, `(sets, 1)`: it knows the formula."""
    covariance = np.stack([points.T.astype("float64") @ points / len(points) for points in samples])
    return statistic(task, covariance)[:, None]


def posterior(task, seed, samples, grid=GRID):
    """The posterior mean of the statistic, `(sets, 1)`: it knows how the sets are drawn.

    No estimate has a smaller mean square error.

    Args:
        task: One whose covariances differ in one number, a key of `data.PARAMETERS`.
        seed: Of what all sets of the task have in common.
        samples: List of arrays `(n_i, d)`.
        grid: How many values of the number the integral is a sum over.
    """
    low, high = PARAMETERS[task]
    # Denser towards the ends, where the statistic changes most: the number is a sigmoid of t.
    t = np.linspace(-16, 16, grid)
    share = 1 / (1 + np.exp(-t))
    covariance = family(task, seed, low + (high - low) * share)
    targets, precision = statistic(task, covariance), np.linalg.inv(covariance)
    log_determinant = np.linalg.slogdet(covariance)[1]
    moments = np.stack([points.T.astype("float64") @ points for points in samples])
    count = np.array([[len(points)] for points in samples])
    distance = moments.reshape(len(samples), -1) @ precision.reshape(grid, -1).T
    log_weights = -0.5 * (count * log_determinant + distance) + np.log(share * (1 - share))
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return (weights @ targets / weights.sum(axis=1))[:, None]


def kernel(training, test, seed):
    """Kernel ridge regression on sets, which are compared by their mean embeddings.

    A Gaussian kernel compares samples, by random Fourier features. Another compares the means
    of these over the sets. Cross-validation over the training sets chooses its width and the
    strength of the ridge.

    Args:
        training: Pair of samples and standardized targets.
        test: Samples.
        seed: Of the features.

    Returns:
        Standardized predictions, `(sets, 1)`.
    """
    from scipy.linalg import LinAlgWarning
    from sklearn.kernel_approximation import RBFSampler
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    samples, targets = training
    variance = np.mean([np.var(points) for points in samples])
    # The usual width: that of a typical distance between two samples.
    gamma = 1 / (2 * variance * samples[0].shape[1])
    sampler = RBFSampler(gamma=gamma, n_components=FEATURES, random_state=seed).fit(samples[0])
    means, test_means = (
        np.stack([sampler.transform(points).mean(axis=0) for points in sets])
        for sets in (samples, test)
    )
    distance = 2 * np.mean(np.var(means, axis=0)) * FEATURES
    choices = {"alpha": [1e-5, 1e-3, 1e-1], "gamma": [0.1 / distance, 1 / distance, 10 / distance]}
    with warnings.catch_warnings():
        # The smallest ridge may be too small for some width, which is then not chosen.
        warnings.simplefilter("ignore", LinAlgWarning)
        search = GridSearchCV(KernelRidge(kernel="rbf"), choices, cv=3).fit(means, targets)
    return search.predict(test_means)
