from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import Config
from keras_sets._typing import Initializer
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.ops import moments
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class SoftmaxPooling(WeightOptions, Pooling):
    """Mean of the entities under the softmax of their own values, in every feature.

    `y = sum_i p_i x_i` with `p = softmax(temperature * x_i + log w_i)` over the entities, and 0
    for a set without entities. The temperature is a weight for each feature: at 0 the pooling is
    the mean, far above 0 the maximum, far below it the minimum.

    Args:
        temperature_initializer: Initializer of the temperatures.
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> points = np.array([[[0.0], [np.log(3.0)]]])
    >>> y = keras_sets.layers.SoftmaxPooling()(points)  # shares 1/4 and 3/4
    >>> round(float(keras.ops.convert_to_numpy(y)[0, 0] / np.log(3.0)), 4)
    0.75

    Reference:
        [Li et al., 2020, DeeperGCN](https://arxiv.org/abs/2006.07739), equation 2.
    """

    def __init__(
        self, temperature_initializer: Initializer = "ones", keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(keepdims, **kwargs)
        self._set_weight_options(temperature_initializer=temperature_initializer)

    def build(self, input_shape: Shape) -> None:
        self.temperature = self.add_weight(
            name="temperature",
            shape=(input_shape[-1],),
            initializer=self.temperature_initializer,
        )
        self._set_features(input_shape)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        x = ops.cast(x, set_ops.accumulation_dtype(x))
        exponents = x * ops.cast(ops.convert_to_tensor(self.temperature), x.dtype)
        return moments.softmax_state(x, exponents, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_softmaxes(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_mean(state), self.compute_dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), **self._weight_options_config()}
