"""Likelihoods of predicted mixtures, of the true ones, and of those after a step of EM."""

import dataclasses
import warnings

import keras
import numpy as np
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

from examples.common import devices
from examples.mixture_of_gaussians import data
from keras_sets import losses

# Lee et al. 2019, tables 3 to 6, by the number of Gaussians and the points of a set: LL0 and
# its standard deviation over repeats, LL1.
PUBLISHED = {
    (4, (100, 500)): {
        "oracle": (-1.4726, None, None),
        "row-wise FF + mean (Deep Sets)": (-2.0006, 0.0123, -1.6186),
        "equivariant mean + mean": (-1.7606, 0.0213, -1.5191),
        "equivariant max + mean": (-1.7692, 0.0130, -1.5103),
        "SAB + PMA": (-1.5145, 0.0046, -1.4619),
        "ISAB(16) + PMA": (-1.5009, 0.0068, -1.4530),
        "ISAB(32) + PMA": (-1.4963, 0.0064, -1.4524),
    },
    (6, (1000, 5000)): {
        "oracle": (-1.8202, None, None),
        "row-wise FF + mean (Deep Sets)": (-2.5195, None, None),
        "equivariant mean + mean": (-2.3126, None, None),
        "row-wise FF + PMA": (-2.0515, None, None),
        "ISAB(32) + PMA": (-1.8928, None, -1.8549),
    },
}
# Rotations and reflections of the square in which the means lie.
VIEWS = [
    np.array(matrix, "float32")
    for matrix in (
        [[1, 0], [0, 1]],
        [[0, 1], [-1, 0]],
        [[-1, 0], [0, -1]],
        [[0, -1], [1, 0]],
        [[1, 0], [0, -1]],
        [[0, 1], [1, 0]],
        [[-1, 0], [0, 1]],
        [[0, -1], [-1, 0]],
    )
]
# Sets to compute on at once: a set may have thousands of points.
PART = 50


