"""Mixtures of elliptic clusters in NumPy: EM, and merging while that lowers a criterion.

A cluster has a share of the points, a mean and a covariance. All clusters have one power, which
says how their density falls: with the Mahalanobis distance r it goes like exp(-(c r^2)^power / 2).
Power 1 is a Gaussian; above, a cluster has an edge, as filled ellipses and boxes have; below, it
has heavy tails. Were all clusters Gaussian, a filled box would be several of them. A background
of constant density takes what lies far from all clusters.

Clusters may have more in common, see `Family`: one covariance, for example. Such a mixture has
fewer parameters, so fewer points suffice to tell its clusters apart. The criterion compares
mixtures of all families: BIC with a coarsened likelihood, as no cluster is quite elliptic.

Points are `(n, d)`, float64, of mean 0 and variance 1, and have weights `(n,)`. They are
visited in chunks, so that memory stays small.

Reference:
    [Dang et al., 2015, Mixtures of multivariate power exponential
    distributions](https://doi.org/10.1111/biom.12351), equation 1; the power by the kurtosis.
    [Fraley & Raftery, 2002, Model-based clustering](https://doi.org/10.1198/016214502760047131),
    section 2: families of covariances, chosen by BIC.
    [Miller & Dunson, 2019, Robust Bayesian inference via
    coarsening](https://doi.org/10.1080/01621459.2018.1469995), section 2: the coarsened likelihood.
"""

import dataclasses
import functools
import math

import numpy as np

CHUNK = 16384
# Added to the variances: a cluster has a density even if all its points are the same.
RIDGE = 1e-5
# Points on a grid are spread by so much of its step: the top of a cluster at a single place is
# then one place a step. Fewer gaps than these are not those of a grid, but between clusters.
BLUR, LEAST_GAPS = 0.4, 4
# Tabulated; a Gaussian is one of them.
POWERS = np.concatenate([np.geomspace(0.6, 1, 40), np.geomspace(1, 3, 80)[1:]])
# A kurtosis is as sure as that of a Gaussian after so many points.
PRIOR_POINTS = 30
# The background's share of the points.
BACKGROUND = (1e-3, 0.03)
# Pairs of clusters whose density as one is computed, pairs of them for which EM runs, and by
# how many nats these may be worse than the best.
PAIRS, PROPOSALS, CLOSE = 8, 3, 5.0
# Components overlap if so much of one is assigned to the other. They are one cluster for the
# network at such a probability.
OVERLAP, SAME = 0.2, 0.7
# With n points the log-likelihood counts 1 / (1 + n / COARSENING): with many it is that of so many
# points. More would tell even small differences from an ellipse, and call them clusters.
COARSENING = 2000
# Of EM: before the first merge, after each, towards another family, at the end.
FIRST_STEPS, STEPS, FAMILY_STEPS, LAST_STEPS = 5, 3, 5, 10


@dataclasses.dataclass(frozen=True)
class Family:
    """What the clusters of a mixture have in common.

    Attributes:
        covariances: `"own"`; `"shared"`, all have the same; `"round"`, each has a variance.
        equal_shares: Whether all have the same share of the points.
    """

    covariances: str = "own"
    equal_shares: bool = False

    def parameters(self, clusters, dimensions):
        """How many numbers `clusters` clusters have: the power, shares, means, covariances."""
        covariance = dimensions * (dimensions + 1) // 2
        covariances = {"own": clusters * covariance, "shared": covariance, "round": clusters}
        shares = 0 if self.equal_shares else clusters
        return 1 + shares + clusters * dimensions + covariances[self.covariances]

    def constrain(self, shares, covariances):
        """The shares and covariances of the family that have the same sums."""
        if self.covariances == "shared":
            mean = shares @ covariances.swapaxes(0, 1) / shares.sum()
            covariances = np.broadcast_to(mean, covariances.shape)
        elif self.covariances == "round":
            variances = np.trace(covariances, axis1=1, axis2=2) / covariances.shape[1]
            covariances = variances[:, None, None] * np.eye(covariances.shape[1])
        if self.equal_shares:
            shares = np.full(len(shares), shares.mean())
        return shares, covariances


GENERAL = Family()
FAMILIES = (
    GENERAL,
    Family(equal_shares=True),
    Family("shared"),
    Family("shared", equal_shares=True),
    Family("round"),
    Family("round", equal_shares=True),
)


