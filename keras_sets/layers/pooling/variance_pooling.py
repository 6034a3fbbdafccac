import keras
from keras import ops

from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import moments


@keras.saving.register_keras_serializable(package="keras_sets")
class VariancePooling(Pooling):
    """Variance over the entities of a set.

    `y = sum_i w_i (x_i - mean)^2 / sum_i w_i`, and 0 for a set without entities. A constant that
    is added to all entities changes nothing but the rounding of the inputs.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.array([[[1.0], [3.0]]])
    >>> float(keras_sets.layers.VariancePooling()(points)[0, 0])
    1.0

    Reference:
        [Corso et al., 2020, Principal Neighbourhood Aggregation for Graph
        Nets](https://arxiv.org/abs/2004.05718), section 2; [Chan, Golub and LeVeque, 1983,
        Algorithms for Computing the Sample
        Variance](https://doi.org/10.1080/00031305.1983.10483115), for chunks.
    """

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return moments.variance_state(x, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return moments.merge_variances(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(moments.finish_variance(state), self.compute_dtype)
