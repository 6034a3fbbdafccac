"""EM with the prior of the protocol, for a number of clusters that is known or unknown.

The best that a classical method can do with these tasks: it knows everything about them but
their parameters. For every number of clusters EM climbs to a mode of the posterior from
several starts; Laplace's approximation around the best mode gives the evidence of that
number, and the number of the largest evidence is taken.
"""

import math

import numpy as np
from scipy.special import logsumexp
from scipy.special import multigammaln

from examples.amortized_clustering.data import COVARIANCE_SCALE
from examples.amortized_clustering.data import DEGREES_OF_FREEDOM
from examples.amortized_clustering.data import DIMENSIONS
from examples.amortized_clustering.data import MAX_CLUSTERS

SCALE = COVARIANCE_SCALE * np.eye(DIMENSIONS)


def map_em(points, clusters=None, restarts=10, steps=200, seed=0):
    """Log posteriors `(n, 10)` of the clusters; unused ones are -inf.

    Args:
        points: `(n, 2)`.
        clusters: The number of clusters; by default the most likely one of 3 to 10.
        restarts: Starts of EM for every number.
        steps: Most steps of EM.
        seed: Seed of the starts.
    """
    points = np.asarray(points, "float64")
    rng = np.random.default_rng(seed)
    numbers = range(3, MAX_CLUSTERS + 1) if clusters is None else [clusters]
    fits = []
    for number in numbers:
        means, covariances, objective = _climb(points, number, restarts, steps, rng)
        best = objective.argmax()
        fits.append((means[best], covariances[best]))
    evidences = [log_evidence(points, *fit) for fit in fits] if len(fits) > 1 else [0.0]
    logs = log_densities(points, *fits[int(np.argmax(evidences))])
    result = np.full((len(points), MAX_CLUSTERS), -np.inf)
    result[:, : logs.shape[1]] = logs - logsumexp(logs, axis=1, keepdims=True)
    return result


def features(points):
    """What the logarithm of a Gaussian is linear in: 1, x, y, x^2, xy, yx, y^2."""
    outer = (points[:, :, None] * points[:, None]).reshape(len(points), -1)
    return np.concatenate([np.ones((len(points), 1)), points, outer], axis=1)


def log_densities(points, means, covariances):
    """Of Gaussians, `(n, *k)`, for means `(*k, 2)`: one matrix product."""
    return np.moveaxis(_coefficients(means, covariances) @ features(points).T, -1, 0)


def _coefficients(means, covariances):
    precisions = np.linalg.inv(covariances)
    linear = (precisions @ means[..., None])[..., 0]
    constant = -0.5 * (
        (linear * means).sum(axis=-1)
        + np.linalg.slogdet(covariances)[1]
        + means.shape[-1] * np.log(2 * np.pi)
    )
    quadratic = -0.5 * precisions.reshape(*precisions.shape[:-2], -1)
    return np.concatenate([constant[..., None], linear, quadratic], axis=-1)


def log_prior(means, covariances):
    """Of every cluster, `(*k,)`."""
    d, freedom = DIMENSIONS, DEGREES_OF_FREEDOM
    normal = -0.5 * np.square(means).sum(axis=-1) - d / 2 * np.log(2 * np.pi)
    constant = freedom / 2 * (np.linalg.slogdet(SCALE)[1] - d * np.log(2))
    constant -= multigammaln(freedom / 2, d)
    traces = np.trace(SCALE @ np.linalg.inv(covariances), axis1=-2, axis2=-1)
    wishart = -(freedom + d + 1) / 2 * np.linalg.slogdet(covariances)[1] - traces / 2
    return normal + constant + wishart


def _climb(points, number, restarts, steps, rng, tolerance=1e-4):
    """Means `(restarts, number, 2)`, covariances and the objective `(restarts,)`.

    The mode is that of the density in the coordinates of `information`.
    """
    x = features(points)
    means = _spread_out(points, number, restarts, rng)
    covariances = np.broadcast_to(SCALE, (restarts, number, DIMENSIONS, DIMENSIONS)).copy()
    objective = np.full(restarts, -np.inf)
    active = np.arange(restarts)
    identity = np.eye(DIMENSIONS)
    for _ in range(steps):
        m, c = means[active], covariances[active]
        logs = _coefficients(m, c) @ x.T
        shift = logs.max(axis=1, keepdims=True)
        shared = np.exp(logs - shift)
        total = shared.sum(axis=1, keepdims=True)
        shared /= total
        likelihood = (np.log(total) + shift).sum(axis=(1, 2)) - len(points) * np.log(number)
        measure = (DIMENSIONS + 1) / 2 * np.linalg.slogdet(c)[1]
        value = likelihood + (log_prior(m, c) + measure).sum(axis=1)
        rises = value > objective[active] + tolerance
        objective[active] = value
        if not rises.any():
            break
        active, m, c, shared = active[rises], m[rises], c[rises], shared[rises]
        sums = shared @ x
        counts, first = sums[..., :1], sums[..., 1 : 1 + DIMENSIONS]
        second = sums[..., 1 + DIMENSIONS :].reshape(c.shape)
        precisions = np.linalg.inv(c)
        total_precision = counts[..., None] * precisions + identity
        m = np.linalg.solve(total_precision, precisions @ first[..., None])[..., 0]
        cross = first[..., :, None] * m[..., None, :]
        scatter = second - cross - np.swapaxes(cross, -1, -2)
        scatter = scatter + counts[..., None] * m[..., :, None] * m[..., None, :]
        means[active] = m
        covariances[active] = (scatter + SCALE) / (counts[..., None] + DEGREES_OF_FREEDOM)
    return means, covariances, objective


