import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class SumPooling(Pooling):
    """Sum over the entities of a set.

    `y = sum_i w_i x_i`, and 0 for a set without entities. The sum runs in float32 and
    is then cast, so in float16 a large set can exceed 65504: prefer the mean there.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.SumPooling()(np.ones((2, 5, 3))).shape == (2, 3)
    True

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), theorem 2.
    """

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        return set_ops.set_sum(x, mask, weights, keepdims)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return pooling_ops.sum_state(x, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_sums(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_sum(state), self.compute_dtype)
