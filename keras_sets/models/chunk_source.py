from keras_sets import validation
from keras_sets.utils.backend_arrays import check_integers
from keras_sets.utils.backend_arrays import in_native_order


class ChunkSource:
    """The chunks, once more at every `open()`, as they were given; `read` checks them."""

    def __init__(self, chunks):
        self._iterator = None
        self._count = None
        self._shape = None
        self._open = chunks if callable(chunks) else chunks.__iter__ if _iterable(chunks) else None
        if self._open is None:
            raise ValueError(
                "Received an invalid value for `chunks`, expected a list of chunks or a "
                f"function that returns an iterator over them. Received: chunks={chunks!r}"
            )
        self._once = not callable(chunks) and iter(chunks) is chunks

    def needed_again(self):
        if self._once:
            raise ValueError(
                "This network needs several passes over `chunks`, one for every pooling and "
                "one for the outputs, but an iterator can be read only once: pass a list, or a "
                "function that returns a fresh iterator. Received: "
                f"chunks of type {type(self._iterator).__name__}"
            )

    def open(self):
        before = self._iterator
        iterable = self._open()
        if not _iterable(iterable):
            raise ValueError(
                "Expected `chunks()` to return an iterator over chunks. Received: "
                f"{type(iterable).__name__}"
            )
        self._iterator = iter(iterable)
        if self._iterator is before:
            raise ValueError(
                "Expected `chunks()` to return a fresh iterator at every call, because the "
                "network needs several passes. Received: the same iterator twice"
            )
        return self._counted(self._iterator)

    def _counted(self, iterator):
        count = 0
        for chunk in iterator:
            count += 1
            waiting = [chunk]
            del chunk  # nothing holds a chunk while the next one is made
            yield waiting.pop()
        if count == 0 or self._count not in (None, count):
            expected = "at least one chunk" if self._count is None else f"{self._count} chunks"
            raise ValueError(
                f"Expected {expected} in every pass over `chunks`. Received: {count} chunks"
            )
        self._count = count

    def read(self, chunk):
        """`(entities, mask, weights)` of a chunk, or of the function that returns it."""
        chunk = chunk() if callable(chunk) else chunk
        parts = tuple(chunk) if isinstance(chunk, (tuple, list)) else (chunk,)
        if isinstance(chunk, dict) or not 1 <= len(parts) <= 3 or parts[0] is None:
            received = "a dict" if isinstance(chunk, dict) else f"a tuple of {len(parts)} parts"
            raise ValueError(
                "Expected a chunk to be an array of entities or a tuple (entities, mask, "
                f"weights). Received: {received}"
            )
        entities, mask, weights = map(in_native_order, parts + (None,) * (3 - len(parts)))
        shape = validation.shape_of(entities)
        if len(shape) < 3:
            raise ValueError(
                "Expected `chunks` to be a list of arrays `(batch, *entities, features)`. A chunk "
                "of one set has a batch axis too, `chunk[None]`. Received: a chunk of shape "
                f"{shape}"
            )
        validation.check_set("chunks", entities, None, None)
        check_integers("chunks", entities)
        # An element of `DSS` has further axes, of which masks and weights know nothing.
        given = [len(validation.shape_of(value)) for value in (mask, weights) if value is not None]
        known = shape[:-1] if not given or given[0] < 2 else shape[:-1][: given[0]]
        described = "(batch, *entities)"
        validation.check_multiplicities("chunks", described, shape, known, mask, weights)
        self.check_shape((shape[0], *shape[2:]))
        return entities, mask, weights

    def check_shape(self, shape):
        """Of a chunk without its first entity axis."""
        if self._shape not in (None, shape):
            raise ValueError(
                "Expected all chunks to hold parts of the same sets, so with equal sizes of all "
                f"axes but the first entity axis, here {self._shape}. Received: {shape}"
            )
        self._shape = shape


def _iterable(value):
    return hasattr(value, "__iter__")
