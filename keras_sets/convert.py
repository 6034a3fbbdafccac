"""Weights of other implementations, put into layers of this package."""

import numpy as np


def load_torch_swarm(layer, state_dict, prefix=""):
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
    for variable, value, name in loaded:
        if tuple(variable.shape) != value.shape:
            raise ValueError(
                f"`state_dict['{prefix}{name}']` does not fit the layer '{layer.name}': as "
                f"`{variable.path}` it would have to be of shape {tuple(variable.shape)}. "
                f"Received: {value.shape} (transposed to (in, out), without axes of size 1), "
                f"from shape {tuple(arrays[name].shape)}"
            )
    for variable, value, _ in loaded:
        variable.assign(value)
    return layer


def _find_arrays(state_dict, prefix, names):
    """The named arrays as NumPy; missing and unknown names are an error."""
    received = [name for name in state_dict if name.startswith(prefix)]
    expected = [prefix + name for name in names]
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
