import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class MeanPooling(Pooling):
    """Mean over the entities of a set.

    `y = sum_i w_i x_i / sum_i w_i`, and 0 for a set without entities.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        `(batch, features)`, or `(batch, 1, ..., 1, features)` with `keepdims=True`.

    Masking:
        Masked entities do not count, whatever they hold. The output has no mask.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.array([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    >>> pooling = keras_sets.layers.MeanPooling()
    >>> pooling(points, mask=np.array([[True, True, False]])).shape == (1, 2)
    True

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), section 2.
    """

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        return set_ops.set_mean(x, mask, weights, keepdims)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return pooling_ops.mean_state(x, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_means(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_mean(state), self.compute_dtype)
