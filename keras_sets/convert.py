"""Weights of other implementations, put into layers of this package."""

import math
import re
from collections.abc import Mapping

import keras
import numpy as np

from keras_sets._typing import Tensor
from keras_sets.layers.pooling_by_multihead_attention import PoolingByMultiheadAttention
from keras_sets.layers.set_attention import InducedSetAttentionBlock
from keras_sets.layers.set_attention import SetAttentionBlock
from keras_sets.layers.swarm import Swarm

__all__ = ["load_torch_set_transformer", "load_torch_swarm"]


def load_torch_swarm(layer: Swarm, state_dict: Mapping[str, Tensor], prefix: str = "") -> Swarm:
    """Loads the weights of the original PyTorch `SwarmLayer` into a `Swarm`.

    Args:
        layer: A `keras_sets.layers.Swarm` with the same widths. One that is not built yet
            is built for as many features as the weights are for.
        state_dict: The `state_dict()` of the PyTorch layer: arrays or tensors under the
            names `cell.Wih.weight`, `cell.Wih.bias`, `cell.Whh.weight`, `cell.Whp.weight`,
            `ffwd.weight` and `ffwd.bias`. Weights are `(out, in)` with or without trailing
            axes of size 1; the gates stand in order i, f, o, g.
        prefix: What comes before these names, such as `"cells.0."` for the first layer of
            a stack.

    Returns:
        The layer.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.Swarm(2, hidden_units=3)
    >>> arrays = {
    ...     "cell.Wih.weight": np.ones((12, 4, 1)),
    ...     "cell.Wih.bias": np.ones(12),
    ...     "cell.Whh.weight": np.ones((12, 3, 1)),
    ...     "cell.Whp.weight": np.ones((12, 3, 1)),
    ...     "ffwd.weight": np.ones((2, 6, 1)),
    ...     "ffwd.bias": np.ones(2),
    ... }
    >>> keras_sets.convert.load_torch_swarm(layer, arrays)(np.ones((1, 5, 4))).shape == (1, 5, 2)
    True

    Reference:
        [rvollgraf/SWARM](https://github.com/rvollgraf/SWARM), `SwarmLayer`.
    """
    names = ["cell.Wih.weight", "cell.Whh.weight", "cell.Whp.weight", "ffwd.weight"]
    if layer.cell.use_bias:
        names += ["cell.Wih.bias", "ffwd.bias"]
    arrays = _find_arrays(state_dict, prefix, names)
    kernel = _matrix("cell.Wih.weight", arrays)
    if not layer.built:
        layer.build((None, None, kernel.shape[0]))
    cell, projection = layer.cell, layer.projection
    loaded = [
        (cell.kernel, _keras_gates(kernel), "cell.Wih.weight"),
        (
            cell.recurrent_kernel,
            _keras_gates(_matrix("cell.Whh.weight", arrays)),
            "cell.Whh.weight",
        ),
        (cell.pooled_kernel, _keras_gates(_matrix("cell.Whp.weight", arrays)), "cell.Whp.weight"),
        (projection.kernel, _matrix("ffwd.weight", arrays), "ffwd.weight"),
    ]
    if layer.cell.use_bias:
        loaded += [
            (cell.bias, _keras_gates(arrays["cell.Wih.bias"]), "cell.Wih.bias"),
            (projection.bias, arrays["ffwd.bias"], "ffwd.bias"),
        ]
    _assign(layer, [(variable, value, prefix + name) for variable, value, name in loaded])
    return layer


