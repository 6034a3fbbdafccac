"""Errors of log p for networks, least squares, and the constant prediction."""

import numpy as np

from examples.power_spectrum import data


def squared_errors(predicted, powers):
    """Squares of the errors of log p, `(sets, wanted)`."""
    return np.square(np.log(predicted) - np.log(powers.astype("float64")))


def network_powers(model, pairs, weights=None, pairs_at_once=2**16):
    """What the network says, in batches of about the same number of pairs."""
    inputs = {"entities": pairs}
    if weights is not None:
        inputs["weights"] = weights.astype("float32")
    batch_size = max(1, pairs_at_once // pairs.shape[1])
    return model.predict(inputs, batch_size=batch_size, verbose=0).astype("float64")


def network_errors(model, pairs, powers, weights=None):
    return squared_errors(network_powers(model, pairs, weights), powers)


def least_squares_errors(pairs, powers, frequencies):
    """Those of least squares with so many frequencies."""
    predicted = data.least_squares_powers(pairs, frequencies, powers.shape[1])
    return squared_errors(np.maximum(predicted, 1e-30), powers)


def constant_errors(powers):
    return squared_errors(data.constant_powers(powers.shape[1]), powers)


def summary(errors):
    """Mean over sets and powers, and the standard error over sets."""
    by_set = errors.mean(axis=1)
    return float(by_set.mean()), float(by_set.std(ddof=1) / np.sqrt(len(by_set)))


def table(title, rows):
    """Text of `rows`: name, number of parameters or None, errors `(sets, wanted)`."""
    wanted = rows[0][2].shape[1]
    width = max(len(name) for name, _, _ in rows)
    heads = [f"k = {k}" for k in range(1, wanted + 1)]
    lines = [
        f"{title}; mean square error of log p, ± standard error",
        f"{'':{width}} {'parameters':>11} {'all':>17}" + "".join(f"{head:>9}" for head in heads),
    ]
    for name, parameters, errors in rows:
        mean, error = summary(errors)
        size = "-" if parameters is None else f"{parameters:,}"
        cells = "".join(f"{value:9.4f}" for value in errors.mean(axis=0))
        lines.append(f"{name:{width}} {size:>11} {f'{mean:.4f} ± {error:.4f}':>17}{cells}")
    return "\n".join(lines)
