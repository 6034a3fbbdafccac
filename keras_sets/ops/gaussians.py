"""Gaussians of weighted sets, from their moments, for any number of dimensions.

A monomial basis makes both directions matrix products: the moments of many Gaussians at once
are `shares @ monomials(x)`, and the log densities of many points under them
`coefficients @ monomials(x)^T`. Matrices of d x d are small here, so that their Cholesky
factors are written out entry by entry: every backend differentiates, batches and exports them.
"""

import functools
import operator

import numpy as np
from keras import ops

from keras_sets.ops.entities import largest_over

# Below this a variance is rounding error.
LEAST_VARIANCE = 1e-12
# A logit that leaves others nothing.
CERTAIN = 100.0
# Evidences that differ by less, relative to the largest, are equal.
TIE = 1e-5


def monomials(x):
    """`(..., d)` to `(..., 1 + d + d (d + 1) / 2)`: 1, x_i, and x_i x_j for i <= j."""
    return ops.concatenate([ops.ones_like(x[..., :1]), x, outer_products(x)], axis=-1)


def monomial_count(d):
    """Width of `monomials` in d dimensions."""
    return 1 + d + d * (d + 1) // 2


def _places(d):
    """Where x_i x_j for i <= j stands among the products."""
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    return {pair: place for place, pair in enumerate(pairs)}


def _entries(packed, d):
    """A symmetric matrix as a nested list of tensors from its packed upper triangle."""
    places = _places(d)
    # Taken apart at once: the gradient of every slice would be an array of zeros around it.
    parts = ops.unstack(packed, axis=-1)
    return [[parts[places[min(i, j), max(i, j)]] for j in range(d)] for i in range(d)]


def _total(terms):
    """`sum(terms)` without the 0 to which that adds the first."""
    return functools.reduce(operator.add, terms)


def outer_products(x):
    """The packed upper triangle of `x x^T`, `(..., d (d + 1) / 2)`."""
    d = x.shape[-1]
    return ops.concatenate([x[..., i:] * x[..., i : i + 1] for i in range(d)], axis=-1)


def isotropic(variance, d):
    """The packed matrix of a scalar tensor times the identity."""
    identity = [float(i == j) for i in range(d) for j in range(i, d)]
    return variance * ops.cast(ops.convert_to_tensor(identity), variance.dtype)


def of_moments(moments, prior, strength, least=1e-4):
    """Masses, means and covariances from sums of monomials.

    Args:
        moments: `(..., m)`, sums of the monomials of some points, each times its share.
        prior: Packed matrix P, as of `isotropic`, `strength`: positive scalar s. Covariances are
            `(scatter + P) / (mass + s)`, the mode under an inverse Wishart prior.
        least: Mass below which a mean is drawn to 0.

    Returns:
        `(mass (...,), mean (..., d), covariance (..., d (d + 1) / 2))`, packed.
    """
    d = dimensions_of(moments.shape[-1])
    mass = moments[..., :1]
    safe = mass + least
    mean = moments[..., 1 : 1 + d] / safe
    # The scatter around the mean, mass times the covariance.
    scatter = moments[..., 1 + d :] - safe * outer_products(mean)
    covariance = (scatter + prior) / (safe + strength)
    return mass[..., 0], mean, covariance


def dimensions_of(count):
    """The d of `monomial_count(d) == count`."""
    d = 0
    while monomial_count(d) < count:
        d += 1
    return d


def cholesky(packed, d):
    """The lower factor of packed positive definite matrices, as nested lists of tensors."""
    a = _entries(packed, d)
    factor = [[None] * d for _ in range(d)]
    for i in range(d):
        for j in range(i + 1):
            rest = a[i][j]
            for k in range(j):
                rest = rest - factor[i][k] * factor[j][k]
            if i == j:
                factor[i][i] = ops.sqrt(ops.maximum(rest, LEAST_VARIANCE))
            else:
                factor[i][j] = rest / factor[j][j]
    return factor


