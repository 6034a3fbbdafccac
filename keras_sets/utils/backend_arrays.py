"""NumPy arrays as every backend takes them."""

import keras
import numpy as np


def in_native_order(values):
    """Arrays of files such as FITS have the other order of bytes, which JAX and torch refuse."""
    if not isinstance(values, np.ndarray) or values.dtype.isnative:
        return values
    return values.astype(values.dtype.newbyteorder("="))


def check_integers(name, values):
    """Raises where the backend would wrap integers around, as JAX does beyond 32 bits."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or not values.size:
        return
    held = keras.ops.convert_to_tensor(np.empty(0, values.dtype)).dtype
    limits = np.iinfo(keras.backend.standardize_dtype(held))
    least, largest = values.min(), values.max()
    if least < limits.min or largest > limits.max:
        raise ValueError(
            f"`{name}` must hold integers that {limits.dtype} can hold, to which the backend "
            f"{keras.backend.backend()} turns {values.dtype}: others would wrap around. "
            "`.astype('float32')` makes floating-point numbers of them. Received: integers from "
            f"{least} to {largest}"
        )
