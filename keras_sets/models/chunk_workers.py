"""Workers that share the chunks of `predict_in_chunks`."""

import functools
import hashlib
import pickle

import keras
from keras import ops

from keras_sets import layers as set_layers
from keras_sets.models.chunk_pass import ChunkPass
from keras_sets.models.chunk_source import ChunkSource

# The network that this process has unpickled last, by its digest.
_KNOWN: dict = {}


class ChunkWorkers:
    """Passes over chunks, each chunk in one of several workers.

    Args:
        executor: Object with the `map` of `concurrent.futures.Executor`.
        network: What `predict_in_chunks` was given.
        parts: Its layers that see chunks.
        scratch_dir: Has to be None.

    Raises:
        ValueError: If there is no such method, or the order of the chunks counts.
    """

    def __init__(self, executor, network, parts, scratch_dir):
        if not callable(getattr(executor, "map", None)):
            raise ValueError(
                "Received an invalid value for `executor`, expected an object with the method "
                "`map` of `concurrent.futures.Executor`, such as a `ProcessPoolExecutor`. "
                f"Received: executor={executor!r}"
            )
        if scratch_dir is not None:
            raise ValueError(
                "Expected one of `scratch_dir` and `executor`: workers compute iterations anew. "
                f"Received: scratch_dir={str(scratch_dir)!r}, executor={executor!r}"
            )
        for part in parts:
            pooling = part if isinstance(part, set_layers.Pooling) else None
            pooling = getattr(part, "pooling", pooling)
            if getattr(pooling, "symmetry", None) == "causal":
                raise ValueError(
                    f"Layer '{part.name}' has a causal pooling, which needs the chunks in order: "
                    f"expected no `executor`. Received: executor={executor!r}"
                )
        self._executor = executor
        self._pickled = pickle.dumps(network)

    def run(self, finished, chunks, remaining):
        """What every chunk gives: the state of the first pooling not `finished`, or outputs."""
        finished = keras.tree.map_structure(ops.convert_to_numpy, finished)
        task = functools.partial(run_chunk, self._pickled, finished)
        # Dask takes lists only; every executor asks for all items before the first result.
        for shape, result in self._executor.map(task, list(remaining)):
            chunks.check_shape(shape)
            yield result


def run_chunk(pickled, finished, chunk):
    """One chunk, in a worker.

    Returns:
        The chunk's shape without its first entity axis, and its outputs or its state.
    """
    # `chunks` imports this module.
    from keras_sets.models.chunks import as_function

    digest = hashlib.sha256(pickled).digest()
    if digest not in _KNOWN:
        _KNOWN.clear()
        _KNOWN[digest] = pickle.loads(pickled)
    run, _, whole = as_function(_KNOWN[digest])
    finished = keras.tree.map_structure(ops.convert_to_tensor, finished)
    current = ChunkPass(run, finished, None, whole)
    outputs = current(ChunkSource([chunk]).read(chunk))
    if outputs is None:
        outputs = keras.tree.map_structure(ops.convert_to_numpy, current.state)
    shape = current.inputs_shape
    return (shape[0], *shape[2:]), outputs
