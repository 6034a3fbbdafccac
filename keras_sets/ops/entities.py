"""Which entities of a set are there, how often each one counts, and sums over them.

Shapes: `x` is `(batch, *entities, features)`, `mask` and `weights` are
`(batch, *entities)`. An entity with weight 0 is absent, exactly as if it were masked.
"""

import math

import numpy as np
from keras import backend
from keras import ops

from keras_sets import prepared
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.ops import loops as loop_ops

# So many entities TensorFlow adds up one after the other; more are added in blocks of this
# size, because the rounding errors of a single running sum grow with its length.
BLOCK = 1024
# On GPUs the gradient of a running sum of n places is n sums over windows, in JAX.
SHORT_BLOCK = 32


def accumulation_dtype(x: Tensor) -> str:
    """float64 for float64 input, float32 for everything else."""
    return "float64" if backend.standardize_dtype(x.dtype) == "float64" else "float32"


def entity_axes(x: Tensor) -> tuple[int, ...]:
    """All axes between the first (batch) and the last (features)."""
    return tuple(range(1, len(x.shape) - 1))


def known_size(x: Tensor) -> int | None:
    """How many entities every set has, where that is known and not 0; else None.

    Sizes in a graph that torch traces are symbols, which may turn out to be 0.
    """
    sizes = x.shape[1:-1]
    return (math.prod(sizes) or None) if all(type(size) is int for size in sizes) else None


def multiplicities(
    mask: Tensor | None = None, weights: Tensor | None = None, dtype: str = "float32"
) -> tuple[Tensor | None, Tensor | None]:
    """Reduces a mask and weights to `(mask, weights)`.

    `mask` is bool `(batch, *entities)`, or None when every entity is there.
    `weights` is float, 0 at absent entities whatever they held before (NaN
    included), or None when every present entity counts once. A weight of a present entity
    that is negative or NaN becomes NaN, and so does what is pooled with it: inside compiled
    graphs, where no check sees it, nothing else can tell. So does a mask that holds numbers
    other than 0 and 1, which are weights that were given as the mask.
    """
    if prepared.are_ready(mask, weights):
        return mask, None if weights is None else ops.cast(weights, dtype)
    if weights is not None:
        weights = ops.cast(weights, dtype)
        weights = weights + nan_unless_weights(weights)
    if mask is not None:
        mask = ops.convert_to_tensor(mask)
        if backend.standardize_dtype(mask.dtype) != "bool":
            numbers = ops.cast(mask, dtype)
            mask = ops.not_equal(numbers, 0)
            doubt = nan_unless_weights(-ops.square(numbers * (1 - numbers)))
            weights = doubt + (ops.cast(mask, dtype) if weights is None else weights)
    if weights is None:
        return mask, None
    counted = ops.logical_not(weights <= 0)
    mask = counted if mask is None else ops.logical_and(counted, mask)
    return mask, ops.where(mask, weights, ops.zeros_like(weights))


def nan_unless_weights(weights: Tensor) -> Tensor:
    """0 where `weights` are at least 0, NaN elsewhere; without a gradient.

    A root rather than a fill of NaN: exporters write `where` as products.
    """
    wrong = ops.where(weights >= 0, ops.zeros_like(weights), weights)
    return ops.stop_gradient(ops.sqrt(wrong))


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with exact zeros at absent entities, in value and in gradient.

    `mask` has the leading axes of `x`: an entity may have more axes than that of its
    features.
    """
    if mask is None:
        return x
    mask = ops.expand_dims(mask, tuple(range(len(mask.shape), len(x.shape))))
    return ops.where(mask, x, ops.zeros_like(x))


def fit_mask(mask: Tensor, shape: Shape) -> Tensor:
    """A bool mask that came along with a tensor, for a part or an extension of its axes.

    An entity is there if any of its places is; a mask of entities is that of all their places.

    Args:
        mask: bool `(batch, *axes)`.
        shape: What the mask is to have, as of `ops.shape`.
    """
    more = tuple(range(len(shape), len(mask.shape)))
    mask = ops.any(mask, axis=more) if more else mask
    fewer = tuple(range(len(mask.shape), len(shape)))
    mask = ops.expand_dims(mask, fewer) if fewer else mask
    pairs = zip(mask.shape, shape, strict=True)
    return ops.broadcast_to(mask, shape) if any(m == 1 and s != 1 for m, s in pairs) else mask


def flatten_entities(x: Tensor) -> Tensor:
    """`(batch, *entities, features)` to `(batch, n, features)`, row-major."""
    if len(x.shape) == 3:
        return x
    entities = x.shape[1:-1]
    if None in entities:
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
    # An empty tensor leaves nothing to infer the batch from.
    batch = ops.shape(x)[0] if 0 in entities else -1
    return ops.reshape(x, (batch, math.prod(entities), x.shape[-1]))


def flatten_set(
    x: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A set with one entity axis, and its mask and weights, of which both may be None."""
    flat = [
        None if t is None else flatten_entities(ops.expand_dims(t, -1))[..., 0]
        for t in (mask, weights)
    ]
    return flatten_entities(x), *flat


def expand_over_entities(pooled: Tensor, rank: int) -> Tensor:
    """`(batch, features)` to `(batch, 1, ..., 1, features)` of the given rank."""
    return ops.expand_dims(pooled, tuple(range(1, rank - 1)))


