"""Sinkhorn divergence between two sets."""

import keras

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.losses.set_loss import SetLoss
from keras_sets.ops import set_distances


@keras.saving.register_keras_serializable(package="keras_sets")
class SinkhornDivergence(SetLoss):
    """Optimal transport between two sets with entropic regularisation, without its bias.

    ```
    S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2
    OT(x, y) = min over plans P of sum_ij P_ij |x_i - y_j|^2 / 2 + epsilon KL(P | a b^T)
    ```

    Rows of P sum to the shares a of the true elements, columns to the shares b of the
    predicted ones. S is 0 for equal sets and above 0 for others. For small epsilon it is half
    the squared Wasserstein distance, for large epsilon half the squared distance of the means.

    Args:
        epsilon: Positive number, the regularisation in squared units of the features. Details
            finer than its square root hardly count. The default suits coordinates of about 1.
            In float32 it is at least 5e-7 of the largest squared distance.
        iterations: Positive integer, at most so many updates of the potentials. Sets stop
            before where their potentials no longer change. Small epsilon takes more of them.
            The regularisation needs 3 log(largest squared distance / epsilon) to come down.
        reduction, name, dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: `(batch, n, features)`, the true elements.
        y_pred: `(batch, m, features)`, the predicted ones. Those that its Keras mask excludes
            are absent.
        sample_weight: Optional `(batch, n)`, how often each true element counts, 0 for padding,
            or `(batch,)`, how much each set counts. What absent elements hold reaches neither
            value nor gradient, NaN included.

    Returns:
        `(batch,)` before the reduction, in squared units of the features; 0 where one of the
        sets is empty.

    Symmetry:
        Invariant to permutations of either set. Whole weights equal repetitions.

    Gradients are those at convergence, by the theorem of the envelope. Second derivatives come
    out as 0. Memory grows as batch * n * m, whatever the iterations.

    Example:

    >>> import numpy as np, keras_sets
    >>> loss = keras_sets.losses.SinkhornDivergence(epsilon=0.01)
    >>> points = np.array([[[0.0], [4.0]]])
    >>> round(float(loss(points, points + 1)), 3)
    0.5
    >>> abs(float(loss(points, points))) < 1e-4
    True

    Reference:
        [Feydy et al., 2019](https://arxiv.org/abs/1810.08278), equations 1 and 3;
        [Thibault et al., 2021](https://arxiv.org/abs/1711.01851) for the updates.
    """

    def __init__(
        self,
        epsilon: float = 0.0025,
        iterations: int = 100,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sinkhorn_divergence",
        dtype: DType = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.epsilon = validation.positive_number("epsilon", epsilon)
        self.iterations = validation.positive_integer("iterations", iterations)

    def distance(
        self, y_true: Tensor, y_pred: Tensor, true_weights: Tensor, pred_weights: Tensor
    ) -> Tensor:
        return set_distances.sinkhorn_divergence(
            y_true,
            y_pred,
            self.epsilon,
            self.iterations,
            x_weights=true_weights,
            y_weights=pred_weights,
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon, "iterations": self.iterations}