def load_torch_set_transformer(
    network: keras.Model | keras.layers.Layer, state_dict: Mapping[str, Tensor], prefix: str = ""
) -> keras.Model | keras.layers.Layer:
    """Loads the weights of the original PyTorch Set Transformer.

    Args:
        network: A `keras_sets.layers.SetAttentionBlock` for the weights of a `SAB`, an
            `InducedSetAttentionBlock` for an `ISAB`, a `PoolingByMultiheadAttention` for a
            `PMA`, each with `residual="projected"`, `feed_forward_layers=1`, and
            `normalization="layer"` where the original has `ln=True`, else None; or a
            `keras.layers.Dense` for a `Linear`. Or a model of such layers, in the order of the
            original's modules. What is not built yet is built for as many features as the
            weights are for. The number of heads is not among the weights: it has to be that of
            the original.
        state_dict: The `state_dict()` of the PyTorch module: arrays or tensors under names such
            as `enc.0.mab0.fc_q.weight`, in the order of the modules.
        prefix: What comes before the names of those modules that are to be loaded, such as
            `"enc."`.

    Returns:
        The network.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> options = {"num_heads": 4, "residual": "projected", "normalization": None}
    >>> options["feed_forward_layers"] = 1
    >>> original = keras.Sequential(
    ...     [
    ...         keras_sets.layers.InducedSetAttentionBlock(128, num_inducing_points=32, **options),
    ...         keras_sets.layers.InducedSetAttentionBlock(128, num_inducing_points=32, **options),
    ...         keras_sets.layers.PoolingByMultiheadAttention(128, num_seeds=4, **options),
    ...         keras_sets.layers.SetAttentionBlock(128, **options),
    ...         keras_sets.layers.SetAttentionBlock(128, **options),
    ...         keras.layers.Dense(5),
    ...     ]
    ... )
    >>> block = keras_sets.layers.SetAttentionBlock(2, **{**options, "num_heads": 1})
    >>> names = [f"mab.{name}" for name in ("fc_q", "fc_k", "fc_v", "fc_o")]
    >>> arrays = {f"{name}.weight": np.eye(2) for name in names}
    >>> arrays.update({f"{name}.bias": np.zeros(2) for name in names})
    >>> keras_sets.convert.load_torch_set_transformer(block, arrays) is block
    True

    Reference:
        [juho-lee/set_transformer](https://github.com/juho-lee/set_transformer), `modules.py`.
    """
    modules: dict[str, list[str]] = {}
    for name in state_dict:
        match = _SET_TRANSFORMER_NAME.fullmatch(name[len(prefix) :])
        if name.startswith(prefix) and match:
            modules.setdefault(match["module"], []).append(match["name"])
    layers = network.layers if isinstance(network, keras.Model) else [network]
    if not network.built:
        first = next((m for m in modules), "")
        # The widths of keys are those of the inputs, but for a Linear.
        keys = [n for n in modules.get(first, []) if n.endswith("fc_k.weight")] or ["weight"]
        arrays = _find_arrays(state_dict, prefix + first, keys[:1], alone=False)
        network.build((None, None, arrays[keys[0]].shape[-1]))
    layers = [layer for layer in layers if layer.weights]
    if len(layers) != len(modules):
        raise ValueError(
            f"Expected as many modules in `state_dict` as `network` has layers with weights, "
            f"{[layer.name for layer in layers]}. Received: {list(modules)} (prefix={prefix!r})"
        )
    loaded = []
    for layer, module in zip(layers, modules, strict=True):
        variables = _set_transformer_variables(layer)
        arrays = _find_arrays(state_dict, prefix + module, list(variables))
        for name, variable in variables.items():
            # Points come as (1, points, units), kernels as (out, in).
            value = arrays[name][0] if name in ("I", "S") else arrays[name].T
            loaded.append((variable, value, prefix + module + name))
    _assign(network, loaded)
    return network


_SET_TRANSFORMER_NAME = re.compile(
    r"(?P<module>(?:.*?\.)??)"
    r"(?P<name>I|S|(?:mab[01]?\.(?:fc_[qkvo]|ln[01])\.)?(?:weight|bias))"
)


