"""Networks on sets that are larger than memory."""

import contextlib
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import backend
from keras import ops

from keras_sets import layers as set_layers
from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import State
from keras_sets.layers.pooling import ChunkedPoolingScope
from keras_sets.layers.zero_absent import ZeroAbsent
from keras_sets.models.chunk_source import ChunkSource
from keras_sets.models.scratch_states import ScratchStates

# Layers that compute every entity on its own, at inference.
_ENTITY_BY_ENTITY = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.AlphaDropout,
    keras.layers.Average,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.InputLayer,
    keras.layers.LeakyReLU,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.Subtract,
    ZeroAbsent,
)
# These do if their axis is that of the features.
_ALONG_AN_AXIS = (
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.Softmax,
    keras.layers.UnitNormalization,
)

# Layers that take means, sums and attention over the set on their way.
_REDUCING = (
    set_layers.InducedSetAttentionBlock,
    set_layers.PoolingByMultiheadAttention,
    set_layers.PrincipalAxes,
    set_layers.SetNormalization,
    set_layers.SlotRefinement,
)


def predict_in_chunks(
    network: keras.Model | keras.layers.Layer | Sequence[keras.layers.Layer],
    chunks: Iterable[Any] | Callable[[], Iterable[Any]],
    scratch_dir: str | os.PathLike[str] | None = None,
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
            `SetNormalization`, `SlotRefinement`, and Keras layers that compute every entity on
            its own, such as `Dense` and `Activation`.
        chunks: A list of chunks, or a function without arguments that returns a fresh
            iterator over them at every call. A chunk is an array of entities
            `(batch, *entities, features)`, for `DSS` `(batch, n, *element)`, or a tuple
            `(entities, mask)` or `(entities, mask, weights)` in which mask and weights may be
            None. A chunk may have any number of entities, none included; it holds the same
            sets as the others.
            Chunks are parts along the first entity axis.
        scratch_dir: Folder for the hidden states of a `Swarm` between the passes,
            8 * hidden_units bytes an entity in float32. They are removed at the end. None
            computes iterations anew.

    Returns:
        With one output an entity: an iterator over the outputs of the chunks, as NumPy
        arrays; all passes but the last are made before it is returned. With one output a
        set: a NumPy array.

    Raises:
        ValueError: If a layer cannot be computed in chunks, the chunks can be seen only once
            but are needed more often, or `scratch_dir` is not a folder that can be written.

    Example:

    >>> import numpy as np, keras_sets
    >>> model = keras_sets.models.swarm(2, 4, hidden_units=8, iterations=3)
    >>> points = np.random.default_rng(0).normal(size=(1, 90, 2)).astype("float32")
    >>> chunks = [points[:, start : start + 20] for start in range(0, 90, 20)]
    >>> outputs = keras_sets.models.predict_in_chunks(model, chunks)
    >>> np.concatenate(list(outputs), axis=1).shape
    (1, 90, 4)
    """
    run, parts, whole = _as_function(network)
    for part in parts:
        _check_layer(part)
    chunks = ChunkSource(chunks)
    scratch = None if scratch_dir is None else ScratchStates(scratch_dir)
    finished: list[State] = []
    while True:
        current = _Pass(run, finished, scratch, whole)
        remaining = chunks.open()
        outputs = current(next(remaining))
        if outputs is not None:
            break
        chunks.needed_again()
        for chunk in remaining:
            current(chunk)
            del chunk  # before the next one is made
        finished.append(current.finish())
    if _gives_one_output_a_set(network, parts, current.inputs_shape):
        return outputs
    return _rest([outputs], current, remaining)


def _rest(made, current, remaining):
    yield made.pop()
    for chunk in remaining:
        made.append(current(chunk))
        del chunk
        yield made.pop()


class _NotYetKnown(BaseException):
    """Ends the computation of a chunk.

    No Exception, so that nothing on the way catches it or adds to it.
    """


class _Pass:
    """One pass over the chunks, see `predict_in_chunks`.

    Args:
        run: Function `run(entities, mask, weights)`.
        finished: Results of the poolings that are known, in the order of the computation.
        scratch: The `ScratchStates` of the pass before, or None.
        whole: Layers that are called on what is pooled already.
    """

    def __init__(self, run, finished, scratch, whole):
        self.run = run
        self.whole = whole
        self.finished = finished
        self.scratch = scratch
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


def _as_function(network):
    """`(run, layers, whole)`: a function of entities, mask and weights, and its layers.

    `layers` see chunks. `whole` are those of a model that see what sets have pooled to.
    """
    if isinstance(network, keras.Sequential):
        network = network.layers
    if isinstance(network, keras.Model):
        operations = getattr(network, "operations", None)
        if operations is None:
            raise ValueError(
                "Received an invalid value for `network`, expected a functional model, whose "
                f"layers can be seen. Received: network={network!r}"
            )
        whole = _whole_operations(network, operations)
        parts = [operation for operation in operations if operation not in whole]
        return lambda *chunk: _run_model(network, *chunk), parts, whole
    parts = [network] if isinstance(network, keras.layers.Layer) else network
    if (
        not isinstance(parts, (list, tuple))
        or not parts
        or not all(isinstance(part, keras.layers.Layer) for part in parts)
    ):
        raise ValueError(
            "Received an invalid value for `network`, expected a functional model, a layer or a "
            f"list of layers. Received: network={network!r}"
        )
    count = next((i + 1 for i, part in enumerate(parts) if _is_invariant(part)), len(parts))
    on_chunks, on_pooled = parts[:count], parts[count:]

    def run(*chunk):
        x = _run_layers(on_chunks, *chunk)
        with ChunkedPoolingScope(None):
            return _run_each(on_pooled, x)

    return run, on_chunks, set()


def _is_invariant(layer):
    return getattr(layer, "symmetry", None) == "invariant"


def _whole_operations(model, operations):
    """Operations of a model whose arguments all come from what sets have pooled to."""
    tensors, whole = set(), set()
    for operation in operations:
        try:
            arguments, outputs = (
                {id(t) for t in keras.tree.flatten(t)} for t in (operation.input, operation.output)
            )
        except (AttributeError, ValueError):  # one that is called several times
            continue
        if isinstance(operation, keras.layers.InputLayer):
            continue
        if arguments <= tensors:
            whole.add(operation)
            if isinstance(operation, keras.Model):
                whole.update(operation._flatten_layers())
        if arguments <= tensors or _is_invariant(operation):
            tensors |= outputs
    return whole


def _run_model(model, entities, mask, weights):
    if not isinstance(model.input, dict):
        if weights is not None or keras.tree.is_nested(model.input):
            raise ValueError(
                f"Expected `network` to have one input, and chunks without weights, or a dict of "
                "the inputs 'entities', 'mask' and 'weights'. Received: model "
                f"'{model.name}' with {len(model.inputs)} inputs and chunks "
                f"{'without' if weights is None else 'with'} weights"
            )
        return model(entities, mask=mask, training=False)
    given = {"mask": mask, "weights": weights}
    inputs = {"entities": entities}
    for name, value in given.items():
        if name in model.input:
            dtype = "bool" if name == "mask" else "float32"
            shape = validation.shape_of(entities)[: len(model.input[name].shape)]
            ones = np.ones(shape, dtype)
            inputs[name] = ones if value is None else value
        elif value is not None:
            raise ValueError(
                f"Model '{model.name}' has no input '{name}', expected chunks without {name}. "
                f"The inputs of the model: {', '.join(model.input)}"
            )
    return model(inputs, training=False)


def _run_layers(parts, entities, mask, weights):
    x = ops.convert_to_tensor(entities)
    present, weights = set_ops.multiplicities(mask, weights, set_ops.accumulation_dtype(x))
    x = set_ops.apply_mask(x, present)
    return _run_each(parts, x, mask=present, weights=weights)


def _run_each(parts, x, **context):
    for part in parts:
        if isinstance(part, set_layers.SetLayer):
            x = part(x, **context, training=False)
        elif isinstance(part, _TAKE_TRAINING):
            x = part(x, training=False)
        else:
            x = part(x)
    return x


_TAKE_TRAINING = (
    keras.layers.AlphaDropout,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def _gives_one_output_a_set(network, parts, inputs_shape):
    """Whether the outputs have no entity axis, or one whose size does not depend on the set."""
    if isinstance(network, keras.Model) and not isinstance(network, keras.Sequential):
        # For sets of any size, where the network was made for one.
        inputs = keras.tree.map_structure(
            lambda x: keras.KerasTensor((None, None, *x.shape[2:]), x.dtype), network.input
        )
        outputs = keras.tree.flatten(network.compute_output_spec(inputs))
        shape = tuple(outputs[0].shape)
    else:
        shape = (None, None, *inputs_shape[2:])
        for part in parts:
            shape = part.compute_output_shape(shape)
    while isinstance(shape, (list, tuple, dict)) and not _is_shape(shape):
        shape = next(iter(shape.values() if isinstance(shape, dict) else shape))
    return None not in shape[1:-1]


def _is_shape(shape):
    return isinstance(shape, tuple) and all(s is None or isinstance(s, int) for s in shape)


def _check_layer(layer):
    """Raises a ValueError unless the layer can be computed in chunks."""
    if isinstance(layer, keras.Model):
        for part in getattr(layer, "operations", [None]):
            _check_layer(part)
        return
    if isinstance(layer, set_layers.Pooling):
        return _check_pooling(layer, layer)
    if isinstance(layer, (set_layers.PermutationEquivariantDense, set_layers.Swarm)):
        if getattr(layer, "context", None) != "self":
            _check_pooling(layer.pooling, layer)
        return
    if isinstance(layer, set_layers.DSS):
        if not isinstance(layer.pooling, str):  # the name of a variant, which needs a mean or max
            _check_pooling(layer.pooling, layer)
        return
    if isinstance(layer, (*_ENTITY_BY_ENTITY, *_REDUCING)):
        return
    if isinstance(layer, _ALONG_AN_AXIS) and layer.axis in (-1, [-1]):
        return
    described = f"'{layer.name}' of class {type(layer).__name__}" if layer else "a model"
    raise ValueError(
        "Expected `network` to be made of PermutationEquivariantDense, Swarm, DSS, poolings, "
        f"{', '.join(kind.__name__ for kind in _REDUCING)}, and Keras layers that compute every "
        "entity on its own along the last axis. A layer that mixes entities in another way cannot "
        f"be computed in chunks. Received: {described}"
    )


def _check_pooling(pooling, layer):
    if getattr(pooling, "reduces_by_layers", False):
        return
    if isinstance(pooling, set_layers.Pooling):
        needed = ["chunk_state", "merge", "finish"]
        kind, base = type(pooling), set_layers.Pooling
        missing = [name for name in needed if getattr(kind, name) is getattr(base, name)]
    else:
        needed = ["init", "update", "finish"]
        missing = [name for name in needed if not callable(getattr(pooling, name, None))]
    if getattr(pooling, "symmetry", None) == "causal" and not hasattr(pooling, "scan"):
        missing.append("scan")
    if missing:
        raise ValueError(
            f"The pooling of '{layer.name}' cannot be computed in chunks: it needs the methods "
            f"{', '.join(missing)}, see `keras_sets.layers.Pooling`. Received: pooling={pooling!r}"
        )
