import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class LogSumExpPooling(Pooling):
    """Smooth maximum over the entities of a set.

    `y = log sum_i w_i exp(x_i)`, and 0 for a set without entities.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities. A common factor of the weights adds its
        logarithm.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.LogSumExpPooling()(np.zeros((2, 5, 3))).shape == (2, 3)
    True

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), section 2.
    """

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        return set_ops.set_logsumexp(x, mask, weights, keepdims)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return pooling_ops.logsumexp_state(x, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_logsumexps(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_logsumexp(state), self.compute_dtype)