@dataclasses.dataclass(frozen=True)
class Mixtures:
    """One mixture of Gaussians for each set, in float64.

    Attributes:
        log_weights: `(sets, components)`.
        means: `(sets, components, 2)`.
        sigmas: `(sets, components, 2)`, standard deviations along the axes.
    """

    log_weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray

    def select(self, indices):
        return Mixtures(self.log_weights[indices], self.means[indices], self.sigmas[indices])

    @staticmethod
    def concatenate(parts):
        names = [field.name for field in dataclasses.fields(Mixtures)]
        return Mixtures(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def true_mixtures(sets):
    sigmas = np.full_like(sets.means, data.SIGMA)
    return Mixtures(np.log(sets.weights), sets.means, sigmas)


def best_of_views(model, sets, padded, views):
    """The likeliest of what the network says of every set, seen from several sides.

    The task looks the same from all sides of the square. The network does not: where it is
    wrong from one side it may be right from another. No truth is needed to choose.

    Args:
        views: How many of `VIEWS` to take.
    """
    best, highest = None, np.full(len(sets), -np.inf)
    for view in VIEWS[:views]:
        turned = dataclasses.replace(sets, points=sets.points @ view)
        predicted = predicted_mixtures(model, turned, padded)
        # The matrices are orthogonal: those of the way back are their transposes.
        predicted = Mixtures(
            predicted.log_weights, predicted.means @ view.T, predicted.sigmas @ np.abs(view.T)
        )
        log_p = log_likelihoods(sets, predicted)
        better = log_p > highest
        highest = np.where(better, log_p, highest)
        if best is None:
            best = predicted
        for name in ("log_weights", "means", "sigmas"):
            getattr(best, name)[better] = getattr(predicted, name)[better]
    return best


def predicted_mixtures(model, sets, padded, batch_size=50):
    """What the network says of every set."""
    batches, order = data.fixed_batches(sets, batch_size, padded)
    predicted = np.concatenate([devices.predict_once(model, inputs) for inputs, *_ in batches])
    outputs = np.empty_like(predicted)
    outputs[order] = predicted
    parameters = keras.ops.cast(outputs, "float32")
    mixture = losses.GaussianMixtureLoss().mixture(parameters, data.DIMENSIONS)
    return Mixtures(*(keras.ops.convert_to_numpy(t).astype("float64") for t in mixture))


def component_log_p(sets, mixtures):
    """`log w_k + log N(x_i; k)`, `(sets, size, components)`."""
    sigmas = mixtures.sigmas[:, None]
    distances = (sets.points[:, :, None] - mixtures.means[:, None]) / sigmas
    log_p = -0.5 * np.square(distances) - np.log(sigmas) - 0.5 * np.log(2 * np.pi)
    return mixtures.log_weights[:, None] + log_p.sum(axis=-1)


def log_likelihoods(sets, mixtures):
    """Mean log-likelihood of the points of every set, `(sets,)`, in nats a point."""

    def part(sets, mixtures):
        log_p = logsumexp(component_log_p(sets, mixtures), axis=-1)
        return np.sum(log_p, axis=1, where=sets.mask) / sets.sizes

    return np.concatenate(_in_parts(part, sets, mixtures))


def em_step(sets, mixtures):
    """The mixtures after one step of expectation maximisation on their sets."""
    return Mixtures.concatenate(_in_parts(_em_step, sets, mixtures))


def _in_parts(function, sets, mixtures):
    parts = [slice(start, start + PART) for start in range(0, len(sets), PART)]
    return [function(sets.select(part), mixtures.select(part)) for part in parts]


def _em_step(sets, mixtures):
    log_p = component_log_p(sets, mixtures)
    shares = np.exp(log_p - logsumexp(log_p, axis=-1, keepdims=True)) * sets.mask[..., None]
    mass = shares.sum(axis=1)
    total = np.maximum(mass, 1e-12)[..., None]
    points = sets.points.astype("float64")
    means = np.einsum("bnk,bnd->bkd", shares, points) / total
    deviations = np.square(points[:, :, None] - means[:, None])
    sigmas = np.sqrt(np.einsum("bnk,bnkd->bkd", shares, deviations) / total)
    # A Gaussian that has lost all its points, or all but one, keeps its place and width.
    kept = mass[..., None] > 1e-12
    means = np.where(kept, means, mixtures.means)
    sigmas = np.where(kept & (sigmas > 1e-6), sigmas, mixtures.sigmas)
    with np.errstate(divide="ignore"):
        log_weights = np.log(mass / sets.sizes[:, None])
    return Mixtures(log_weights, means, sigmas)


def fitted_mixtures(sets, seed=0):
    """What EM to convergence from k-means finds on each set alone (scikit-learn)."""
    components = sets.weights.shape[1]
    fits = []
    for points, mask in zip(sets.points, sets.mask, strict=True):
        fit = GaussianMixture(components, covariance_type="diag", random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EM that has not converged is still an answer
            fits.append(fit.fit(points[mask].astype("float64")))
    return Mixtures(
        np.log([fit.weights_ for fit in fits]),
        np.array([fit.means_ for fit in fits]),
        np.sqrt([fit.covariances_ for fit in fits]),
    )


@dataclasses.dataclass(frozen=True)
class Score:
    """Means over sets with their standard errors, in nats a point.

    Attributes:
        method: Name.
        ll0: Log-likelihood of the mixture.
        ll1: The same after one step of EM, or None.
        gap: How much the oracle's log-likelihood of the same sets is above `ll0`.
    """

    method: str
    ll0: tuple
    ll1: tuple | None
    gap: tuple


def compare(networks, sets, padded, seed=0, views=1):
    """The scores of the networks, `{name: model}`, of EM from k-means, and of the oracle.

    With `views` above 1 the last network has a further row, its `best_of_views`.
    """
    oracle = log_likelihoods(sets, true_mixtures(sets))
    fitted = log_likelihoods(sets, fitted_mixtures(sets, seed))

    def summary(values):
        return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))

    def score(method, ll0, ll1=None):
        return Score(method, summary(ll0), ll1 and summary(*ll1), summary(oracle - ll0))

    mixtures = {name: predicted_mixtures(m, sets, padded) for name, m in networks.items()}
    if views > 1:
        name, model = list(networks.items())[-1]
        mixtures[f"{name}, best of {views} views"] = best_of_views(model, sets, padded, views)
    scores = []
    for name, predicted in mixtures.items():
        one_step = log_likelihoods(sets, em_step(sets, predicted))
        scores.append(score(name, log_likelihoods(sets, predicted), (one_step,)))
    return [
        *scores,
        score("EM from k-means, to convergence", fitted),
        score("oracle, the true mixture", oracle),
    ]


def table(scores, count, protocol=None):
    """The scores as text, with the published ones of the protocol below, where there are any.

    Args:
        protocol: The number of Gaussians, and the least and most points of a set.
    """
    published = {f"published: {name}": row for name, row in PUBLISHED.get(protocol, {}).items()}
    width = max(map(len, [score.method for score in scores] + list(published)))

    def line(name, *cells):
        return f"{name:{width}}" + "".join(f"  {cell:>17}" for cell in cells)

    def cell(value):
        return "-" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"

    lines = [
        f"{count:,} fresh sets, mean ± standard error; log-likelihood in nats a point",
        line("", "LL0", "LL1, after EM", "oracle - LL0"),
    ]
    lines += [line(s.method, cell(s.ll0), cell(s.ll1), cell(s.gap)) for s in scores]
    for name, (ll0, deviation, ll1) in published.items():
        first = f"{ll0:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
        gap = published["published: oracle"][0] - ll0
        lines.append(line(name, first, "-" if ll1 is None else f"{ll1:.4f}", f"{gap:.4f}"))
    if published:
        lines.append(
            "Published rows: other sets of the same distribution, ± over repeats of training."
        )
    return "\n".join(lines)
