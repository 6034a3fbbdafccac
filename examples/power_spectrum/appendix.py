"""Moves around the circle, sets whose pairs count in fractions, and the infinite set."""

import numpy as np

from examples.power_spectrum import data
from examples.power_spectrum import evaluate

# A bouquet of three flowers: in fractions, and as so many copies of each.
FRACTIONS = (1 / 3, 1 / 2, 1 / 6)
COPIES = (2, 3, 1)
MILLION = 1_000_000
# Intervals of the grid that stands for all pairs of a function.
FINEST = 2**13


def moves(trained, pairs, powers, count=16, sets=64):
    """How much log p changes when all x of a set are moved by the same angle.

    Returns:
        The angles, and a dict from names of networks to changes `(sets, angles, wanted)`.
    """
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    pairs = pairs[:sets]
    changes = {}
    for name, (model, *_) in trained.items():
        logs = []
        for angle in angles:
            moved = pairs.astype("float64")
            moved[..., 0] = (moved[..., 0] + angle) % (2 * np.pi)
            logs.append(np.log(evaluate.network_powers(model, moved.astype("float32"))))
        logs = np.stack(logs, axis=1)
        changes[name] = logs - logs[:, :1]
    return angles, changes


def bouquet_change(model, rng):
    """Largest change of log p between the ways of saying how often three pairs count."""
    # Of functions as in training: elsewhere a network may say 0 or infinity.
    pairs, _ = data.draw_sets(rng, 8, 3, 4, 1)

    def logs(pairs, weights):
        weights = np.broadcast_to(np.asarray(weights, "float64"), pairs.shape[:2])
        return np.log(evaluate.network_powers(model, pairs, weights))

    copies = logs(np.repeat(pairs, COPIES, axis=1), 1.0)
    fractions = logs(pairs, FRACTIONS)
    millions = logs(pairs, np.multiply(COPIES, MILLION))
    return float(max(np.abs(copies - fractions).max(), np.abs(millions - fractions).max()))


def draw_uneven(rng, count, samples, kmax, wanted, strength=0.8):
    """Sets whose x crowd around 0: their density is `(1 + strength cos x) / 2 pi`.

    Returns:
        `(pairs, powers, weights)`. The weights are the reciprocals of the density: with them
        a set stands for the uniform distribution.
    """
    coefficients = data.draw_functions(rng, count, kmax)
    x = rng.uniform(0, 2 * np.pi, (count, samples))
    # Of x and its opposite, one is kept: x with probability (1 + strength cos x) / 2.
    opposite = rng.random(x.shape) > (1 + strength * np.cos(x)) / 2
    x = np.where(opposite, (x + np.pi) % (2 * np.pi), x)
    pairs = np.stack([x, data.values(coefficients, x)], axis=-1)
    powers = np.abs(coefficients[:, :wanted]) ** 2
    return pairs.astype("float32"), powers, 1 / (1 + strength * np.cos(x))


def uneven_samples(models, sizes, count, kmax, wanted, seed):
    """Errors on uneven sets with and without weights, and on even ones, for every size.

    Args:
        models: Dict from names to networks that take weights.
        sizes: Numbers of samples.
        count: Number of sets.
        kmax, wanted: As in `data.draw_sets`.
        seed: Of the sets.

    Returns:
        `{size: {name: {kind: errors}}}`.
    """
    results = {}
    for samples in sizes:
        rng = np.random.default_rng([seed, 0, 0, 3])
        pairs, powers, weights = draw_uneven(rng, count, samples, kmax, wanted)
        even, even_powers = data.draw_sets(rng, count, samples, kmax, wanted)
        ones = np.ones_like(weights)
        results[samples] = {
            name: {
                "uneven, each pair once": evaluate.network_errors(model, pairs, powers, ones),
                "uneven, weighted by 1 / density": evaluate.network_errors(
                    model, pairs, powers, weights
                ),
                "even": evaluate.network_errors(model, even, even_powers, ones),
            }
            for name, model in models.items()
        }
    return results


def infinite_set(models, sizes, kmax, seed, sets=64, finest=FINEST):
    """How far the answers for finite sets are from that for all pairs of a function.

    A set without end of even samples is a mean over the circle. Random samples are one estimate
    of it. Simpson's rule is another: a grid whose pairs count 1/3, 4/3, 2/3, ..., 4/3, 1/3.

    Args:
        models: Dict from names to networks that take weights.
        sizes: Numbers of random samples, and of intervals of the grid where they are even.
        kmax: Highest frequency of the functions.
        seed: Of functions and samples.
        sets: Number of functions.
        finest: Even number of intervals of the grid that stands for the infinite set.

    Returns:
        `{name: {kind: {size: median difference of log p}}}`, without the sign. A mean would be
        that of a few powers close to 0, of whose logarithm no finite set says much.
    """
    rng = np.random.default_rng([seed, 0, 0, 4])
    coefficients = data.draw_functions(rng, sets, kmax)

    def logs(model, x, weights):
        pairs = np.stack([x, data.values(coefficients, x)], axis=-1).astype("float32")
        return np.log(evaluate.network_powers(model, pairs, np.broadcast_to(weights, x.shape)))

    def on_grid(model, intervals):
        weights = np.where(np.arange(intervals + 1) % 2, 4 / 3, 2 / 3)
        weights[[0, -1]] = 1 / 3
        x = np.linspace(0, 2 * np.pi, intervals + 1)
        return logs(model, np.broadcast_to(x, (sets, intervals + 1)), weights)

    samples = {n: rng.uniform(0, 2 * np.pi, (sets, n)) for n in sizes}
    results = {}
    for name, model in models.items():
        limit = on_grid(model, finest)
        difference = lambda answer, limit=limit: float(np.median(np.abs(answer - limit)))  # noqa: E731
        results[name] = {
            "random samples": {n: difference(logs(model, samples[n], np.ones(1))) for n in sizes},
            "Simpson's rule": {
                n: difference(on_grid(model, n)) for n in sizes if n % 2 == 0 and n < finest
            },
        }
    return results


def table(moved, weighted, uneven, infinite):
    """What was found, as text."""
    lines = ["largest change of log p when all x of a set are moved by the same angle:"]
    for name, change in moved[1].items():
        lines.append(f"  {name}: {np.abs(change).max():.2g}")
    lines.append(
        f"three pairs as {COPIES} copies, as counts in millions, and as 1/3, 1/2, 1/6; largest "
        "change of log p:"
    )
    for name, model in weighted.items():
        lines.append(f"  {name}: {bouquet_change(model, np.random.default_rng(0)):.2g}")
    samples = max(uneven)
    lines.append(f"sets of {samples} samples that crowd around x = 0, error of log p:")
    for name, kinds in uneven[samples].items():
        for kind, errors in kinds.items():
            lines.append("  {}, {}: {:.4f} ± {:.4f}".format(name, kind, *evaluate.summary(errors)))
    lines.append("difference of log p from that of the infinite set, median:")
    for name, kinds in infinite.items():
        for kind, by_size in kinds.items():
            cells = (f"{n:,}: {value:.2g}" for n, value in by_size.items())
            lines.append(f"  {name}, {kind}, {'; '.join(cells)}")
    return "\n".join(lines)