@dataclasses.dataclass
class Mixture:
    """Clusters and a background.

    Attributes:
        shares: `(k,)`.
        means: `(k, d)`.
        covariances: `(k, d, d)`.
        powers: `(k,)`, equal after EM.
        background: Logarithm of the background's share times its density.
        blur: `(d,)`, variances with which every point is spread, see `blur_of`. Logarithms of
            densities are means over what it is spread to.
    """

    shares: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    powers: np.ndarray
    background: float
    blur: np.ndarray

    def __len__(self):
        return len(self.shares)

    def select(self, clusters):
        arrays = (self.shares, self.means, self.covariances, self.powers)
        return Mixture(*(array[clusters] for array in arrays), self.background, self.blur)

    def log_posterior(self, points):
        """Log probabilities of the clusters alone, `(n, k)`."""
        parts = [self.log_densities(x)[0] for x, _ in Sample(points, np.ones(len(points)))]
        logs = np.concatenate(parts, axis=1).T
        shift = logs.max(axis=1, keepdims=True)
        return logs - shift - np.log(np.exp(logs - shift).sum(axis=1, keepdims=True))

    def log_densities(self, x):
        """Of features: logarithms of share times density, and squared distances r^2, `(k, n)`."""
        dimensions = self.means.shape[1]
        precisions = np.linalg.inv(self.covariances)
        linear = (precisions @ self.means[..., None])[..., 0]
        blurred = np.diagonal(precisions, axis1=1, axis2=2) @ self.blur
        constant = (linear * self.means).sum(axis=1, keepdims=True) + blurred[:, None]
        products = precisions.reshape(len(self), -1)
        coefficients = np.concatenate([constant, -2 * linear, products], axis=1)
        # Rounding may bring it below 0.
        squared = np.maximum(coefficients @ x, 1e-30)
        scale, constant, _ = _of_power(self.powers, dimensions)
        distances = np.exp(self.powers[:, None] * np.log(scale[:, None] * squared))
        offset = np.log(self.shares) + constant - 0.5 * np.linalg.slogdet(self.covariances)[1]
        return offset[:, None] - 0.5 * distances, squared

    def quartics(self, parts, squared):
        """Sums of r^4 `(k,)` over points of which clusters have `parts` `(k, n)`."""
        # r^2 differs within what a point is spread to, by so much for points of the cluster.
        blurred = np.linalg.solve(self.covariances, np.diag(self.blur)[None])
        first, second = (np.trace(b, axis1=1, axis2=2) for b in (blurred, blurred @ blurred))
        variances = 4 * first - 2 * second
        return (parts * np.square(squared)).sum(axis=1) + variances * parts.sum(axis=1)

    def posterior(self, x):
        """Probabilities `(k, n)` and `(n,)` of the background, log density, and r^2."""
        logs, squared = self.log_densities(x)
        shift = np.maximum(logs.max(axis=0), self.background)
        densities, background = np.exp(logs - shift), np.exp(self.background - shift)
        total = densities.sum(axis=0) + background
        return densities / total, background / total, np.log(total) + shift, squared


