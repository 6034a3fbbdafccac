"""Checks of arguments and inputs, and the wording of their errors."""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from keras_sets import prepared
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return is_integer(value) or isinstance(value, (float, np.floating))


def positive_integer(name: str, value: Any) -> int:
    """`value` as int, or a ValueError that names the argument."""
    if not is_integer(value) or value <= 0:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive integer. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def non_negative_integer(name: str, value: Any) -> int:
    """`value` as int, 0 allowed."""
    if not is_integer(value) or value < 0:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a non-negative integer. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def positive_number(name: str, value: Any) -> float:
    """`value` as float, or a ValueError that names the argument."""
    if not is_number(value) or not 0 < value < np.inf:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive number. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a number at least 0 and "
            f"below 1. Received: {name}={value!r}"
        )
    return float(value)


def boolean(name: str, value: Any, expected: str = "True or False") -> bool:
    """`value` as bool, of True, False, 1 or 0. Any text would be taken as True."""
    if not isinstance(value, (bool, np.bool_)) and not (is_number(value) and value in (0, 1)):
        raise ValueError(
            f"Received an invalid value for `{name}`, expected {expected}. "
            f"Received: {name}={value!r}"
        )
    return bool(value)


def optional_boolean(name: str, value: Any) -> bool | None:
    """As `boolean`, None allowed."""
    return None if value is None else boolean(name, value, "True, False or None")


def one_of(name: str, value: Any, choices: Collection[Any]) -> Any:
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"Received an invalid value for `{name}`, expected one of {listed}. "
            f"Received: {name}={value!r}"
        )
    return value


def check_heads(name: str, width: int, num_heads: int) -> None:
    """Raises a ValueError unless the width that is called `name` has a part for every head."""
    if width % num_heads:
        raise ValueError(
            f"The heads share the width: expected `{name}` to be a multiple of `num_heads`. "
            f"Received: {name}={width}, num_heads={num_heads}"
        )


def visible_array(x: Tensor) -> np.ndarray | None:
    """`x` as a NumPy array where its values can be seen now, else None."""
    if isinstance(x, keras.KerasTensor) or torch_compiles():
        return None
    try:
        return np.asarray(keras.ops.convert_to_numpy(x))
    except Exception:  # a tracer, a symbolic or a fake tensor of any backend
        return None


