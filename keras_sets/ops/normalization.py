"""Normalisation of whole sets."""

from collections.abc import Callable

from keras import ops

from keras_sets._typing import Tensor
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.pooling import set_max
from keras_sets.ops.pooling import set_mean

# Below the square of a size, which is between 1 and 1 / n: a root of 0 has no gradient.
TINY = 1e-12
# Below this a third moment is none.
SYMMETRIC = 1e-5


def set_standardize(
    x: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    epsilon: float = 1e-5,
    mean_over: Callable[..., Tensor] = set_mean,
) -> Tensor:
    """Subtracts the mean of a set and divides by its standard deviation.

    There is one mean and one variance for a set, over its present entities and all
    features together, every entity counted `weights` times. Absent entities get 0.

    Args:
        mean_over: Function like `set_mean`, which may know more of the set than `x`.
    """
    dtype = accumulation_dtype(x)
    mask, weights = multiplicities(mask, weights, dtype)

    def mean(x):
        # `ops.mean` rounds float64 on torch.
        of_features = ops.sum(x, axis=-1, keepdims=True) / x.shape[-1]
        return mean_over(of_features, mask, weights, keepdims=True)

    x = apply_mask(ops.cast(x, dtype), mask)
    # The mean of numbers far from 0 is rounded: what is left over is taken off as well. The
    # result does not depend on the first shift, so no gradient needs to pass through it.
    deviation = apply_mask(x - ops.stop_gradient(mean(x)), mask)
    deviation = apply_mask(deviation - mean(deviation), mask)
    variance = mean(ops.square(deviation))
    return deviation / ops.sqrt(variance + epsilon)


def principal_axes(
    x: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    mean_over: Callable[..., Tensor] = set_mean,
    max_over: Callable[..., Tensor] = set_max,
) -> Tensor:
    """A set in coordinates of its own: centred, turned to its principal axes, of unit size.

    Args:
        x: `(batch, n, d)`.
        mean_over, max_over: Functions like `set_mean` and `set_max`, which may know more of the
            set than `x`.

    Returns:
        `(batch, n, d)`: the axes in the order of falling variance, each pointing to where the
        third moment is positive; the mean of the variances of the axes is 1. Absent entities
        get 0, and so do all entities of a set without extent.
    """
    dtype = accumulation_dtype(x)
    mask, weights = multiplicities(mask, weights, dtype)
    x = apply_mask(ops.cast(x, dtype), mask)
    # Twice, because the first mean of large numbers is as good as their rounding.
    for _ in range(2):
        x = apply_mask(x - mean_over(x, mask, weights, keepdims=True), mask)
    # To a size whose square is in range, then to the exact one, in which the first cancels.
    largest = max_over(ops.abs(ops.stop_gradient(x)), mask, keepdims=True)
    largest = ops.sum(largest, axis=-1, keepdims=True)
    x = safe_ratio(x, ops.broadcast_to(largest, ops.shape(x)))
    d = x.shape[-1]
    square = ops.sum(ops.square(x), axis=-1, keepdims=True) / d
    size = ops.sqrt(mean_over(square, mask, weights, keepdims=True) + TINY)
    x = x / size
    products = ops.expand_dims(x, -1) * ops.expand_dims(x, -2)
    flat = ops.reshape(products, (*ops.shape(x)[:-1], d * d))
    covariance = ops.reshape(mean_over(flat, mask, weights), (ops.shape(x)[0], d, d))
    x = x @ _eigenvectors(ops.stop_gradient(covariance))
    skewness = ops.stop_gradient(mean_over(x**3, mask, weights, keepdims=True))
    # What two points have along their axis is rounding error.
    turned = skewness < -SYMMETRIC
    return x * ops.where(turned, -ops.ones_like(skewness), ops.ones_like(skewness))


def _eigenvectors(matrix):
    """Of symmetric matrices, as columns in the order of falling eigenvalues."""
    d = matrix.shape[-1]
    if d == 1:
        return ops.ones_like(matrix)
    if d > 2:
        return ops.flip(ops.linalg.eigh(matrix)[1], axis=-1)
    # In closed form, which every format of export knows: half the angle of (a - c, 2 b).
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    length = ops.sqrt(ops.square(a - c) + 4 * ops.square(b))
    round_ = length <= 0
    length = ops.where(round_, ops.ones_like(length), length)
    along = ops.where(round_, ops.ones_like(a), (a - c) / length)
    across = 2 * b / length
    signed = ops.where(across < 0, -ops.ones_like(b), ops.ones_like(b))
    # Of the two equal directions the one in which nothing cancels.
    first = along >= 0
    cosine = ops.where(first, 1 + along, ops.abs(across))
    sine = ops.where(first, across, signed * (1 - along))
    length = ops.sqrt(ops.square(cosine) + ops.square(sine))
    cosine, sine = cosine / length, sine / length
    return ops.stack([ops.stack([cosine, -sine], -1), ops.stack([sine, cosine], -1)], axis=-2)
