"""Earth mover's distance between two sets of equal size."""

import keras

from keras_sets import validation
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.losses.set_loss import SetLoss
from keras_sets.losses.set_loss import sizes
from keras_sets.ops import set_distances


@keras.saving.register_keras_serializable(package="keras_sets")
class EarthMover(SetLoss):
    """Mean distance between partners, under the exact matching that makes it least.

    ```
    min over permutations s of mean_i |x_i - y_s(i)|
    ```

    Args:
        reduction, name, dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: `(batch, n, features)`, the true elements.
        y_pred: `(batch, m, features)`, the predicted ones. Those that its Keras mask excludes
            are absent.
        sample_weight: Optional `(batch, n)` of ones and zeros, 0 for padding, or `(batch,)`,
            how much each set counts. What absent elements hold reaches neither value nor
            gradient, NaN included. `SinkhornDivergence` takes other weights.

    Returns:
        `(batch,)` before the reduction, in units of the features; 0 for two empty sets.

    Raises:
        ValueError: If a true and a predicted set have different numbers of elements, or
            weights of elements are neither 0 nor 1. Inside compiled steps, where numbers cannot
            be seen, the loss is NaN.

    Symmetry:
        Invariant to permutations of either set.

    The matching takes time of the order of n^3 at worst, on every backend inside the
    compiled graph: it is made for hundreds of elements rather than thousands.

    Example:

    >>> import numpy as np, keras_sets
    >>> loss = keras_sets.losses.EarthMover()
    >>> float(loss(np.array([[[0.0], [4.0]]]), np.array([[[5.0], [2.0]]])))
    1.5

    Reference:
        [Fan et al., 2017, A point set generation network](https://arxiv.org/abs/1612.00603),
        section 3.2, with the mean in place of the sum. The matching is exact.
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "earth_mover",
        dtype: DType = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def distance(
        self, y_true: Tensor, y_pred: Tensor, true_weights: Tensor, pred_weights: Tensor
    ) -> Tensor:
        # As masks: numbers other than 0 and 1 make the loss NaN.
        return set_distances.earth_mover(y_true, y_pred, true_weights, pred_weights)

    def _check_weights(self, true_weights, present):
        seen = sizes(true_weights, present)
        if seen is None:
            return
        weights = validation.visible_array(true_weights)
        wrong = (weights != 0) & (weights != 1)
        if wrong.any():
            raise ValueError(
                "EarthMover matches elements one to one and expects `sample_weight` `(batch, n)` "
                "of zeros and ones; `SinkhornDivergence` takes other weights. Received: "
                f"{int(wrong.sum())} of {wrong.size} are others, the first is "
                f"{weights[wrong][0]:g}"
            )
        if (seen[0] != seen[1]).any():
            one = (seen[0] != seen[1]).argmax()
            raise ValueError(
                "EarthMover expects as many predicted as true elements; `Chamfer` and "
                "`SinkhornDivergence` compare sets of different sizes. Received: "
                f"{seen[0][one]} in `y_true` and {seen[1][one]} in `y_pred` for set {one}"
            )
