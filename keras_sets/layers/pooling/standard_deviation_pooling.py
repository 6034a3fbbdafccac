import keras
from keras import ops

from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.variance_pooling import VariancePooling
from keras_sets.ops import moments


@keras.saving.register_keras_serializable(package="keras_sets")
class StandardDeviationPooling(VariancePooling):
    """Standard deviation over the entities of a set.

    `y = sqrt(sum_i w_i (x_i - mean)^2 / sum_i w_i)`, and 0 for a set without entities. Where all
    entities are equal the gradient is 0.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.array([[[1.0], [3.0], [5.0], [7.0]]])
    >>> float(keras_sets.layers.StandardDeviationPooling()(points)[0, 0] ** 2)
    5.0

    Reference:
        [Corso et al., 2020, Principal Neighbourhood Aggregation for Graph
        Nets](https://arxiv.org/abs/2004.05718), section 2.
    """

    def finish(self, state: State) -> Tensor:
        return ops.cast(moments.root(moments.finish_variance(state)), self.compute_dtype)
