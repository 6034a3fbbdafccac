from typing import Any

import keras
from keras import ops

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Initializer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import quantiles


@keras.saving.register_keras_serializable(package="keras_sets")
class SortPooling(WeightOptions, Pooling):
    """Sorts every feature over the set and weights the values by their rank.

    With Q(u) the quantile function of a feature, which is the sorted set on [0, 1], and f a
    learned piecewise linear function for each feature,

    `y = integral from 0 to 1 of Q(u) f(u) du`,

    and 0 for a set without entities. It is continuous in the weights and knows no size: f = 1 is
    the mean, f that grows towards the right end the mean of the largest values. This is
    FSPool's featurewise sort pooling, of which it takes the integral in place of the sum over
    ranks, so that an entity of weight w counts like w copies.

    It sorts the set, which costs `n log n`, and cannot be computed in chunks.

    Args:
        num_pieces: Positive integer, pieces of f.
        kernel_initializer: Initializer of the values of f at the `num_pieces + 1` knots.
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> points = np.array([[[1.0], [3.0], [5.0]]])
    >>> mean = keras_sets.layers.SortPooling(kernel_initializer="ones")
    >>> round(float(keras.ops.convert_to_numpy(mean(points))[0, 0]), 4)
    3.0

    Reference:
        [Zhang, Hare and Prügel-Bennett, 2020, FSPool: Learning Set Representations with
        Featurewise Sort Pooling](https://arxiv.org/abs/1906.02795), section 3.
    """

    def __init__(
        self,
        num_pieces: int = 20,
        kernel_initializer: Initializer = "random_normal",
        keepdims: bool = False,
        **kwargs: Any,
    ) -> None:
        num_pieces = validation.positive_integer("num_pieces", num_pieces)
        super().__init__(keepdims, **kwargs)
        self.num_pieces = num_pieces
        self._set_weight_options(kernel_initializer=kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_pieces + 1, input_shape[-1]),
            initializer=self.kernel_initializer,
        )
        self._set_features(input_shape)

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        kernel = ops.convert_to_tensor(self.kernel)
        pooled = quantiles.set_quantile_integral(x, kernel, mask, weights)
        return entity_ops.expand_over_entities(pooled, len(x.shape)) if keepdims else pooled

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_pieces": self.num_pieces,
            **self._weight_options_config(),
        }