def _set_transformer_variables(layer):
    """The variables of a layer under the names that they have in the original."""
    if isinstance(layer, keras.layers.Dense):
        return _named("", layer.kernel, layer.bias)
    blocks = {
        SetAttentionBlock: lambda: {"mab": layer.block},
        InducedSetAttentionBlock: lambda: {"mab0": layer.inducing_block, "mab1": layer.block},
        PoolingByMultiheadAttention: lambda: {"mab": layer.block},
    }.get(type(layer))
    if blocks is None:
        raise ValueError(
            "Expected attention blocks and Dense layers, as the original has them. Received: "
            f"layer '{layer.name}' of class {type(layer).__name__}"
        )
    activation = layer.feed_forward_activation
    wanted = {
        "residual": "projected",
        "feed_forward_layers": 1,
        "feed_forward_activation": "relu",
        "input_feed_forward_layers": 0,
    }
    received = {
        "residual": layer.residual,
        "feed_forward_layers": layer.feed_forward_layers,
        "feed_forward_activation": getattr(activation, "__name__", activation),
        "input_feed_forward_layers": getattr(layer, "input_feed_forward_layers", 0),
    }
    if received != wanted or layer.normalization == "set":
        raise ValueError(
            f"The blocks of the original have {wanted} and normalization='layer' or None. "
            f"Received: layer '{layer.name}' with {received} and "
            f"normalization={layer.normalization!r}"
        )
    variables = {}
    if isinstance(layer, InducedSetAttentionBlock):
        variables["I"] = layer.inducing_points
    if isinstance(layer, PoolingByMultiheadAttention):
        variables["S"] = layer.seeds
    for mab, block in blocks().items():
        attention, before, after = (
            block.attention,
            block.attention_normalization,
            block.feed_forward_normalization,
        )
        parts = {
            "fc_q": attention.query_dense,
            "fc_k": attention.key_dense,
            "fc_v": attention.value_dense,
            "fc_o": block.feed_forward[0],
        }
        for name, part in parts.items():
            variables.update(_named(f"{mab}.{name}.", part.kernel, part.bias))
        if before is not None:
            variables.update(_named(f"{mab}.ln0.", before.gamma, before.beta))
            variables.update(_named(f"{mab}.ln1.", after.gamma, after.beta))
    return variables


def _named(prefix, weight, bias):
    named = {f"{prefix}weight": weight, f"{prefix}bias": bias}
    return {name: variable for name, variable in named.items() if variable is not None}


def _assign(layer, loaded):
    """Assigns values to variables, all of them or none.

    Args:
        layer: What they belong to.
        loaded: Triples of a variable, a value, and its name in the state dict. A value may have
            the last axes of the variable as one.
    """
    for variable, value, name in loaded:
        leading = tuple(variable.shape)[: value.ndim - 1]
        wanted = (*leading, math.prod(variable.shape[value.ndim - 1 :]))
        if wanted != value.shape:
            raise ValueError(
                f"`state_dict['{name}']` does not fit the layer '{layer.name}': as "
                f"`{variable.path}` it would have to be of shape {wanted}. Received: "
                f"{value.shape} (transposed to (in, out), without axes of size 1)"
            )
    for variable, value, _ in loaded:
        variable.assign(value.reshape(variable.shape))


def _find_arrays(state_dict, prefix, names, alone=True):
    """The named arrays as NumPy; missing names are an error, and other names beside them."""
    expected = [prefix + name for name in names]
    received = [name for name in state_dict if name.startswith(prefix)]
    if not alone:
        received = [name for name in received if name in expected]
    if sorted(received) != sorted(expected):
        raise ValueError(
            f"`state_dict` does not hold the weights of this layer: expected the names "
            f"{sorted(expected)}. Received: {sorted(state_dict)} (missing: "
            f"{sorted(set(expected) - set(received))}, unknown: "
            f"{sorted(set(received) - set(expected))})"
        )
    return {name: _to_numpy(state_dict[prefix + name]) for name in names}


def _to_numpy(value):
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def _matrix(name, arrays):
    """PyTorch's `(out, in, 1, ...)` as Keras' `(in, out)`."""
    array = arrays[name]
    if array.ndim < 2 or array.size != array.shape[0] * array.shape[1]:
        raise ValueError(
            f"Expected `state_dict['{name}']` of shape (out, in), with or without trailing axes "
            f"of size 1. Received: shape {array.shape}"
        )
    return array.reshape(array.shape[:2]).T


def _keras_gates(array):
    """Gates in order i, f, o, g on the last axis, put in Keras' order i, f, g, o."""
    if array.shape[-1] % 4:
        raise ValueError(
            "Expected four gates of equal width in the weights of the cell. Received: "
            f"{array.shape[-1]} outputs"
        )
    i, f, o, g = np.split(array, 4, axis=-1)
    return np.concatenate([i, f, g, o], axis=-1)
