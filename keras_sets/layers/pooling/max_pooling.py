import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class MaxPooling(Pooling):
    """Largest value of every feature over the entities of a set.

    `y = max_{i: w_i > 0} x_i`, and 0 for a set without entities. Of the weights only
    their support counts.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities and to how often each one occurs.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.MaxPooling(keepdims=True)(np.ones((2, 5, 3))).shape == (2, 1, 3)
    True

    Reference:
        [Qi et al., 2017, PointNet](https://arxiv.org/abs/1612.00593), equation 1.
    """

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        return set_ops.set_max(x, mask, weights, keepdims)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return pooling_ops.max_state(x, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_maxima(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_max(state), self.compute_dtype)