def log_determinant(factor):
    """`log det A` from the Cholesky factor of A."""
    return 2 * _total(ops.log(factor[i][i]) for i in range(len(factor)))


def _inverse(factor):
    """The inverse of A from its Cholesky factor, as a nested list of tensors."""
    d = len(factor)
    # The inverse of the factor, column by column.
    inverse = [[None] * d for _ in range(d)]
    for j in range(d):
        inverse[j][j] = 1 / factor[j][j]
        for i in range(j + 1, d):
            total = _total(factor[i][k] * inverse[k][j] for k in range(j, i))
            inverse[i][j] = -total / factor[i][i]
    upper = {
        (i, j): _total(inverse[k][i] * inverse[k][j] for k in range(j, d))
        for i in range(d)
        for j in range(i, d)
    }
    return [[upper[min(i, j), max(i, j)] for j in range(d)] for i in range(d)]


def density_coefficients(mean, factor, log_size=None):
    """Log densities of Gaussians as coefficients `(..., m)` of the monomials.

    `coefficients @ monomials(x)` is the log density at x but for its constant,
    `-d/2 log(2 pi)`.

    Args:
        mean: `(..., d)`.
        factor: The Cholesky factors of the covariances, as of `cholesky`.
        log_size: `(..., 1)`, logarithms of what the covariances are multiplied with.
    """
    d = mean.shape[-1]
    rows = _inverse(factor)
    log_volume = log_determinant(factor)
    if log_size is not None:
        smaller = ops.exp(-log_size[..., 0])
        rows = [[entry * smaller for entry in row] for row in rows]
        log_volume = log_volume + d * log_size[..., 0]
    means = ops.unstack(mean, axis=-1)
    linear = [_total(rows[i][j] * means[j] for j in range(d)) for i in range(d)]
    distance = _total(linear[i] * means[i] for i in range(d))
    # x_i x_j stands for both orders in the quadratic form.
    quadratic = [(-0.5 if i == j else -1.0) * rows[i][j] for i in range(d) for j in range(i, d)]
    return ops.stack([-0.5 * (distance + log_volume), *linear, *quadratic], axis=-1)


def describe(share, mean, covariance, factor):
    """Numbers of order 1 that say what a Gaussian is, `(..., 2 + d + d (d + 1) / 2)`.

    The mean, the logarithms of the standard deviations, the correlations, and the logarithms
    of the share and of the volume.
    """
    d = mean.shape[-1]
    matrix = _entries(covariance, d)
    log_sigma = [0.5 * ops.log(ops.maximum(matrix[i][i], LEAST_VARIANCE)) for i in range(d)]
    correlations = [
        matrix[i][j] * ops.exp(-log_sigma[i] - log_sigma[j])
        for i in range(d)
        for j in range(i + 1, d)
    ]
    volume = 0.5 * log_determinant(factor)
    rest = ops.stack([*log_sigma, *correlations, ops.log(share), volume], axis=-1)
    return ops.concatenate([mean, rest], axis=-1)


def log_likelihood(share, mean, factor, basis, counts):
    """Of entities under a mixture, without the constant of the density, `(batch,)`.

    Args:
        share, mean: `(batch, k, ...)`, as `of_moments` returns.
        factor: The Cholesky factors of the covariances.
        basis: `(batch, n, m)`, monomials of the entities.
        counts: `(batch, 1, n)`, how often each counts.
    """
    density = density_coefficients(mean, factor) @ ops.transpose(basis, (0, 2, 1))
    density = ops.logsumexp(density + ops.expand_dims(ops.log(share), -1), axis=1)
    return ops.sum(density * counts[:, 0], axis=-1)


