from typing import Any

import keras
from keras import ops

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Initializer
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.ops import moments


@keras.saving.register_keras_serializable(package="keras_sets")
class PowerMeanPooling(WeightOptions, Pooling):
    """Power mean over the entities of a set, with a learned exponent for each feature.

    `y = (sum_i w_i max(x_i, minimum)^p / sum_i w_i)^(1 / p)`, and 0 for a set without entities. It
    is the mean for p = 1, near the geometric mean for p near 0, the harmonic mean for p = -1,
    and nears the maximum for large p. For inputs that are positive, as after a `relu`.

    Args:
        exponent_initializer: Initializer of the exponents.
        minimum: Positive number that smaller inputs are raised to.
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> harmonic = keras.initializers.Constant(-1)
    >>> pooling = keras_sets.layers.PowerMeanPooling(exponent_initializer=harmonic)
    >>> y = pooling(np.array([[[1.0], [3.0]]]))  # 2 / (1 + 1 / 3)
    >>> round(float(keras.ops.convert_to_numpy(y)[0, 0]), 4)
    1.5

    Reference:
        [Li et al., 2020, DeeperGCN](https://arxiv.org/abs/2006.07739), equation 3.
    """

    def __init__(
        self,
        exponent_initializer: Initializer = "ones",
        minimum: float = 1e-6,
        keepdims: bool = False,
        **kwargs: Any,
    ) -> None:
        minimum = validation.positive_number("minimum", minimum)
        super().__init__(keepdims, **kwargs)
        self.minimum = minimum
        self._set_weight_options(exponent_initializer=exponent_initializer)

    def build(self, input_shape: Shape) -> None:
        self.exponent = self.add_weight(
            name="exponent",
            shape=(input_shape[-1],),
            initializer=self.exponent_initializer,
        )
        self._set_features(input_shape)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        exponent = ops.convert_to_tensor(self.exponent)
        return moments.power_mean_state(x, exponent, self.minimum, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return moments.merge_power_means(a, b)

    def finish(self, state: State) -> Tensor:
        exponent = ops.convert_to_tensor(self.exponent)
        return ops.cast(moments.finish_power_mean(state, exponent), self.compute_dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "minimum": self.minimum, **self._weight_options_config()}
