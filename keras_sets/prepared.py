"""What a layer has made ready, so that the layers and functions it calls do not do so again."""

import threading
from typing import Self

from keras_sets._typing import Tensor


class _Active(threading.local):
    # Each thread has its own.
    set: tuple[Tensor, Tensor | None, Tensor | None] = (None, None, None)


_ACTIVE = _Active()


class PreparedScope:
    """Scope in which a set is known to be ready.

    The same tensors are known by their identity. Any other tensor is prepared as ever.

    Args:
        x: Entities, exact zeros where they are absent.
        mask, weights: As `keras_sets.ops.multiplicities` returns them.
    """

    def __init__(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> None:
        self._set = x, mask, weights

    def __enter__(self) -> Self:
        self._outer = _ACTIVE.set
        _ACTIVE.set = self._set
        return self

    def __exit__(self, *error: object) -> None:
        _ACTIVE.set = self._outer


def are_ready(mask: Tensor | None, weights: Tensor | None) -> bool:
    """Whether `multiplicities(mask, weights)` changes nothing but the dtype of the weights."""
    _, known_mask, known_weights = _ACTIVE.set
    return mask is not None and mask is known_mask and (weights is None or weights is known_weights)


def is_ready(x: Tensor, mask: Tensor | None, weights: Tensor | None) -> bool:
    """Whether also `apply_mask(x, mask)` changes nothing."""
    return x is _ACTIVE.set[0] and are_ready(mask, weights)
