"""Padding sets of different sizes to one size."""

import numpy as np
from numpy.typing import DTypeLike

from keras_sets import validation
from keras_sets._typing import Sets
from keras_sets.utils.ragged import read_ragged


def pad_sets(
    sets: Sets, size: int | None = None, dtype: DTypeLike | None = None, value: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Puts sets of different sizes in one array, with a mask.

    It is to sets what `keras.utils.pad_sequences` is to sequences: padding follows the
    entities, nothing is cut off, and a mask says which entities are real.

    Args:
        sets: List of arrays of shape `(n_i, features)`, `(n_i,)` or with more axes, where
            `n_i` may be 0; an object array of them; one array `(sets, n, ...)`; or a
            `tf.RaggedTensor`. Targets, labels and weights of entities are padded alike.
        size: How many entities to pad to. None: as many as the largest set has, at least 1.
        dtype: Of the result. None: `keras.config.floatx()` for floating-point numbers, and
            the dtype of the sets for integers and bools.
        value: What stands at the padding, for example -1 for labels.

    Returns:
        `(entities, mask)`: an array `(sets, size, ...)` and a bool array `(sets, size)`, True
        for a real entity. NaN and infinite values come through as they are.

    Raises:
        ValueError: There is no set; sets have different features; `size` is less than a set
            has; `value` or what the sets hold is none of the dtype.

    Example:

    >>> import numpy as np, keras_sets
    >>> sets = [np.ones((3, 2)), np.ones((1, 2)), np.ones((0, 2))]
    >>> entities, mask = keras_sets.utils.pad_sets(sets)
    >>> entities.shape, mask.sum(axis=1).tolist()
    ((3, 3, 2), [3, 1, 0])
    >>> labels, _ = keras_sets.utils.pad_sets([[2, 0, 1], [1], []], value=-1)
    >>> labels.tolist()
    [[2, 0, 1], [1, -1, -1], [-1, -1, -1]]
    """
    ragged = read_ragged("sets", sets, dtype)
    sizes = ragged.sizes
    if size is None:
        size = max(1, int(sizes.max()))
    size = validation.positive_integer("size", size)
    if size < sizes.max():
        raise ValueError(
            f"`size` must hold all entities of every set: set {sizes.argmax()} has "
            f"{sizes.max()}. Received: size={size}"
        )
    if ragged.values.dtype.kind in "biu":
        _check_value(value, ragged.values.dtype)
    rows = np.broadcast_to(np.arange(size), (len(sizes), size))
    mask = rows < sizes[:, None]
    return ragged.padded(np.arange(len(sizes)), rows, mask, value), mask


def _check_value(value, dtype):
    """NumPy would wrap -1 of an unsigned dtype around, and cut fractions off."""
    with np.errstate(invalid="ignore"):
        stored = np.asarray(value).astype(dtype)
    if stored != value:
        raise ValueError(
            f"`value` must be a number that the dtype {dtype} of the result can hold. Received: "
            f"value={value!r}. `dtype=` is another dtype for the result"
        )
