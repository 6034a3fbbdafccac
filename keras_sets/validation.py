"""Checks of arguments and inputs, and the wording of their errors."""

import keras
import numpy as np


def positive_integer(name, value):
    """`value` as int, or a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive integer. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def non_negative_integer(name, value):
    """`value` as int, 0 allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a non-negative integer. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def positive_number(name, value):
    """`value` as float, or a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive number. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def fraction(name, value):
    """A number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a number at least 0 and "
            f"below 1. Received: {name}={value!r}"
        )
    return float(value)


def one_of(name, value, choices):
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"Received an invalid value for `{name}`, expected one of {listed}. "
            f"Received: {name}={value!r}"
        )
    return value


def visible_array(x):
    """`x` as a NumPy array where its values can be seen now, else None."""
    if isinstance(x, keras.KerasTensor):
        return None
    try:
        return np.asarray(keras.ops.convert_to_numpy(x))
    except Exception:  # a tracer, a symbolic or a fake tensor of any backend
        return None


def shape_of(x):
    return tuple(getattr(x, "shape", None) or np.shape(x))


def compatible_shapes(received, expected):
    return len(received) == len(expected) and all(
        None in (r, e) or not isinstance(r, int) or not isinstance(e, int) or r == e
        for r, e in zip(received, expected, strict=True)
    )


def check_set(layer, inputs, mask, weights, min_rank=3):
    """Raises a ValueError unless inputs, mask and weights describe a batch of sets."""
    shape = shape_of(inputs)
    if len(shape) < min_rank:
        raise ValueError(
            f"Layer '{layer}' expects `inputs` of shape `(batch, *entities, features)` with "
            f"at least one entity axis (rank {min_rank} or more). Received: "
            f"inputs.shape={shape}"
        )
    check_features(layer, shape)
    check_multiplicities(layer, "(batch, *entities)", shape, shape[:-1], mask, weights)


def check_features(layer, shape):
    if shape[-1] is None:
        raise ValueError(
            f"Layer '{layer}' needs to know the size of the last axis (the features) of "
            f"`inputs`. Received: inputs.shape={shape}"
        )


def check_multiplicities(layer, described, inputs_shape, expected, mask, weights):
    """Raises a ValueError unless mask and weights have the expected shape and values."""
    for name, value in (("mask", mask), ("weights", weights)):
        if value is not None and not compatible_shapes(shape_of(value), expected):
            raise ValueError(
                f"Layer '{layer}' expects `{name}` of shape `{described}`, here {expected} to "
                f"fit inputs of shape {inputs_shape}. Received: {name}.shape={shape_of(value)}"
            )
    if weights is not None:
        check_weights(layer, weights, mask)


def check_weights(layer, weights, mask=None):
    """Negative or non-finite weights of real entities are an error where seen."""
    values = visible_array(weights)
    if values is None or values.size == 0:
        return
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise ValueError(
            f"Layer '{layer}' expects numbers as `weights`. Received: dtype {values.dtype}"
        )
    values = values.astype("float64")
    if mask is not None:
        real = visible_array(mask)
        if real is None:
            return
        values = values[real.astype(bool)]
    wrong = ~(values >= 0) | np.isinf(values)
    if wrong.any():
        raise ValueError(
            f"Layer '{layer}' expects finite `weights` >= 0. Received: "
            f"{int(wrong.sum())} of {values.size} weights are negative, NaN or infinite, "
            f"the first is {values[wrong][0]}"
        )