def accumulate(
    x: Tensor, mask: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Widens `x`, zeroes absent entities; returns x, mask, weights."""
    dtype = accumulation_dtype(x)
    ready = prepared.is_ready(x, mask, weights)
    mask, weights = multiplicities(mask, weights, dtype)
    x = ops.cast(x, dtype)
    return x if ready else apply_mask(x, mask), mask, weights


def counts_of(x: Tensor, mask: Tensor | None, weights: Tensor | None) -> Tensor:
    """The multiplicity of every entity, `(batch, *entities, 1)`, in x's dtype."""
    if weights is not None:
        return ops.expand_dims(weights, -1)
    if mask is not None:
        return ops.expand_dims(ops.cast(mask, x.dtype), -1)
    return ops.ones_like(x[..., :1])


def scale_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    """`(weights / scale, scale)`, scale about the largest weight of every set.

    Where only ratios matter this keeps tiny and huge weights within range. The scale
    cancels, so no gradient needs to pass through it.
    """
    axes = tuple(range(1, len(weights.shape)))
    largest = ops.stop_gradient(largest_over(weights, axes, keepdims=True))
    # Not 0, and not above what has a reciprocal, by which XLA multiplies in place of a division.
    limits = np.finfo(accumulation_dtype(weights))
    scale = ops.clip(largest, float(limits.tiny), float(limits.max) / 32)
    return weights / scale, scale


def log_weights(weights: Tensor) -> Tensor:
    """What weights add to the exponents of a sum of exponentials; 0 at absent entities."""
    return ops.log(ops.where(weights == 0, ops.ones_like(weights), weights))


def safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, 0 where the denominator is not positive. NaN stays."""
    nothing = denominator <= 0
    safe = ops.where(nothing, ops.ones_like(denominator), denominator)
    return ops.where(nothing, ops.zeros_like(numerator), numerator / safe)


def larger(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two tensors, NaN if one is. (`ops.maximum` rounds float64 on torch.)"""
    return ops.where(ops.logical_or(a > b, a != a), a, b)


def largest_over(x: Tensor, axes: int | tuple[int, ...], keepdims: bool = False) -> Tensor:
    """`ops.max` that allows a batch of no sets, and gives 0 for sets of known size 0."""
    if 0 in x.shape:
        return ops.sum(x, axis=axes, keepdims=keepdims)
    if backend.backend() == "torch" and not all(type(size) is int for size in x.shape):
        # Traced for export: sizes that turn out to be 0 have no maximum in torch.
        widths = np.zeros((len(x.shape), 2), int)
        widths[np.array(axes), 1] = 1
        x = ops.pad(x, widths.tolist(), constant_values=lowest(x))
    if hasattr(x, "amax"):
        # `ops.max` ends what torch compiles.
        return x.amax(axes, keepdim=keepdims)
    return ops.max(x, axis=axes, keepdims=keepdims)


def lowest(x: Tensor) -> float:
    """What fills absent places below all others.

    Finite, because exporters write `where` as products, in which infinity gives NaN.
    """
    return float(np.finfo(accumulation_dtype(x)).min)


def _needs_blocks(n):
    return backend.backend() == "tensorflow" and (n is None or n > BLOCK)


def _in_blocks(x, block=BLOCK):
    """`(batch, n, features)` to `(batch, blocks, block, features)`, filled up with zeros."""
    _, n, features = ops.shape(x)
    blocks = (n + block - 1) // block
    x = ops.pad(x, ((0, 0), (0, blocks * block - n), (0, 0)))
    return ops.reshape(x, (ops.shape(x)[0], blocks, block, features))


def sum_over_entities(x: Tensor, keepdims: bool = False) -> Tensor:
    """Sum of `(batch, *entities, features)` over the entities."""
    sizes = x.shape[1:-1]
    if not _needs_blocks(None if None in sizes else math.prod(sizes)):
        return ops.sum(x, axis=entity_axes(x), keepdims=keepdims)
    parts = ops.sum(_in_blocks(flatten_entities(x)), axis=2)
    # XLA makes one long sum of two, but for what lies between them: it cannot know that no part
    # is NaN, which alone is another number than itself.
    parts = ops.where(parts == parts, parts, 0 * parts)
    total = ops.sum(parts, axis=1)
    return expand_over_entities(total, len(x.shape)) if keepdims else total


def running_sum(x: Tensor) -> Tensor:
    """Sums of `(batch, n, features)` over the entities up to each one, itself included."""
    if loop_ops.jax_on_accelerator():
        block = SHORT_BLOCK
    elif backend.backend() == "tensorflow":
        block = BLOCK
    else:
        return x.cumsum(1)  # `ops.cumsum` rounds float64 on torch
    known = isinstance(x.shape[1], int)
    if known and x.shape[1] <= block:
        return ops.cumsum(x, axis=1)
    batch, n, features = ops.shape(x)
    inside = ops.cumsum(_in_blocks(x, block), axis=2)
    before = ops.pad(inside[:, :-1, -1], ((0, 0), (1, 0), (0, 0)))
    # A size that is not known would never be found to be small.
    before = running_sum(before) if known else ops.cumsum(before, axis=1)
    return ops.reshape(inside + ops.expand_dims(before, 2), (batch, -1, features))[:, :n]
