"""Likelihood of the points of a set under a predicted mixture."""

import math

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.labels import IgnoreMasked
from keras_sets.labels import check_sample_weight
from keras_sets.ops import entities as entity_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class GaussianMixtureLoss(keras.losses.Loss):
    """Negative log-likelihood of the points of a set under a predicted mixture of Gaussians.

    ```
    -log p(x) = -log sum_k w_k product_j N(x_j; mean_kj, sigma_kj^2)
    w = softmax(logits),  sigma = softplus(raw) + epsilon
    ```

    Args:
        epsilon: Positive number, the least standard deviation: the likelihood of a Gaussian
            that shrinks to a single point has no bound.
        reduction: As in `keras.losses.Loss`. The default divides by the sum of the sample
            weights: with a mask as weights it is the mean over the points that are there.
        name, dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: `(batch, n, features)`, the points.
        y_pred: `(batch, components, 1 + features + s)`. For each Gaussian its logit, its
            mean, and its raw standard deviations: s = features of them, one for each axis,
            or s = 1 for all axes together. Those that its Keras mask excludes are absent.
        sample_weight: Optional `(batch, n)`, the mask of the points or how often each
            counts, or `(batch,)`, one weight for all points of a set, at least 0. Points of
            weight 0 may hold anything, NaN included.

    Returns:
        `(batch, n)` before the reduction, in nats; 0 where a mixture has no Gaussian.

    Symmetry:
        Invariant to permutations of the components; the values of the points follow
        permutations of the points, so that the mean is invariant to them.

    Example:

    >>> import numpy as np, keras_sets
    >>> loss = keras_sets.losses.GaussianMixtureLoss()
    >>> points = np.zeros((1, 5, 2))
    >>> one = np.log(np.e - 1)  # softplus(one) == 1
    >>> mixture = np.array([[[0.0, 0.0, 0.0, one, one]]])
    >>> bool(abs(loss(points, mixture) - np.log(2 * np.pi)) < 1e-5)
    True

    Reference:
        [Lee et al., 2019, Set Transformer](https://arxiv.org/abs/1810.00825), section 5.3.
    """

    def __init__(
        self,
        epsilon: float = 1e-6,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "gaussian_mixture_loss",
        dtype: DType = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.epsilon = validation.positive_number("epsilon", epsilon)
        self._ignore_masked = IgnoreMasked()

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        self._check(y_true, y_pred)
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight, self.dtype)
            check_sample_weight(sample_weight, y_true.shape[:2], "GaussianMixtureLoss")
            # Keras would divide by the sum of the weights of sets, not of points.
            if len(sample_weight.shape) == 1:
                sample_weight = ops.expand_dims(sample_weight, -1)
            sample_weight = ops.broadcast_to(sample_weight, ops.shape(y_true)[:2])
            present, sample_weight = set_ops.multiplicities(weights=sample_weight)
            y_true = set_ops.apply_mask(y_true, present)
        pair = self._ignore_masked(y_pred, ops.ones_like(y_pred[..., 0], dtype="bool"))
        return super().__call__(y_true, pair, sample_weight=sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """`y_pred` is a tensor, or the pair with a mask that `__call__` makes of it."""
        if isinstance(y_pred, tuple):
            y_pred, present = y_pred
            present = ops.cast(present, "bool")
            logits = y_pred[..., 0]
            logits = ops.where(present, logits, ops.full_like(logits, entity_ops.lowest(logits)))
            y_pred = ops.concatenate([ops.expand_dims(logits, -1), y_pred[..., 1:]], axis=-1)
            values = self.call(y_true, y_pred)
            return set_ops.apply_mask(values, ops.any(present, axis=-1))
        self._check(y_true, y_pred)
        features = y_true.shape[-1]
        log_weights, means, sigmas = (ops.expand_dims(t, 1) for t in self.mixture(y_pred, features))
        distances = (ops.expand_dims(y_true, 2) - means) / sigmas
        log_p = -0.5 * ops.sum(ops.square(distances), axis=-1)
        log_p = log_p - ops.sum(ops.log(sigmas), axis=-1) - 0.5 * features * math.log(2 * math.pi)
        return -ops.logsumexp(log_weights + log_p, axis=-1)

    def mixture(self, y_pred: Tensor, features: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `y_pred` says: `(log_weights, means, sigmas)`.

        Shapes: `(batch, components)` and twice `(batch, components, features)`.
        """
        log_weights = ops.log_softmax(y_pred[..., 0], axis=-1)
        means = y_pred[..., 1 : 1 + features]
        sigmas = ops.softplus(y_pred[..., 1 + features :]) + self.epsilon
        return log_weights, means, ops.broadcast_to(sigmas, ops.shape(means))

    def _check(self, y_true, y_pred):
        true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
        if len(true_shape) != 3 or true_shape[-1] is None:
            raise ValueError(
                "GaussianMixtureLoss expects `y_true` of shape `(batch, n, features)` with a "
                f"known number of features. Received: y_true.shape={true_shape}"
            )
        features = true_shape[-1]
        if (
            len(pred_shape) != 3
            or pred_shape[-1] not in (2 + features, 1 + 2 * features)
            or not validation.compatible_shapes(true_shape[:1], pred_shape[:1])
        ):
            raise ValueError(
                "GaussianMixtureLoss expects `y_pred` of shape `(batch, components, "
                f"parameters)` with {1 + 2 * features} parameters (one logit, {features} "
                f"coordinates of the mean, {features} standard deviations), or {2 + features} "
                f"with one standard deviation, for `y_true` of shape {true_shape}. Received: "
                f"y_pred.shape={pred_shape}"
            )

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon}