class Sample:
    """Points with weights, visited in chunks of `(features, weights)`.

    The features `(1 + d + d^2, n)`, 1, x and x x^T, are what quadratic functions of the points
    are linear in: the distances to all clusters are one matrix product, and so are moments.
    Those of a single chunk are computed once.
    """

    def __init__(self, points, weights):
        self.points, self.weights = points, weights
        self.total, self.dimensions = weights.sum(), points.shape[1]
        self._chunks = None
        if len(points) <= CHUNK:
            self._chunks = list(self)

    def __iter__(self):
        if self._chunks is not None:
            yield from self._chunks
            return
        for start in range(0, len(self.points), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield features(self.points[chunk]), self.weights[chunk]


def features(points):
    x = points.T
    products = (x[:, None] * x).reshape(-1, len(points))
    return np.concatenate([np.ones((1, len(points))), x, products])


@functools.cache
def _table(dimensions):
    """Of every power: the factor of r^2, the logarithm of the constant, the kurtosis."""
    d, rows = dimensions, []
    for power in POWERS:
        g = [math.lgamma((d + extra) / (2 * power)) for extra in (0, 2, 4)]
        scale = 2 ** (1 / power) * math.exp(g[1] - g[0]) / d
        constant = math.log(d) + math.lgamma(d / 2) - d / 2 * math.log(math.pi)
        constant -= math.lgamma(1 + d / (2 * power)) + (1 + d / (2 * power)) * math.log(2)
        constant += d / 2 * math.log(scale)
        rows.append((scale, constant, math.exp(g[2] + g[0] - 2 * g[1])))
    return np.array(rows).T


def _of_power(powers, dimensions):
    return [np.interp(powers, POWERS, row) for row in _table(dimensions)]


def _powers(counts, quartics, dimensions):
    """By the mean of r^4, pulled towards a Gaussian's."""
    gaussian = (dimensions + 2) / dimensions
    kurtosis = (quartics / dimensions**2 + PRIOR_POINTS * gaussian) / (counts + PRIOR_POINTS)
    return np.interp(-kurtosis, -_table(dimensions)[2], POWERS)


@dataclasses.dataclass
class Moments:
    """Sums over points of which each cluster has a part; chunks add up."""

    counts: np.ndarray  # (k,)
    sums: np.ndarray  # (k, d)
    products: np.ndarray  # (k, d, d)
    quartics: np.ndarray  # (k,), sums of r^4
    background: float
    log_likelihood: float

    def __add__(self, other):
        names = [field.name for field in dataclasses.fields(self)]
        return Moments(*(getattr(self, name) + getattr(other, name) for name in names))


def _moments(x, parts, quartics, background=0.0, log_likelihood=0.0):
    d = int(np.sqrt(len(x)))  # 1 + d + d^2 features
    sums = parts @ x.T
    products = sums[:, 1 + d :].reshape(-1, d, d)
    return Moments(sums[:, 0], sums[:, 1 : 1 + d], products, quartics, background, log_likelihood)


def _expectation(mixture, sample):
    moments = None
    for x, w in sample:
        parts, background, log_density, squared = mixture.posterior(x)
        parts = parts * w
        quartics = mixture.quartics(parts, squared)
        new = _moments(x, parts, quartics, background @ w, log_density @ w)
        moments = new if moments is None else moments + new
    return moments


def _maximization(moments, log_volume, blur, family=GENERAL):
    dimensions = moments.sums.shape[1]
    counts = np.maximum(moments.counts, 1e-10)
    means = moments.sums / counts[:, None]
    covariances = moments.products / counts[:, None, None] - means[:, :, None] * means[:, None]
    covariances += np.diag(RIDGE + blur)
    total = counts.sum()
    background = np.clip(moments.background / (total + moments.background), *BACKGROUND)
    shares, covariances = family.constrain(counts / total, covariances)
    power = _powers(total, moments.quartics.sum(), dimensions)
    return Mixture(
        (1 - background) * shares,
        means,
        covariances,
        np.full(len(means), power),
        np.log(background) - log_volume,
        blur,
    )


def from_shares(points, weights, shares):
    """The mixture of Gaussians that shares `(n, k)` of the points make up."""
    dimensions = points.shape[1]
    parts = (shares * weights[:, None]).T
    gaussian = dimensions * (dimensions + 2) * parts.sum(axis=1)
    moments = _moments(features(points), parts, gaussian)
    return _maximization(moments, _log_volume(points, weights), blur_of(points))


def blur_of(points):
    """Variances `(d,)` with which points are spread along coordinates that were rounded.

    Many points have the same place then. A cluster that shrinks to a place would explain them
    without end, and what is one cluster would become several. Coordinates were rounded if they
    lie on a grid; others have 0.
    """
    blur = []
    for x in points.T:
        gaps = np.diff(np.unique(x.round(9)))  # without rounding errors between equal places
        steps = gaps / gaps.min(initial=np.inf)
        grid = len(gaps) >= LEAST_GAPS and (np.abs(steps - steps.round()) < 0.01).all()
        blur.append((BLUR * gaps.min()) ** 2 if grid else 0.0)
    return np.array(blur)


def _log_volume(points, weights):
    """Of the ellipsoid that the background fills: a half wider than all points as one disc."""
    d, total = points.shape[1], weights.sum()
    delta = points - weights @ points / total
    covariance = (delta.T * weights) @ delta / total + RIDGE * np.eye(d)
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    return ball + d / 2 * math.log(2.25 * (d + 2)) + 0.5 * np.linalg.slogdet(covariance)[1]


@dataclasses.dataclass
class Fit:
    """A mixture, its family, the expectation under it, and its criterion."""

    mixture: Mixture
    family: Family
    moments: Moments
    criterion: float


def merged(mixture, points, weights):
    """EM, then pairs of clusters are merged until one is left: the best mixture on the way.

    Mixtures of the other families start from those of the general one.

    Returns:
        The mixture and its criterion.
    """
    sample = Sample(points, weights)
    log_volume = _log_volume(points, weights)
    d = sample.dimensions

    def climbed(mixture, steps, family=GENERAL, moments=None):
        """After EM. `moments` are those of an expectation under the mixture, where known."""
        moments = _expectation(mixture, sample) if moments is None else moments
        for _ in range(steps):
            mixture = _maximization(moments, log_volume, mixture.blur, family)
            moments = _expectation(mixture, sample)
        likelihood = moments.log_likelihood / (1 + sample.total / COARSENING)
        penalty = family.parameters(len(mixture), d) * np.log(sample.total)
        return Fit(mixture, family, moments, penalty - 2 * likelihood)

    # A cluster of fewer points than that has no covariance.
    enough = mixture.shares * sample.total > d + 1
    mixture = mixture.select(enough if enough.any() else mixture.shares.argmax(keepdims=True))
    general = climbed(mixture, FIRST_STEPS)
    fits = [general]
    while True:
        start = general.mixture, FAMILY_STEPS
        fits += (climbed(*start, family, general.moments) for family in FAMILIES[1:])
        best = min(fits, key=lambda fit: fit.criterion)
        if len(general.mixture) == 1:
            best = climbed(best.mixture, LAST_STEPS, best.family, best.moments)
            return best.mixture, best.criterion
        pairs = _proposals(general.mixture, sample)
        general = min((climbed(pair, STEPS) for pair in pairs), key=lambda fit: fit.criterion)
        fits = [best, general]


def joined(components, weights, seen, shares):
    """Which components of a mixture are one cluster, as that has no elliptic shape.

    Two are joined where they overlap, and where they are one cluster for the network: two
    points, one of each, have the same cluster with a probability of `SAME` or more.

    Args:
        components: `(n, k)`, the probability of each component for every point.
        weights: `(n,)`.
        seen, shares: Indices of the points that the network has seen, and its probabilities.

    Returns:
        Bool `(k, clusters)`.
    """
    member = np.eye(components.shape[1], dtype=bool)
    while member.shape[1] > 1:
        parts = components @ member
        assigned = np.eye(parts.shape[1])[parts.argmax(axis=1)]
        parts *= weights[:, None]
        overlap = parts.T @ assigned / np.maximum(parts.sum(axis=0), 1e-10)[:, None]
        network = parts[seen].T @ shares
        network /= np.maximum(network.sum(axis=1, keepdims=True), 1e-10)
        overlap = np.where(network @ network.T >= SAME, np.maximum(overlap, overlap.T), 0)
        np.fill_diagonal(overlap, 0)
        first, second = np.unravel_index(overlap.argmax(), overlap.shape)
        if overlap[first, second] < OVERLAP:
            break
        member[:, first] |= member[:, second]
        member = np.delete(member, second, axis=1)
    return member


def _proposals(mixture, sample):
    """Mixtures in which two clusters are one: those that lose the least likelihood."""
    first, second = np.triu_indices(len(mixture), 1)
    pairs = _as_one(mixture, first, second)

    # What the likelihood of the labels would lose is known without the points.
    def entropies(clusters):
        return clusters.shares * (
            0.5 * np.linalg.slogdet(clusters.covariances)[1] - np.log(clusters.shares)
        )

    own = entropies(mixture)
    some = np.argsort(entropies(pairs) - own[first] - own[second])[:PAIRS]
    first, second, pairs = first[some], second[some], pairs.select(some)

    counts, quartics = 0.0, 0.0
    for x, w in sample:
        parts = mixture.posterior(x)[0] * w
        parts = parts[first] + parts[second]
        counts += parts.sum(axis=1)
        quartics += pairs.quartics(parts, pairs.log_densities(x)[1])
    pairs.powers = _powers(counts, quartics, sample.dimensions)
    gains = 0.0
    for x, w in sample:
        parts, background, log_density, _ = mixture.posterior(x)
        rest = np.maximum(1 - parts[first] - parts[second], background)
        gains += np.log(rest + np.exp(pairs.log_densities(x)[0] - log_density)) @ w
    order = np.argsort(-gains)[:PROPOSALS]
    for best in order[gains[order] > gains[order[0]] - CLOSE]:
        others = mixture.select(np.delete(np.arange(len(mixture)), [first[best], second[best]]))
        one = pairs.select([best])
        arrays = ("shares", "means", "covariances", "powers")
        yield Mixture(
            *(np.concatenate([getattr(others, a), getattr(one, a)]) for a in arrays),
            mixture.background,
            mixture.blur,
        )


def _as_one(mixture, first, second):
    """Every pair of clusters as one Gaussian of the same moments."""
    a, b = mixture.select(first), mixture.select(second)
    shares = a.shares + b.shares
    part = (a.shares / shares)[:, None]
    delta = a.means - b.means
    between = (part * (1 - part))[..., None] * delta[:, :, None] * delta[:, None]
    within = part[..., None] * a.covariances + (1 - part[..., None]) * b.covariances
    means = part * a.means + (1 - part) * b.means
    return Mixture(shares, means, within + between, np.ones(len(shares)), a.background, a.blur)
