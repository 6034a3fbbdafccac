"""The layers as plain NumPy loops over sets and entities, in float64: slow and obvious."""

import numpy as np
from scipy import integrate


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def multiplicities(shape, mask, weights):
    """How often every entity counts, `(batch, n)`."""
    counts = np.ones(shape) if weights is None else np.asarray(weights, "float64")
    return counts if mask is None else np.where(mask, counts, 0.0)


def pool(name, x, counts):
    """`(batch, n, features)` to `(batch, features)`, or to `(batch, n, features)` if causal."""
    batch, size, features = x.shape
    if name == "causal":
        y = np.zeros((batch, size, features))
        for b in range(batch):
            for t in range(size):
                if counts[b, t] > 0:
                    y[b, t] = pool("mean", x[b : b + 1, : t + 1], counts[b : b + 1, : t + 1])
        return y
    y = np.zeros((batch, features))
    for b in range(batch):
        members = [(counts[b, i], x[b, i]) for i in range(size) if counts[b, i] > 0]
        if not members:
            continue
        if name == "mean":
            y[b] = sum(w * v for w, v in members) / sum(w for w, _ in members)
        elif name == "sum":
            y[b] = sum(w * v for w, v in members)
        elif name == "max":
            y[b] = np.max([v for _, v in members], axis=0)
        elif name == "logsumexp":
            y[b] = np.log(sum(w * np.exp(v) for w, v in members))
        elif name == "min":
            y[b] = np.min([v for _, v in members], axis=0)
        elif name in ("variance", "standard_deviation"):
            w, v = np.array([w for w, _ in members]), np.array([v for _, v in members])
            y[b] = np.average((v - np.average(v, axis=0, weights=w)) ** 2, axis=0, weights=w)
            y[b] = np.sqrt(y[b]) if name == "standard_deviation" else y[b]
    return y


def pool_with_options(name, x, counts, weights=(), **options):
    """Poolings with options or weights of their own, for `(batch, n, features)`."""
    rows = []
    for points, w in zip(x, counts, strict=True):
        points, w = points[w > 0], w[w > 0]
        features = []
        for f, values in enumerate(points.T):
            order = np.argsort(values)
            v, shares = values[order], np.cumsum(w[order]) / w.sum()
            if not len(v):
                features.append(np.zeros(len(options.get("q", [0]))))
            elif name == "quantile":
                features.append([_quantile(v, shares, q) for q in options["q"]])
            elif name == "sort":
                features.append([_integral(v, shares, weights[0][:, f])])
            elif name == "softmax":
                p = w * np.exp(weights[0][f] * (values - values.max()))
                features.append([(p * values).sum() / p.sum()])
            elif name == "power_mean":
                raised, p = np.maximum(values, options["minimum"]), weights[0][f]
                features.append([np.average(raised**p, weights=w) ** (1 / p)])
        rows.append(np.array(features).T.ravel())
    return np.array(rows)


def _quantile(values, shares, q):
    reached = np.flatnonzero(shares >= q - 1e-9)[0]
    passed = np.flatnonzero(shares > q + 1e-9)
    return (values[reached] + values[passed[0] if len(passed) else -1]) / 2


def _integral(values, shares, heights):
    """Of the step function `values` times a piecewise linear one, by its trapezoids."""
    knots = np.linspace(0, 1, len(heights))
    total, before = 0.0, 0.0
    for value, share in zip(values, shares, strict=True):
        ends = np.unique([before, share, *knots[(knots > before) & (knots < share)]])
        total += value * integrate.trapezoid(np.interp(ends, knots, heights), ends)
        before = share
    return total


def at_entities(pooled, size):
    """The pooled vector at every entity."""
    return pooled if pooled.ndim == 3 else np.repeat(pooled[:, None], size, axis=1)


def permutation_equivariant_dense(x, counts, kernel, pooled_kernel, bias, pooling, activation):
    x = np.where(counts[..., None] > 0, x, 0.0)
    pooled = at_entities(pool(pooling, x, counts), x.shape[1])
    y = np.zeros((*x.shape[:2], kernel.shape[1]))
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            if counts[b, i] > 0:
                y[b, i] = activation(x[b, i] @ kernel + pooled[b, i] @ pooled_kernel + bias)
    return y


def swarm_cell(x, h, c, pooled, kernel, recurrent_kernel, pooled_kernel, bias):
    """One entity: vectors `x`, `h`, `c`, `pooled`. Returns the new `(h, c)`."""
    z = x @ kernel + h @ recurrent_kernel + pooled @ pooled_kernel + bias
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def swarm(x, counts, weights, projection, iterations, pooling="mean", context="swarm"):
    """`weights` of the cell, `projection` its `(kernel, bias)`.

    Returns `(y, h, c)` with the states `(batch, iterations, n, hidden)`.
    """
    batch, size, _ = x.shape
    hidden = weights[1].shape[0]
    x = np.where(counts[..., None] > 0, x, 0.0)
    h, c = np.zeros((2, batch, size, hidden))
    every_h, every_c = [], []
    pooled = np.zeros((batch, size, hidden))
    for iteration in range(iterations):
        if iteration > 0 and context == "swarm" or iteration == 1 and context == "static":
            pooled = at_entities(pool(pooling, h, counts), size)
        elif iteration > 0 and context == "self":
            for i in range(size):
                alone = pool(pooling, h[:, i : i + 1], np.ones((batch, 1)))
                pooled[:, i] = alone.reshape(batch, hidden)
        h, c = h.copy(), c.copy()
        for b in range(batch):
            for i in range(size):
                h[b, i], c[b, i] = swarm_cell(x[b, i], h[b, i], c[b, i], pooled[b, i], *weights)
        every_h.append(np.where(counts[..., None] > 0, h, 0.0))
        every_c.append(np.where(counts[..., None] > 0, c, 0.0))
    kernel, bias = projection
    y = np.concatenate([h, c], axis=-1) @ kernel + bias
    y = np.where(counts[..., None] > 0, y, 0.0)
    return y, np.stack(every_h, axis=1), np.stack(every_c, axis=1)
