"""Random periodic functions, sets of their samples, and classical estimates of their powers.

f(x) = sum over k = 1..kmax of sqrt(p_k) cos(k x + phi_k) with phases uniform on [0, 2 pi]
and powers p_k exponential with mean 1 / k^2, as in Gecia Bravo-Hermsdorff and Lee M.
Gunderson, Permutation-equivariant neural networks for power spectrum estimation, equation 4.
A set holds pairs (x, f(x)), x uniform on [0, 2 pi].
"""

import numpy as np

from examples.common import datasets

# Of every figure: highest frequency of the functions in training, how many powers to predict,
# and the highest frequencies to test with.
FIGURES = {"1": (None, 1, [4, 32, 256]), "2": (4, 4, [4]), "5": (64, 8, [8, 64, 512])}
FIGURES["appendix"] = FIGURES["2"]
# Variance of log p_k, which is what the best constant prediction scores at every k.
CONSTANT_ERROR = np.pi**2 / 6


def draw_functions(rng, count, kmax):
    """Coefficients `sqrt(p_k) exp(i phi_k)` of random functions, complex `(count, kmax)`."""
    powers = rng.exponential(np.arange(1, kmax + 1) ** -2.0, (count, kmax))
    return np.sqrt(powers) * np.exp(1j * rng.uniform(0, 2 * np.pi, (count, kmax)))


def values(coefficients, x):
    """f(x) of every function at its own places `(count, samples)`, by Horner's rule."""
    step = np.exp(1j * x)
    total = np.zeros_like(step)
    for coefficient in coefficients.T[::-1]:
        total = (total + coefficient[:, None]) * step
    return total.real


def draw_sets(rng, count, samples, kmax, wanted):
    """Sets of samples and the first powers of their functions.

    Args:
        rng: `numpy.random.Generator`; nothing else decides.
        count: Number of sets.
        samples: Pairs in each set.
        kmax: Highest frequency of the functions.
        wanted: How many powers to return, at most `kmax`.

    Returns:
        `(pairs, powers)`: float32 `(count, samples, 2)` and `(count, wanted)`.
    """
    coefficients = draw_functions(rng, count, kmax)
    x = rng.uniform(0, 2 * np.pi, (count, samples))
    pairs = np.stack([x, values(coefficients, x)], axis=-1)
    powers = np.abs(coefficients[:, :wanted]) ** 2
    return pairs.astype("float32"), powers.astype("float32")


def training_data(options, repeat=0):
    """The data of the options: fresh sets to train on, and a batch of sets to validate."""
    seed = options.seed + repeat
    kmax, wanted, _ = FIGURES[options.figure]

    def batch(rng, count):
        pairs, powers = draw_sets(rng, count, options.training_samples, kmax, wanted)
        return {"entities": pairs}, powers

    training = datasets.GeneratedDataset(
        lambda rng: batch(rng, options.batch_size), options.steps, seed
    )
    return training, batch(datasets.generator(seed, 1), options.validation_sets)


def constant_powers(wanted):
    """`exp(E[log p_k])`: -E[log p_k] = 2 log k + Euler's constant."""
    return np.exp(-2 * np.log(np.arange(1, wanted + 1)) - np.euler_gamma)


def least_squares_powers(pairs, frequencies, wanted, chunk=64):
    """Powers of the trigonometric polynomial of that degree that fits a set best.

    Args:
        pairs: `(count, samples, 2)`.
        frequencies: Degree of the polynomial.
        wanted: How many powers to return, at most `frequencies`.
        chunk: Sets to work on at a time.

    Returns:
        float64 `(count, wanted)`. Of several best fits it is that of the least coefficients.
    """
    k = np.arange(1, frequencies + 1)
    powers = []
    for start in range(0, len(pairs), chunk):
        x, y = np.moveaxis(pairs[start : start + chunk].astype("float64"), -1, 0)
        angles = x[..., None] * k
        design = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
        fit = np.linalg.pinv(design) @ y[..., None]
        cosine, sine = np.split(fit[..., 0], 2, axis=-1)
        powers.append((cosine**2 + sine**2)[:, :wanted])
    return np.concatenate(powers)