def torch_compiles() -> bool:
    """Whether torch traces a program, which would end where a value is looked at."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


def check_not_masked(name: str, values: Any) -> None:
    """Raises for a masked array of NumPy: what handles it would take masked values for real."""
    count = int(np.ma.count_masked(values)) if isinstance(values, np.ma.MaskedArray) else 0
    if count:
        raise ValueError(
            f"`{name}` must have no masked values: fill them in by `.filled(...)`, or drop those "
            f"entities. Received: a masked array in which {count} of {values.size} are masked"
        )


def check_one_tensor(layer: str, inputs: Tensor) -> None:
    """Nested lists, sets of different sizes in a list, and complex numbers are no batch of sets."""
    if isinstance(inputs, (list, tuple, dict)) or getattr(inputs, "dtype", None) == np.dtype(
        object
    ):
        raise ValueError(
            f"Layer '{layer}' expects `inputs` as one array or tensor `(batch, *entities, "
            "features)`. Sets of different sizes are padded to one size by "
            "`entities, mask = keras_sets.utils.pad_sets(sets)`, and `mask=mask` says which "
            f"entities are real. Received: inputs of type {type(inputs).__name__}"
        )
    check_not_masked("inputs", inputs)
    if "complex" in str(getattr(inputs, "dtype", "")):
        raise ValueError(
            f"Layer '{layer}' expects `inputs` of real numbers: give the real and the imaginary "
            "parts as features, such as `np.concatenate([x.real, x.imag], axis=-1)`. Received: "
            f"inputs of dtype {inputs.dtype}"
        )


def shape_of(x: Tensor) -> Shape:
    return tuple(getattr(x, "shape", None) or np.shape(x))


def compatible_shapes(received: Shape, expected: Shape) -> bool:
    return len(received) == len(expected) and all(
        None in (r, e) or not isinstance(r, int) or not isinstance(e, int) or r == e
        for r, e in zip(received, expected, strict=True)
    )


def shapes_of(state: State) -> list[Shape]:
    """The shapes of the tensors of a nested structure."""
    return [shape_of(tensor) for tensor in keras.tree.flatten(state)]


def compatible_states(a: State, b: State) -> bool:
    """Whether two nested structures hold as many tensors of compatible shapes."""
    shapes = shapes_of(a), shapes_of(b)
    return len(shapes[0]) == len(shapes[1]) and all(map(compatible_shapes, *shapes))


def check_set(
    layer: str, inputs: Tensor, mask: Tensor | None, weights: Tensor | None, min_rank: int = 3
) -> None:
    """Raises a ValueError unless inputs, mask and weights describe a batch of sets."""
    check_one_tensor(layer, inputs)
    shape = shape_of(inputs)
    if len(shape) < min_rank:
        raise ValueError(
            f"Layer '{layer}' expects `inputs` of shape `(batch, *entities, features)` with "
            f"at least one entity axis (rank {min_rank} or more). Received: "
            f"inputs.shape={shape}"
        )
    check_features(layer, shape)
    check_multiplicities(layer, "(batch, *entities)", shape, shape[:-1], mask, weights)


def check_features(layer: str, shape: Shape) -> None:
    if shape[-1] is None:
        raise ValueError(
            f"Layer '{layer}' needs to know the size of the last axis (the features) of "
            f"`inputs`. Received: inputs.shape={shape}"
        )


def check_multiplicities(
    layer: str,
    described: str,
    inputs_shape: Shape,
    expected: Shape,
    mask: Tensor | None,
    weights: Tensor | None,
) -> None:
    """Raises a ValueError unless mask and weights have the expected shape and values."""
    for name, value in (("mask", mask), ("weights", weights)):
        check_not_masked(name, value)
        if value is not None and not compatible_shapes(shape_of(value), expected):
            raise ValueError(
                f"Layer '{layer}' expects `{name}` of shape `{described}`, here {expected} to "
                f"fit inputs of shape {inputs_shape}. Received: {name}.shape={shape_of(value)}"
            )
    if prepared.are_ready(mask, weights):
        return
    if mask is not None:
        check_mask(layer, mask)
    if weights is not None:
        check_weights(f"Layer '{layer}'", weights, mask)


def check_mask(layer: str, mask: Tensor) -> None:
    """A mask that holds numbers other than 0 and 1 is an error where seen."""
    mask = np.asarray(mask) if isinstance(mask, (list, tuple)) else mask
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        return
    values = visible_array(mask)
    if values is None:
        return
    values = values.astype("float64")
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise ValueError(
            f"Layer '{layer}' expects a bool `mask`, or one of zeros and ones; how often "
            f"entities count is given as `weights=`. Received: {int(wrong.sum())} of "
            f"{values.size} numbers in `mask` are others, the first is {values[wrong][0]:g}"
        )


def check_weights(
    consumer: str, weights: Tensor, mask: Tensor | None = None, argument: str = "weights"
) -> None:
    """Negative or non-finite weights of real entities are an error where seen."""
    values = visible_array(weights)
    if values is None or values.size == 0:
        return
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise ValueError(
            f"{consumer} expects numbers as `{argument}`. Received: dtype {values.dtype}"
        )
    # Every eager call comes here: what is right needs no copy.
    if values.dtype.kind == "f" and values.min() >= 0 and values.max() < np.inf:
        return
    values = values.astype("float64")
    if mask is not None:
        real = visible_array(mask)
        if real is None:
            return
        values = values[real.astype(bool)]
    wrong = ~(values >= 0) | np.isinf(values)
    if wrong.any():
        raise ValueError(
            f"{consumer} expects finite `{argument}` >= 0. Received: {int(wrong.sum())} of "
            f"{values.size} are negative, NaN or infinite, the first is {values[wrong][0]}"
        )


def check_weights_in_range(consumer: str, largest: np.ndarray, argument: str = "weights") -> None:
    """Sets whose entities all count less than float32 can hold are an error.

    Args:
        consumer: Who is named in the error.
        largest: float64 `(sets,)`, the largest weight of every set.
        argument: What the weights are called.
    """
    least = np.finfo("float32").tiny
    lost = (largest > 0) & (largest < least)
    if lost.any():
        raise ValueError(
            f"{consumer} expects `{argument}` that float32 can hold, of which the least is "
            f"{least:.2g}: below it, entities are absent. Received: {int(lost.sum())} of "
            f"{len(largest)} sets with smaller ones alone, the largest of the first is "
            f"{largest[lost][0]:.2g}. Where only their ratios matter, divide the weights of every "
            "set by the largest of them"
        )
