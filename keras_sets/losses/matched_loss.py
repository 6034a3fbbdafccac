"""Losses of elements under the best matching of predicted to true ones."""

from collections.abc import Callable

import keras
import numpy as np

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.losses.set_loss import SetLoss
from keras_sets.losses.set_loss import sizes
from keras_sets.ops import set_distances


@keras.saving.register_keras_serializable(package="keras_sets")
class MatchedLoss(SetLoss):
    """A loss of elements, under the exact matching of predicted to true ones.

    Every true element has one predicted element as its partner. There may be more
    predicted elements than true ones, as many as a network has queries: these say by a logit
    whether they are an object at all. The loss is the least over all matchings s of

    ```
    mean_i pairwise(x_i, y_s(i)) + mean_j (softplus(-logit_j)                    j has a partner
                                           no_object_weight * softplus(logit_j)  j has none)
    ```

    Args:
        pairwise: Loss of a true and a predicted element: the name of a Keras loss, a
            `keras.losses.Loss`, or a function of tensors `(..., true features)` and
            `(..., predicted features)` that gives `(...)`. It weighs its own terms, and
            against the logits. Files keep functions that are registered with
            `keras.saving.register_keras_serializable`.
        no_object_weight: None, when all of `y_pred` are features. Predictions without a
            partner cost nothing then. Or a number at least 0: the last feature of `y_pred` is
            the logit that the element exists, and this is how much it counts for predictions
            without a partner (0.1 in DETR).
        reduction, name, dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: `(batch, n, true features)`, the true elements.
        y_pred: `(batch, m, predicted features)`, with the logit last if there is one. Those
            that its Keras mask excludes are absent: they are no partners.
        sample_weight: Optional `(batch, n)`, how much each true element counts in the mean, 0
            for padding, or `(batch,)`, how much each set counts. What absent elements hold
            reaches neither value nor gradient, NaN included. An element of weight 2 has
            one partner still: its weight is no repetition.

    Returns:
        `(batch,)` before the reduction. Without true elements only the logits count, without
        any elements it is 0.

    Raises:
        ValueError: If a set has more true than predicted elements. Inside compiled steps,
            where numbers cannot be seen, the loss is NaN.

    Symmetry:
        Invariant to permutations of either set.

    `pairwise` sees all pairs, `(batch, n, m, features)`, to find the matching, without
    gradients, and the partners again. The time of the matching is that of `EarthMover`.

    Example:

    >>> import numpy as np, keras_sets
    >>> loss = keras_sets.losses.MatchedLoss("mean_absolute_error", no_object_weight=0.1)
    >>> true = np.array([[[1.0], [5.0]]])
    >>> queries = np.array([[[5.5, 9.0], [7.0, -9.0], [1.0, 9.0]]])  # a feature and the logit
    >>> round(float(loss(true, queries)), 3)
    0.25

    Reference:
        [Carion et al., 2020, DETR](https://arxiv.org/abs/2005.12872), equations 1 and 2; here the
        matching makes the loss itself least.
    """

    same_features = False

    def __init__(
        self,
        pairwise: str | Config | Callable[..., Tensor],
        no_object_weight: float | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "matched_loss",
        dtype: DType = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        if no_object_weight is not None and no_object_weight != 0:
            no_object_weight = validation.positive_number("no_object_weight", no_object_weight)
        self.pairwise = keras.losses.get(pairwise)
        if self.pairwise is None:
            raise ValueError(
                "Received an invalid value for `pairwise`, expected a loss or a function. "
                "Received: pairwise=None"
            )
        self.no_object_weight = no_object_weight

    def distance(
        self, y_true: Tensor, y_pred: Tensor, true_weights: Tensor, pred_weights: Tensor
    ) -> Tensor:
        pairwise = self.pairwise
        return set_distances.matched_loss(
            y_true,
            y_pred,
            pairwise.call if isinstance(pairwise, keras.losses.Loss) else pairwise,
            self.no_object_weight,
            y_mask=pred_weights,
            x_weights=true_weights,
        )

    def _check_weights(self, true_weights, present):
        seen = sizes(true_weights, present)
        if seen is not None and (seen[0] > seen[1]).any():
            one = np.argmax(seen[0] > seen[1])
            raise ValueError(
                "MatchedLoss expects at least as many predicted as true elements. Received: "
                f"{seen[0][one]} in `y_true` and {seen[1][one]} in `y_pred` for set {one}"
            )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "pairwise": keras.losses.serialize(self.pairwise),
            "no_object_weight": self.no_object_weight,
        }