def log_evidence(likelihood, share, size, d):
    """How well a mixture explains a set, less what its parameters cost, `(batch,)`.

    The log-likelihood of the entities, less half the logarithm of a Gaussian's mass for each of
    its parameters (Laplace's approximation, of which terms that do not grow are left out).
    Gaussians of at most one entity do not exist.

    Args:
        likelihood: `(batch,)`, as `log_likelihood` returns.
        share: `(batch, k)`, of the Gaussians.
        size: `(batch, 1)`, how many entities there are.
        d: Number of dimensions.
    """
    mass = share * size
    parameters = monomial_count(d)
    return likelihood - 0.5 * parameters * ops.sum(ops.log(ops.maximum(mass, 1.0)), axis=-1)


def assign(logits):
    """Logits of the largest `(batch, k, n)` alone: an entity belongs to one Gaussian."""
    # No `argmax`, of which TensorFlow makes operations that few formats know.
    largest = logits >= largest_over(logits, 1, keepdims=True)
    return CERTAIN * ops.cast(largest, logits.dtype)


def classification_likelihood(share, mean, factor, size):
    """The integrated classification likelihood of entities that are assigned, `(batch,)`.

    The log-likelihood of the entities and of their assignments, up to a constant, less half the
    logarithm of the number of entities for each parameter of a Gaussian that has any. It is the
    Bayesian information criterion of the mixture less the entropy of the assignments.

    Args:
        share, mean: `(batch, k, ...)`, as `of_moments` returns for assignments of 0 or 1.
        factor: The Cholesky factors of the covariances.
        size: `(batch, 1)`, how many entities there are.
    """
    d = mean.shape[-1]
    mass = share * size
    volume = 0.5 * log_determinant(factor)
    likelihood = ops.sum(mass * (ops.log(share) - volume), axis=-1)
    number = ops.sum(ops.cast(mass >= 1.0, mass.dtype), axis=-1)
    cost = 0.5 * monomial_count(d) * ops.log(ops.maximum(size[:, 0], 1.0))
    return likelihood - cost * number


def best_start(logits, evidence, starts):
    """Of the answers from several starts the one of the largest evidence.

    Of starts that are as good up to rounding the first is taken: often several find the same
    partition, and every backend and every exported file is to give it in the same slots. A start
    whose evidence is no number comes after all others: where no start has any, as of points that
    are NaN, the answer is that of the first, NaN as well.

    Args:
        logits: `(starts * batch, k, n)`, all sets of a start together.
        evidence: `(starts * batch,)`.

    Returns:
        `(batch, k, n)`.
    """
    batch = ops.shape(logits)[0] // starts
    logits = ops.reshape(logits, (starts, batch, *ops.shape(logits)[1:]))
    evidence = ops.reshape(evidence, (starts, batch))
    later = ops.reshape(ops.arange(starts, dtype=evidence.dtype), (starts, 1))
    # Not `isfinite`, which LiteRT has not. No comparison holds for NaN.
    known = ops.abs(evidence) <= float(np.finfo("float32").max)
    scale = 1 + largest_over(ops.where(known, ops.abs(evidence), ops.zeros_like(evidence)), 0)
    evidence = ops.where(known, evidence, -3 * scale) - TIE * later * scale
    # Not `take_along_axis`, with which torch exports one size of sets only.
    chosen = evidence >= largest_over(evidence, 0)
    chosen = ops.reshape(chosen, (starts, batch, 1, 1))
    return ops.sum(ops.where(chosen, logits, ops.zeros_like(logits)), axis=0)


def isometries(count, d):
    """Orthogonal matrices `(count, d, d)`, the first the identity: turns, every other mirrored.

    They are the same at every call. In the plane the turns are spread evenly.
    """
    if d == 2:
        angles = np.arange(count) // 2 * (2 * np.pi / -(-count // 2))
        mirrored = 1 - 2 * (np.arange(count) % 2)
        cosine, sine = np.cos(angles), np.sin(angles)
        rows = [[cosine, sine], [-sine * mirrored, cosine * mirrored]]
        return np.moveaxis(np.array(rows), -1, 0)
    normal = np.random.default_rng(0).standard_normal((count, d, d))
    matrices = np.linalg.qr(normal)[0]
    matrices[0] = np.eye(d)
    return matrices