def _spread_out(points, number, restarts, rng):
    """Starting centres as k-means++ draws them, `(restarts, number, 2)`."""
    chosen = points[rng.integers(0, len(points), (restarts, 1))]
    nearest = np.full((restarts, len(points)), np.inf)
    for _ in range(number - 1):
        squared = np.square(points - chosen[:, -1:]).sum(axis=-1)
        nearest = np.minimum(nearest, squared)
        edges = np.cumsum(nearest, axis=1)
        target = rng.random((restarts, 1)) * edges[:, -1:]
        index = np.minimum((edges < target).sum(axis=1), len(points) - 1)
        chosen = np.concatenate([chosen, points[index][:, None]], axis=1)
    return chosen


def log_evidence(points, means, covariances):
    """Laplace's approximation of log p(points | number of clusters)."""
    number, d = means.shape
    log_total = logsumexp(log_densities(points, means, covariances), axis=1)
    sign, log_determinant = np.linalg.slogdet(information(points, means, covariances))
    if sign <= 0:
        return -np.inf  # not a mode
    # dm = |F| du and dS = |S|^((d + 1) / 2) dA
    measure = (d + 2) / 2 * np.linalg.slogdet(covariances)[1]
    return (
        log_total.sum()
        - len(points) * np.log(number)
        + (log_prior(means, covariances) + measure).sum()
        + 5 * number / 2 * np.log(2 * np.pi)
        - log_determinant / 2
        + math.lgamma(number + 1)
    )


def information(points, means, covariances):
    """Minus the second derivatives of the log posterior, `(5 k, 5 k)`.

    Coordinates around the mode: a mean is m + F u and a covariance F exp(A) F^T, where
    F F^T is the covariance of the mode and A is symmetric. The second derivatives are those
    of the complete data less the covariance of their first derivatives (Louis, 1982).
    """
    number, d = means.shape
    factors = np.linalg.cholesky(covariances)
    logs = log_densities(points, means, covariances)
    shared = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    z = np.linalg.solve(factors, np.moveaxis(points[:, None] - means, 0, -1))  # (k, 2, n)
    one, two = z[:, 0].T, z[:, 1].T
    # In the order u_1, u_2, a_11, a_12, a_22.
    slopes = np.stack([one, two, (one**2 - 1) / 2, one * two, (two**2 - 1) / 2], axis=-1)
    weighted = (shared[..., None] * slopes).reshape(len(points), -1)
    information = (weighted.T @ weighted).reshape(number, 5, number, 5)

    inverse = np.linalg.inv(factors)
    counts = shared.sum(axis=0)
    mean_z = np.einsum("nk,kdn->kd", shared, z)
    products = np.einsum("nk,kdn,ken->kde", shared, z, z, optimize=True)
    products += inverse @ SCALE @ np.swapaxes(inverse, -1, -2)
    blocks = np.zeros((number, 5, 5))
    blocks[:, :2, :2] = counts[:, None, None] * np.eye(d)
    blocks[:, :2, :2] += np.swapaxes(factors, -1, -2) @ factors
    blocks[:, 0, 2] = blocks[:, 1, 3] = mean_z[:, 0]
    blocks[:, 0, 3] = blocks[:, 1, 4] = mean_z[:, 1]
    blocks[:, 2, 2], blocks[:, 4, 4] = products[:, 0, 0] / 2, products[:, 1, 1] / 2
    blocks[:, 3, 3] = blocks[:, 2, 2] + blocks[:, 4, 4]
    blocks[:, 2, 3] = blocks[:, 3, 4] = products[:, 0, 1] / 2
    blocks = np.triu(blocks) + np.swapaxes(np.triu(blocks, 1), -1, -2)
    blocks -= np.einsum("nk,nka,nkb->kab", shared, slopes, slopes, optimize=True)
    information[np.arange(number), :, np.arange(number)] += blocks

    return information.reshape(5 * number, -1)
