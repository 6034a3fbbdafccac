"""What `predict_in_chunks` needs to know of a network: how to run it, and its layers."""

import keras
import numpy as np
from keras import ops

from keras_sets import layers as set_layers
from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.pooling import ChunkedPoolingScope
from keras_sets.layers.zero_absent import ZeroAbsent

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
    keras.layers.Normalization,
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


def as_function(network):
    """`(run, parts, whole)`: a function of entities, mask and weights, and what it is made of.

    `parts` see chunks. `whole` are the layers that see what sets have pooled to, within
    `parts` too.
    """
    if isinstance(network, keras.Model) and not isinstance(network, keras.Sequential):
        if not _is_functional(network):
            raise ValueError(
                "Received an invalid value for `network`, expected a functional model, whose "
                f"layers can be seen. Received: network={network!r}"
            )
        calls = {}
        _follow(network, [False] * len(network.inputs), calls)
        return lambda *chunk: _run_model(network, *chunk), [network], _whole(calls)
    parts = [network] if isinstance(network, keras.layers.Layer) else network
    layers_alone = isinstance(parts, (list, tuple)) and all(
        isinstance(part, keras.layers.Layer) for part in parts
    )
    parts = list(_without_stacks(parts)) if layers_alone else []
    if not parts:
        raise ValueError(
            "Received an invalid value for `network`, expected a functional model, a layer or a "
            f"list of layers. Received: network={network!r}"
        )
    calls, pooled, count = {}, [False], 0
    while count < len(parts) and not all(pooled):
        pooled = _follow(parts[count], pooled, calls)
        count += 1
    on_chunks, on_pooled = parts[:count], parts[count:]

    def run(*chunk):
        x = _run_layers(on_chunks, *chunk)
        with ChunkedPoolingScope(None):
            return _run_each(on_pooled, x)

    return run, on_chunks, _whole(calls)


def _is_functional(layer):
    """Whether it is a model whose calls of layers can be seen."""
    return isinstance(layer, keras.Model) and hasattr(layer, "operations")


def _without_stacks(parts):
    """The layers of every `keras.Sequential` in its place."""
    for part in parts:
        if isinstance(part, keras.Sequential):
            yield from _without_stacks(part.layers)
        else:
            yield part


def _follow(part, pooled, calls):
    """Whether what a layer or model gives comes from what sets have pooled to.

    Args:
        part: A layer, another operation of Keras, or a model.
        pooled: Bools, whether its arguments do.
        calls: Dict to which the calls in it are added: for every operation a set of bools,
            whether all arguments of a call come from what sets have pooled to.

    Returns:
        List of a bool for every output; of one for all of them, unless `part` is a model.
    """
    if isinstance(part, keras.Sequential):
        for layer in part.layers:
            pooled = _follow(layer, pooled, calls)
        return pooled
    on_pooled = all(pooled)
    if _is_functional(part):
        if len(pooled) != len(part.inputs):  # such as with a mask beside them
            pooled = [on_pooled] * len(part.inputs)
        known = dict(zip(map(id, part.inputs), pooled, strict=True))
        for depth in sorted(part._nodes_by_depth, reverse=True):
            for node in part._nodes_by_depth[depth]:
                if not node.is_input:
                    given = [known[id(x)] for x in node.input_tensors]
                    after = _follow(node.operation, given, calls)
                    outputs = node.output_tensors
                    after = after if len(after) == len(outputs) else after * len(outputs)
                    known.update(zip(map(id, outputs), after, strict=True))
        return [known[id(x)] for x in part.outputs]
    parts = [part]
    if isinstance(part, keras.layers.Layer) and not isinstance(part, set_layers.SetLayer):
        parts = part._flatten_layers()  # the layer and those within
    for layer in parts:
        calls.setdefault(layer, set()).add(on_pooled)
    return [on_pooled or getattr(part, "symmetry", None) == "invariant"]


def _whole(calls):
    """Operations that are called on nothing but what sets have pooled to."""
    for layer, on_pooled in calls.items():
        if len(on_pooled) == 2 and isinstance(layer, set_layers.SetLayer):
            raise ValueError(
                "Expected every layer of `network` to be called on sets, or on what sets have "
                "pooled to: there it sees all, here a chunk. Received: "
                f"'{layer.name}' of class {type(layer).__name__}, which is called on both. "
                "Make two layers of it"
            )
    return {layer for layer, on_pooled in calls.items() if on_pooled == {True}}


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
    others = [name for name in model.input if name not in ("entities", *given)]
    if others:
        raise ValueError(
            f"Expected `network` to have no other inputs than 'entities', 'mask' and 'weights'. "
            f"Received: model '{model.name}' with the inputs {', '.join(others)}"
        )
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
    # Keras takes arrays or tensors of its backend in one call, not both.
    return model(keras.tree.map_structure(ops.convert_to_tensor, inputs), training=False)


def _run_layers(parts, entities, mask, weights):
    x = ops.convert_to_tensor(entities)
    present, weights = set_ops.multiplicities(mask, weights, set_ops.accumulation_dtype(x))
    x = set_ops.apply_mask(x, present)
    return _run_each(parts, x, mask=present, weights=weights)


def _run_each(parts, x, **context):
    for part in parts:
        if isinstance(part, set_layers.SetLayer):
            x = part(x, **context, training=False)
        elif context and _is_functional(part):
            x = _run_model(part, x, **context)
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


def gives_one_output_a_set(parts, inputs_shape):
    """Whether no output has an entity axis, but for one whose size does not depend on the set."""
    shape = (None, None, *inputs_shape[2:])
    for part in parts:
        if _is_functional(part):
            # For sets of any size, where the model was made for one.
            inputs = keras.tree.map_structure(
                lambda x: keras.KerasTensor((None, None, *x.shape[2:]), x.dtype), part.input
            )
            outputs = keras.tree.flatten(part.compute_output_spec(inputs))
            shapes = [tuple(output.shape) for output in outputs]
            shape = shapes[0]
        else:
            shape = part.compute_output_shape(shape)
            shapes = _shapes(shape)
    return all(None not in shape[1:-1] for shape in shapes)


def _shapes(nested):
    if isinstance(nested, tuple) and all(s is None or isinstance(s, int) for s in nested):
        return [nested]
    parts = nested.values() if isinstance(nested, dict) else nested
    return [shape for part in parts for shape in _shapes(part)]


def check_layer(layer, whole=()):
    """Raises a ValueError unless the layer can be computed in chunks.

    Args:
        layer: A layer, another operation of Keras, or a model.
        whole: Operations within it that see no chunks.
    """
    if isinstance(layer, keras.Model):
        stack = layer.layers if isinstance(layer, keras.Sequential) else [None]
        for part in getattr(layer, "operations", stack):
            if part not in whole:
                check_layer(part, whole)
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
    if isinstance(layer, _ALONG_AN_AXIS) and layer.axis in (-1, [-1], (-1,), ()):
        return
    described = f"'{layer.name}' of class {type(layer).__name__}" if layer else "a model"
    if isinstance(layer, keras.Operation) and not isinstance(layer, keras.layers.Layer):
        described += ", a function of `keras.ops`; layers such as `keras.layers.Add` are known"
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
