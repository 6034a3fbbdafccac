"""Types that recur in signatures. Shapes and dtypes of tensors stand in the docstrings.

Keras, TensorFlow, JAX and torch share no type of a tensor, and Keras is not typed: to a checker
a tensor is `Any`.
"""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import TypeAlias

import keras
from numpy.typing import ArrayLike

# A tensor of any backend, a symbolic one of Keras, or a NumPy array.
Tensor: TypeAlias = Any
# Sizes, None where unknown. With `int | None`, every use of a known size would need a check.
Shape: TypeAlias = tuple[Any, ...]
# What `get_config` returns: values that JSON knows.
Config: TypeAlias = dict[str, Any]
# What a pooling keeps of a part of a set: tensors, in a structure of its own.
State: TypeAlias = Any

# What `keras.activations.get`, `keras.initializers.get` and the like take.
Activation: TypeAlias = str | Config | Callable[..., Any] | None
Initializer: TypeAlias = str | Config | Callable[..., Any] | None
Regularizer: TypeAlias = str | Config | Callable[..., Any] | None
Constraint: TypeAlias = str | Config | Callable[..., Any] | None
DType: TypeAlias = str | keras.DTypePolicy | None

# What `keras_sets.layers.get_pooling` takes.
PoolingLike: TypeAlias = str | Config | Callable[..., Any]
# An array for every set, or one array of sets of the same size.
Sets: TypeAlias = Iterable[ArrayLike]
