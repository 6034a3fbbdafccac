"""How close the samples of a network are to the exact posterior."""

import dataclasses

import keras
import numpy as np
from scipy import stats

from examples.simulation_based_inference.data import PARAMETERS
from examples.simulation_based_inference.data import Posterior

RANK_BINS = 20


@dataclasses.dataclass(frozen=True)
class Score:
    """One parameter over all data sets.

    Attributes:
        error: Root mean square error of the posterior mean, in exact standard deviations.
        width: Mean of the posterior standard deviation over the exact one.
        coverage: How often the central interval of probability 0.9 holds the truth.
        p_value: Of the ranks of the truth among the samples being uniform. Of few samples it is
            rough, because there are few ranks.
    """

    error: float
    width: float
    coverage: float
    p_value: float


def draw_samples(approximator, data, count, seed):
    """`count` samples of every parameter for every data set, `(data sets, count, 1)`."""
    keras.utils.set_random_seed(seed)
    observed = {name: data[name] for name in ("points", "mask")}
    return approximator.sample(num_samples=count, conditions=observed, seed=seed)


def ranks(samples, truth):
    """Rank of the truth among the samples, as a fraction in [0, 1]."""
    return np.mean(samples[..., 0] < truth, axis=1)


def uniformity(place, count):
    """The p value of a chi-square test of ranks among `count` samples, as `ranks` gives them."""
    observed = np.histogram(place, RANK_BINS, (0, 1))[0]
    # There are count + 1 ranks, all as likely, and not equally many in every bin.
    likely = np.histogram(np.arange(count + 1) / count, RANK_BINS, (0, 1))[0]
    observed, likely = observed[likely > 0], likely[likely > 0]
    return float(stats.chisquare(observed, len(place) * likely / (count + 1)).pvalue)


def scores(samples, data):
    """A `Score` for every parameter, by name."""
    found = {}
    for name, (mean, width) in Posterior.of(data).moments().items():
        drawn = np.asarray(samples[name], "float64")
        place = ranks(drawn, data[name])
        found[name] = Score(
            error=float(np.sqrt(np.mean(((drawn.mean(axis=1) - mean) / width) ** 2))),
            width=float(np.mean(drawn.std(axis=1) / width)),
            coverage=float(np.mean((place > 0.05) & (place < 0.95))),
            p_value=uniformity(place, drawn.shape[1]),
        )
    return found


def divergence(approximator, data):
    """Mean of `log p - log q` at the true parameters and its standard error, in nats.

    p is the exact posterior, q the network's: an estimate of the Kullback-Leibler
    divergence, which is 0 for the exact posterior alone.
    """
    exact = Posterior.of(data).log_density(*(data[name] for name in PARAMETERS))[:, 0]
    differences = exact - np.asarray(approximator.log_prob(data), "float64").reshape(-1)
    return float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))


def table(found, kl, sets, count):
    """The scores as text."""
    lines = [
        f"{sets} fresh data sets, {count} samples of the posterior each",
        f"{'':10}{'error':>10}{'width':>10}{'90 % intervals':>18}{'uniform ranks, p':>20}",
    ]
    for name, score in found.items():
        lines.append(
            f"{name.replace('_', ' '):10}{score.error:>10.3f}{score.width:>10.3f}"
            f"{score.coverage:>18.3f}{score.p_value:>20.3f}"
        )
    lines += [
        f"Kullback-Leibler divergence from the exact posterior: {kl[0]:.4f} ± {kl[1]:.4f} nats",
        "error: of the posterior means, in exact standard deviations; width: standard deviation "
        "over the exact one",
    ]
    return "\n".join(lines)
