from typing import Any

import keras

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import quantiles


@keras.saving.register_keras_serializable(package="keras_sets")
class QuantilePooling(Pooling):
    """Quantiles of every feature over the entities of a set.

    The quantile of a share q is the smallest value that, with all smaller ones, has at least the
    share q of the weight; where it has that share exactly, the mean of this value and the next.
    It is NumPy's method `"averaged_inverted_cdf"`: an entity of weight w counts like w copies, and
    q = 0.5 is the usual median. A set without entities gives 0. In float32 sums of weights are
    rounded: shares that differ by less than 1e-5 are equal where there are weights.

    It sorts the set, which costs `n log n`, and cannot be computed in chunks.

    Args:
        q: A number in [0, 1], or a list of them.
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, masking:
        As for `keras_sets.layers.MeanPooling`.

    Output shape:
        `(batch, features)`, for a list `(batch, len(q) * features)`, those of one q together;
        with `keepdims=True` also axes of size 1.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.array([[[1.0], [2.0], [4.0], [9.0]]])
    >>> y = keras_sets.layers.QuantilePooling([0.0, 0.5, 0.9])(points)
    >>> [float(v) for v in y[0]]
    [1.0, 3.0, 9.0]

    Reference:
        [Hyndman and Fan, 1996, Sample Quantiles in Statistical
        Packages](https://doi.org/10.1080/00031305.1996.10473566), definition 2.
    """

    def __init__(
        self,
        q: float | list[float] | tuple[float, ...] = 0.5,
        keepdims: bool = False,
        **kwargs: Any,
    ) -> None:
        shares = list(q) if isinstance(q, (list, tuple)) else [q]
        if not shares or not all(validation.is_number(s) and 0 <= s <= 1 for s in shares):
            raise ValueError(
                "Received an invalid value for `q`, expected a number in [0, 1] or a list of them. "
                f"Received: q={q!r}"
            )
        super().__init__(keepdims, **kwargs)
        self.q = [float(s) for s in shares] if isinstance(q, (list, tuple)) else float(q)
        self._shares = [float(s) for s in shares]

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        pooled = quantiles.set_quantile(x, self._shares, mask, weights)
        return entity_ops.expand_over_entities(pooled, len(x.shape)) if keepdims else pooled

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *shape, features = super().compute_output_shape(input_shape)
        return (*shape, features * len(self._shares))

    def get_config(self) -> Config:
        return {**super().get_config(), "q": self.q}
