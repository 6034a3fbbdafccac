import threading
from collections.abc import Callable
from collections.abc import Collection
from typing import Any
from typing import Self


class _Active(threading.local):
    # Each thread has its own. No `ContextVar`: torch compiles nothing that asks one.
    scope: "ChunkedPoolingScope | None" = None


_ACTIVE = _Active()


class ChunkedPoolingScope:
    """Scope in which layers see a chunk of every set, and others know what the set pools to.

    Inside, layers call `pool(pooling, x, mask, weights)` instead of their poolings. How
    `keras_sets.models.predict_in_chunks` answers it is described there.

    Args:
        pool: Function that answers. None where the sets are whole, inside a scope too.
        states: Object that remembers the states of a `Swarm` for the next time that the same
            chunk is seen, with `restore()` and `keep(iterations, h, c)`; or None.
        whole: Layers that are called on what sets have pooled to, in place of chunks.

    Example:

    >>> import numpy as np, keras_sets
    >>> from keras_sets.layers.pooling import ChunkedPoolingScope
    >>> pooling, chunk = keras_sets.layers.MeanPooling(), np.ones((1, 5, 2))
    >>> with ChunkedPoolingScope(lambda pooling, x, mask, weights: "known"):
    ...     pooling(chunk)
    'known'
    """

    def __init__(
        self,
        pool: Callable[..., Any] | None,
        states: Any = None,
        whole: Collection[Any] = (),
    ) -> None:
        self.pool: Any = pool
        self.states = states
        self.whole = whole

    def __enter__(self) -> Self:
        self._outer = _ACTIVE.scope
        _ACTIVE.scope = self
        return self

    def __exit__(self, *error: Any) -> None:
        _ACTIVE.scope = self._outer


def get_chunked_pooling_scope() -> ChunkedPoolingScope | None:
    """The scope that is active, or None where sets are whole."""
    scope = _ACTIVE.scope
    return None if scope is None or scope.pool is None else scope
