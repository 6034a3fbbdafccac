"""Networks on sets that are larger than memory."""

import collections
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras

from keras_sets._typing import State
from keras_sets.models.chunk_network import as_function
from keras_sets.models.chunk_network import check_layer
from keras_sets.models.chunk_network import gives_one_output_a_set
from keras_sets.models.chunk_pass import ChunkPass
from keras_sets.models.chunk_source import ChunkSource
from keras_sets.models.chunk_workers import ChunkWorkers
from keras_sets.models.scratch_states import ScratchStates


def predict_in_chunks(
    network: keras.Model | keras.layers.Layer | Sequence[keras.layers.Layer],
    chunks: Iterable[Any] | Callable[[], Iterable[Any]],
    scratch_dir: str | os.PathLike[str] | None = None,
    executor: Any = None,
) -> Any:
    """Outputs of a network for sets that do not fit in memory, chunk by chunk.

    The entities of a set arrive in chunks, in a fixed order. The outputs equal those for the
    whole set up to rounding, while only one chunk is in memory at a time.

    The network runs on one chunk after the other inside a `ChunkedPoolingScope`, in which its
    poolings ask what the whole set pools to. In the first pass over the chunks the first
    pooling does not know yet: its state is updated with the chunk, and the computation of the
    chunk ends there. After the pass the state is finished. In the second pass the first pooling
    is read from what is known, and the second one is updated; and so on, until a pass reaches
    the outputs. A `Swarm` with T iterations, which pools T - 1 times, needs T passes, the last
    one for the outputs. Every pass computes the iterations before it anew, T (T + 1) / 2 in
    all. With `scratch_dir` it reads the hidden states that the pass before has left, and
    computes one iteration: T in all. Layers that take other sums over the set, such as the
    moments of a `SlotRefinement`, need a pass for each. A causal pooling carries its state from
    chunk to chunk and answers at once: it needs no pass of its own. Points that attend to a
    set do so in one pass. What follows a pooling with one output a set sees the whole answer,
    and may be any layer.

    Args:
        network: A functional model such as those of `keras_sets.models.deep_sets` and
            `keras_sets.models.swarm`, a `keras.Sequential`, a layer, or a list of layers.
            Its layers are `PermutationEquivariantDense`, `Swarm`, `DSS` and its kind, poolings,
            `InducedSetAttentionBlock`, `PoolingByMultiheadAttention`, `PrincipalAxes`,
            `SetNormalization`, `SlotRefinement`, Keras layers that compute every entity on its
            own, such as `Dense` and `Activation`, and models of such layers.
        chunks: A list of chunks, or a function without arguments that returns a fresh
            iterator over them at every call. A chunk is an array of entities
            `(batch, *entities, features)`, for `DSS` `(batch, n, *element)`, or a tuple
            `(entities, mask)` or `(entities, mask, weights)` in which mask and weights may be
            None. A chunk may have any number of entities, none included; it holds the same
            sets as the others. Chunks are parts along the first entity axis. A function without
            arguments that returns a chunk stands for the chunk: it is called in every pass.
        scratch_dir: Folder for the hidden states of a `Swarm` between the passes,
            8 * hidden_units bytes an entity in float32. They are removed at the end. None
            computes iterations anew.
        executor: Workers that share the chunks of every pass: an object with the `map` of
            `concurrent.futures.Executor`, such as a `ProcessPoolExecutor` with the start method
            "spawn", or `client.get_executor()` of Dask. Workers get the pickled network and a
            chunk, and send the state of a pooling back, or the outputs of the chunk. None
            computes in this process.

    Returns:
        With one output an entity: an iterator over the outputs of the chunks, as NumPy
        arrays; all passes but the last are made before it is returned. With one output a
        set: a NumPy array. A model with both kinds of outputs gives an iterator, in which those
        of sets come again with every chunk.

    Raises:
        ValueError: If a layer cannot be computed in chunks, the chunks can be seen only once
            but are needed more often, `scratch_dir` is not a folder that can be written, or
            an `executor` would have to keep chunks in order, for a causal pooling, or hidden
            states, in `scratch_dir`.

    Example:

    >>> import numpy as np, keras_sets
    >>> model = keras_sets.models.swarm(2, 4, hidden_units=8, iterations=3)
    >>> points = np.random.default_rng(0).normal(size=(1, 90, 2)).astype("float32")
    >>> chunks = [points[:, start : start + 20] for start in range(0, 90, 20)]
    >>> outputs = keras_sets.models.predict_in_chunks(model, chunks)
    >>> np.concatenate(list(outputs), axis=1).shape
    (1, 90, 4)
    """
    run, parts, whole = as_function(network)
    for part in parts:
        check_layer(part, whole)
    chunks = ChunkSource(chunks)
    workers = None if executor is None else ChunkWorkers(executor, network, scratch_dir)
    scratch = None if scratch_dir is None else ScratchStates(scratch_dir)
    finished: list[State] = []
    while True:
        current = ChunkPass(run, finished, scratch, whole, in_order=workers is None)
        remaining = chunks.open()
        outputs = current(chunks.read(next(remaining)))
        if outputs is not None:
            break
        chunks.needed_again()
        if workers is None:
            collections.deque(_outputs(current, chunks, remaining), maxlen=0)
        else:
            for state in workers.run(finished, chunks, remaining):
                current.add(state)
        finished.append(current.finish())
    if gives_one_output_a_set(parts, current.inputs_shape):
        return outputs
    if workers is None:
        return _rest([outputs], _outputs(current, chunks, remaining))
    return _rest([outputs], workers.run(finished, chunks, remaining))


def _outputs(current, chunks, remaining):
    """Of the chunks that remain, none of which is held while the next one is made."""
    return map(lambda chunk: current(chunks.read(chunk)), remaining)


def _rest(made, remaining):
    yield made.pop()
    yield from remaining
