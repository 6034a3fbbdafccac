from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import PoolingLike
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.part_options import build_part
from keras_sets.layers.part_options import freeze_with
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import pooling as pooling_ops

SCALERS = ("identity", "amplification", "attenuation")
COMBINE = ("concatenate", "sum", "mean", "max")


@keras.saving.register_keras_serializable(package="keras_sets")
class MultiPooling(Pooling):
    """Several poolings of a set, and how they grow with its size.

    Every pooling is taken times every scaler, for a set of size n (the sum of its weights):

    ```
    identity = 1
    amplification = log(n + 1) / mean_log_size
    attenuation = mean_log_size / log(n + 1)
    ```

    Args:
        poolings: A list of names or poolings, all of them invariant.
        scalers: A list of the names above.
        combine: `"concatenate"`, or `"sum"`, `"mean"` or `"max"` of the parts.
        mean_log_size: Positive number, mean of `log(n + 1)` over the training sets.
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, masking:
        As for `keras_sets.layers.MeanPooling`.

    Output shape:
        `(batch, len(scalers) * features of all poolings)` for `"concatenate"`: all poolings with
        the first scaler, then with the second. Else `(batch, features)`. With `keepdims=True`
        also axes of size 1.

    Symmetry:
        Invariant to the order of the entities. To a common factor of the weights, if all
        poolings are and there is no scaler but the identity.

    Example:

    >>> import numpy as np, keras_sets
    >>> pooling = keras_sets.layers.MultiPooling(
    ...     ["mean", "max"], scalers=["identity", "attenuation"]
    ... )
    >>> tuple(pooling(np.ones((2, 5, 3))).shape)
    (2, 12)

    Reference:
        [Corso et al., 2020, Principal Neighbourhood Aggregation for Graph
        Nets](https://arxiv.org/abs/2004.05718), equations 5 to 7.
    """

    def __init__(
        self,
        poolings: Sequence[PoolingLike] = ("mean", "max", "min", "standard_deviation"),
        scalers: Sequence[str] = ("identity",),
        combine: str = "concatenate",
        mean_log_size: float = 1.0,
        keepdims: bool = False,
        **kwargs: Any,
    ) -> None:
        # The names of all poolings, of which this is one.
        from keras_sets.layers.pooling.names import get_pooling

        for name, values in (("poolings", poolings), ("scalers", scalers)):
            if not isinstance(values, (list, tuple)) or not values:
                raise ValueError(
                    f"Received an invalid value for `{name}`, expected a list that is not empty. "
                    f"Received: {name}={values!r}"
                )
        for scaler in scalers:
            validation.one_of("scalers", scaler, SCALERS)
        validation.one_of("combine", combine, COMBINE)
        mean_log_size = validation.positive_number("mean_log_size", mean_log_size)
        super().__init__(keepdims, **kwargs)
        self.poolings = [get_pooling(p, dtype=self.dtype_policy) for p in poolings]
        for pooling in self.poolings:
            if not isinstance(pooling, Pooling) or pooling.symmetry != "invariant":
                raise ValueError(
                    "Received an invalid value for `poolings`, expected names or layers of "
                    f"poolings that give one vector a set. Received: {pooling!r}"
                )
            if pooling.keepdims:
                raise ValueError(
                    "Expected `poolings` without `keepdims=True`, which `MultiPooling` has itself. "
                    f"Received: {pooling!r}"
                )
        freeze_with(self, *self.poolings)
        self.scalers = list(scalers)
        self.combine = combine
        self.mean_log_size = mean_log_size

    def build(self, input_shape: Shape) -> None:
        for pooling in self.poolings:
            build_part(pooling, input_shape)
        self._widths(input_shape)
        self._set_features(input_shape)

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        pooled = [pooling.pool(x, mask, weights, False) for pooling in self.poolings]
        pooled = self._combine(pooled, self._size_state(x, mask, weights))
        return entity_ops.expand_over_entities(pooled, len(x.shape)) if keepdims else pooled

    def _size_state(self, x, mask, weights):
        return pooling_ops.sum_state(ops.ones_like(x[..., :1]), mask, weights)

    def _combine(self, pooled, size_state):
        size = pooling_ops.finish_sum(size_state)
        log_size = ops.log(size + 1) / self.mean_log_size
        one = ops.ones_like(log_size)
        factors = {
            "identity": one,
            "amplification": log_size,
            "attenuation": entity_ops.safe_ratio(one, log_size),
        }
        dtype = log_size.dtype
        parts = [ops.cast(p, dtype) * factors[s] for s in self.scalers for p in pooled]
        if self.combine == "concatenate":
            return ops.concatenate(parts, axis=-1)
        combined = parts[0]
        for part in parts[1:]:
            if self.combine == "max":
                combined = entity_ops.larger(combined, part)
            else:
                combined = combined + part
        return combined / len(parts) if self.combine == "mean" else combined

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        states = {str(i): p.chunk_state(x, mask, weights) for i, p in enumerate(self.poolings)}
        return {**states, "size": self._size_state(x, mask, weights)}

    def merge(self, a: State, b: State) -> State:
        states = {str(i): p.merge(a[str(i)], b[str(i)]) for i, p in enumerate(self.poolings)}
        return {**states, "size": pooling_ops.merge_sums(a["size"], b["size"])}

    def finish(self, state: State) -> Tensor:
        pooled = [p.finish(state[str(i)]) for i, p in enumerate(self.poolings)]
        return ops.cast(self._combine(pooled, state["size"]), self.compute_dtype)

    def _widths(self, input_shape):
        widths = [p.compute_output_shape(input_shape)[-1] for p in self.poolings]
        if self.combine != "concatenate" and len(set(widths)) > 1:
            raise ValueError(
                f"With combine={self.combine!r} all poolings must give as many features. "
                f"Received: poolings that give {widths}"
            )
        return widths

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *shape, _ = super().compute_output_shape(input_shape)
        widths = self._widths(input_shape)
        if self.combine == "concatenate":
            return (*shape, len(self.scalers) * sum(widths))
        return (*shape, widths[0])

    def get_config(self) -> Config:
        from keras_sets.layers.pooling.names import serialize_pooling

        return {
            **super().get_config(),
            "poolings": [serialize_pooling(p, self.dtype_policy) for p in self.poolings],
            "scalers": self.scalers,
            "combine": self.combine,
            "mean_log_size": self.mean_log_size,
        }
