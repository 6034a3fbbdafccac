"""One pass over the chunks of `predict_in_chunks`."""

import contextlib

import keras
from keras import backend
from keras import ops

from keras_sets import validation
from keras_sets.layers.pooling import ChunkedPoolingScope


class _NotYetKnown(BaseException):
    """Ends the computation of a chunk.

    No Exception, so that nothing on the way catches it or adds to it.
    """


class ChunkPass:
    """One pass over the chunks, see `predict_in_chunks`.

    Args:
        run: Function `run(entities, mask, weights)`.
        finished: Results of the poolings that are known, in the order of the computation.
        scratch: The `ScratchStates` of the pass before, or None.
        whole: Layers that are called on what is pooled already.
        in_order: Whether all chunks come, one after the other.
    """

    def __init__(self, run, finished, scratch, whole, in_order=True):
        self.run = run
        self.whole = whole
        self.finished = finished
        self.scratch = scratch
        self.in_order = in_order
        self._chunk = 0
        self.inputs_shape = None
        self.carried = []
        self.pooling = None
        self.state = None

    def __call__(self, chunk):
        """The outputs for a chunk, or None where a pooling is not known yet."""
        self.inputs_shape = validation.shape_of(chunk[0])
        self._poolings = self._causal_poolings = 0
        self._kept = []
        states = None if self.scratch is None else self
        try:
            with ChunkedPoolingScope(self._pool, states, self.whole), without_gradients():
                outputs = self.run(*chunk)
                return keras.tree.map_structure(ops.convert_to_numpy, outputs)
        except _NotYetKnown:
            for call, state in enumerate(self._kept):
                self.scratch.write((self._chunk, call), *state)
            return None
        finally:
            self._chunk += 1
            self._kept = []

    def add(self, state):
        """Merges what another pass has found in the chunks that it has seen, as arrays."""
        state = keras.tree.map_structure(ops.convert_to_tensor, state)
        self.state = self.pooling.merge(self.state, state)

    def finish(self):
        return self.pooling.finish(self.state)

    def restore(self):
        """What the next `Swarm` that is called has kept in the pass before, or None.

        `(iterations, h, c)`. The poolings before it are taken as asked.
        """
        self._kept.append(None)
        known = self.scratch.read((self._chunk, len(self._kept) - 1))
        if known is None:
            return None
        iterations, self._poolings, h, c = known
        return iterations, h, c

    def keep(self, iterations, h, c):
        """Tells the states of the `Swarm` that is running after so many iterations."""
        self._kept[-1] = iterations, self._poolings, h, c

    def _pool(self, pooling, x, mask, weights):
        if getattr(pooling, "reduces_by_layers", False):
            return pooling.pool(x, mask, weights, keepdims=False)
        batch_and_features = (x.shape[0], x.shape[-1])
        if getattr(pooling, "symmetry", None) == "causal":
            if not self.in_order:
                raise ValueError(
                    "Expected no `executor` for a causal pooling, which needs the chunks in order. "
                    f"Received: pooling={pooling!r}"
                )
            index = self._causal_poolings
            self._causal_poolings += 1
            if index == len(self.carried):
                self.carried.append(pooling.init(*batch_and_features))
            outputs, self.carried[index] = pooling.scan(self.carried[index], x, mask, weights)
            return outputs
        index = self._poolings
        self._poolings += 1
        if index < len(self.finished):
            read = getattr(pooling, "read", None)
            finished = self.finished[index]
            return finished if read is None else read(finished, x, mask, weights)
        if self.state is None:
            self.pooling, self.state = pooling, pooling.init(*batch_and_features)
        self.state = pooling.update(self.state, x, mask, weights)
        raise _NotYetKnown


def without_gradients():
    """On torch, states would hold on to the graph of every chunk."""
    if backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
