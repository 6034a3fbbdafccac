"""Workers that share the chunks of `predict_in_chunks`."""

import functools
import pickle

import keras
from keras import ops

from keras_sets.models.chunk_network import as_function
from keras_sets.models.chunk_pass import ChunkPass
from keras_sets.models.chunk_source import ChunkSource


class ChunkWorkers:
    """Passes over chunks, each chunk in one of several workers.

    Args:
        executor: Object with the `map` of `concurrent.futures.Executor`.
        network: What `predict_in_chunks` was given.
        scratch_dir: Has to be None.

    Raises:
        ValueError: If there is no such method, or hidden states were to wait in files.
    """

    def __init__(self, executor, network, scratch_dir):
        if isinstance(executor, type) or not callable(getattr(executor, "map", None)):
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
        self._executor = executor
        self._pickled = pickle.dumps(network)

    def run(self, finished, chunks, remaining):
        """What every chunk gives: the state of the first pooling not `finished`, or outputs."""
        finished = keras.tree.map_structure(ops.convert_to_numpy, finished)
        task = functools.partial(run_chunk, self._pickled, finished)
        # Dask takes lists only; every executor asks for all items before the first result.
        given, count = list(remaining), 0
        for shape, result in self._executor.map(task, given):
            chunks.check_shape(shape)
            count += 1
            yield result
        if count != len(given):
            raise ValueError(
                f"Expected `executor.map` to give one result for each of {len(given)} chunks. "
                f"Received: {count} results"
            )


def run_chunk(pickled, finished, chunk):
    """One chunk, in a worker.

    Returns:
        The chunk's shape without its first entity axis, and its outputs or its state.
    """
    run, _, whole = as_function(_unpickled(pickled))
    finished = keras.tree.map_structure(ops.convert_to_tensor, finished)
    current = ChunkPass(run, finished, None, whole, in_order=False)
    outputs = current(ChunkSource([chunk]).read(chunk))
    if outputs is None:
        outputs = keras.tree.map_structure(ops.convert_to_numpy, current.state)
    shape = current.inputs_shape
    return (shape[0], *shape[2:]), outputs


@functools.lru_cache(maxsize=1)
def _unpickled(pickled):
    """The network of all chunks that a worker gets one after the other."""
    return pickle.loads(pickled)
