"""Linear maps of points that share their parameters over orbits of pairs."""

import numpy as np
from keras import ops

from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.linear import linear


def orbit_linear(x, kernel, orbits):
    """`y_i = sum_j x_j @ kernel[orbits[i, j]]` by way of the whole matrix.

    Args:
        x: `(batch, n, features)`.
        kernel: `(number of orbits, features, units)`.
        orbits: NumPy integers `(n, n)`.

    Returns:
        `(batch, n, units)` in the accumulation dtype.
    """
    n = orbits.shape[0]
    _, features, units = kernel.shape
    dtype = accumulation_dtype(x)
    matrix = ops.take(ops.cast(kernel, dtype), orbits.T, axis=0)
    matrix = ops.reshape(ops.transpose(matrix, (0, 2, 1, 3)), (n * features, n * units))
    flat = ops.reshape(ops.cast(x, dtype), (-1, n * features))
    return ops.reshape(linear(flat, matrix), (-1, n, units))


def orbit_sums(x, orbits):
    """`s_ik`, the sum of the x_j whose pair (i, j) lies in orbit k.

    The orbits are a partition of all pairs, so the sums of the largest one are the total
    less all others, and the orbit of the pairs (i, i) needs no sum at all: for the
    symmetric group the cost is linear in the number of points.

    Args:
        x: `(batch, n, features)`.
        orbits: NumPy integers `(n, n)`.

    Returns:
        `(batch, n, number of orbits, features)` in the accumulation dtype.
    """
    x = ops.cast(x, accumulation_dtype(x))
    n = orbits.shape[0]
    sizes = np.bincount(orbits.reshape(-1))
    largest = int(np.argmax(sizes))
    rest = ops.broadcast_to(ops.sum(x, axis=1, keepdims=True), ops.shape(x))
    sums = {}
    for orbit in range(len(sizes)):
        if orbit == largest:
            continue
        members = orbits == orbit
        if sizes[orbit] == n and members.diagonal().all():
            sums[orbit] = x
        else:
            sums[orbit] = ops.cast(members.astype("float32"), x.dtype) @ x
        rest = rest - sums[orbit]
    sums[largest] = rest
    return ops.stack([sums[orbit] for orbit in range(len(sizes))], axis=2)
