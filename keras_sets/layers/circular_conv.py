"""Convolutions around the circle (torus): the far ends of every axis are neighbours."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class _Circular:
    """Mixin: pads every spatial axis with its other end before a "valid" convolution."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        **kwargs: Any,
    ) -> None:
        for name, only in (("padding", "valid"), ("data_format", "channels_last")):
            # Configurations name them.
            if kwargs.setdefault(name, only) not in (None, only):
                raise ValueError(
                    f"`{name}` is no argument of {type(self).__name__}, which wraps every axis "
                    f"but that of the batch and the last one. Received: {name}={kwargs[name]!r}"
                )
            kwargs[name] = only
        super().__init__(filters, kernel_size, strides, **kwargs)  # type: ignore[call-arg]

    def call(self, inputs):
        x = inputs
        for axis, (kernel, dilation) in enumerate(
            zip(self.kernel_size, self.dilation_rate, strict=True), start=1
        ):
            total = (kernel - 1) * dilation
            if x.shape[axis] is not None and total > x.shape[axis]:
                raise ValueError(
                    f"Layer '{self.name}' cannot wrap a kernel of size {kernel} with dilation "
                    f"{dilation} around an axis of size {x.shape[axis]}. Received: "
                    f"inputs.shape={tuple(inputs.shape)}"
                )
            # As many as padding="same" adds on each side.
            before, after = total // 2, total - total // 2
            size = ops.shape(x)[axis]
            parts = [x]
            if before:
                parts.insert(0, _slice(x, axis, size - before, size))
            if after:
                parts.append(_slice(x, axis, 0, after))
            x = ops.concatenate(parts, axis=axis) if len(parts) > 1 else x
        return super().call(x)

    def compute_output_shape(self, input_shape):
        sizes = (
            None if size is None else -(-size // stride)
            for size, stride in zip(input_shape[1:-1], self.strides, strict=True)
        )
        return (input_shape[0], *sizes, self.filters)


def _slice(x, axis, start, stop):
    return x[(slice(None),) * axis + (slice(start, stop),)]


@keras.saving.register_keras_serializable(package="keras_sets")
class CircularConv1D(_Circular, keras.layers.Conv1D):
    """`keras.layers.Conv1D` on a circle: the far ends of every axis are neighbours.

    Takes the arguments of `keras.layers.Conv1D` but `padding` and `data_format`; the
    features are the last axis, and the output is as large as the input over the strides.

    Symmetry:
        Equivariant to circular shifts along the spatial axes, for strides of 1.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.CircularConv1D(4, 3)(np.ones((2, 8, 3))).shape == (2, 8, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599), section 4.
    """


@keras.saving.register_keras_serializable(package="keras_sets")
class CircularConv2D(_Circular, keras.layers.Conv2D):
    """`keras.layers.Conv2D` on a torus: the far ends of every axis are neighbours.

    Takes the arguments of `keras.layers.Conv2D` but `padding` and `data_format`; the
    features are the last axis, and the output is as large as the input over the strides.

    Symmetry:
        Equivariant to circular shifts along the spatial axes, for strides of 1.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.CircularConv2D(4, 3)(np.ones((2, 8, 8, 3))).shape == (2, 8, 8, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599), section 4.
    """


@keras.saving.register_keras_serializable(package="keras_sets")
class CircularConv3D(_Circular, keras.layers.Conv3D):
    """`keras.layers.Conv3D` on a 3-torus: the far ends of every axis are neighbours.

    Takes the arguments of `keras.layers.Conv3D` but `padding` and `data_format`; the
    features are the last axis, and the output is as large as the input over the strides.

    Symmetry:
        Equivariant to circular shifts along the spatial axes, for strides of 1.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.CircularConv3D(4, 3)
    >>> layer(np.ones((2, 8, 8, 8, 3))).shape == (2, 8, 8, 8, 4)
    True

    Reference:
        [Maron et al., 2020, On Learning Sets of Symmetric
        Elements](https://arxiv.org/abs/2002.08599), section 4.
    """
