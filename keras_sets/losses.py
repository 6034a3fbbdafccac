"""Losses for predictions about sets."""

import math

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.labels import LabelledSets
from keras_sets.labels import check_sample_weight
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import matching as matching_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class MatchedCrossentropy(keras.losses.Loss):
    """Cross entropy of the entities under the best matching of predicted to true labels.

    For every set, `min over permutations s of mean_i -log p_i[s(y_i)]` over its real
    entities: cluster labels have no order, so the loss may not depend on one. The minimum
    is exact; the gradient is that of the best matching. Scores of `-inf` are classes that
    an entity cannot have.

    Args:
        from_logits: Whether `y_pred` are logits; if False, they are probabilities.
        ignore_class: Label of entities that do not count (padding), None for no such label.
            Entities that the Keras mask of `y_pred` excludes do not count either.
        reduction, name, dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: Integer `(batch, n)`, labels in 0..classes-1 or `ignore_class`. Others are an
            error, or make the loss NaN inside compiled steps, where they cannot be seen.
        y_pred: `(batch, n, classes)`. Those of entities that do not count may be NaN. Of a
            network that answers after several steps `(batch, steps, n, classes)`: the labels are
            matched to the last step, which makes half of the loss, the mean of the others the
            other half (deep supervision).
        sample_weight: Optional `(batch,)`, how much each set counts, or `(batch, n)`, how
            much each entity counts within its set: the value of a set is the weighted mean
            over its entities, under the matching that makes it least. Entities of weight 0
            are absent, whole numbers are repetitions, and sets count alike whatever the sum
            of their weights.

    Returns:
        `(batch,)` before the reduction, in nats per entity: each set's mean over its real
        entities, 0 for a set that has none.

    Symmetry:
        Invariant to permutations of the classes of `y_true`, of the classes of `y_pred`,
        and of the entities of both together.

    Example:

    >>> import numpy as np, keras_sets
    >>> loss = keras_sets.losses.MatchedCrossentropy()
    >>> logits = 9.0 * np.eye(3)[[[0, 0, 1, 2]]]
    >>> bool(loss(np.array([[2, 2, 0, 1]]), logits) < 1e-3)
    True

    Reference:
        [Kuhn, 1955, The Hungarian method](https://doi.org/10.1002/nav.3800020109);
        [Held and Karp, 1962](https://doi.org/10.1137/0110015) for up to 12 classes.
    """

    def __init__(
        self,
        from_logits=True,
        ignore_class=-1,
        reduction="sum_over_batch_size",
        name="matched_crossentropy",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self._sets = LabelledSets("MatchedCrossentropy", ignore_class)

    def __call__(self, y_true, y_pred, sample_weight=None):
        members, y_pred, sample_weight = self._sets.read(y_true, y_pred, sample_weight)
        loss = super().__call__(members, y_pred, sample_weight=sample_weight)
        # Of a batch without sets Keras leaves the values as they are, which are none.
        return ops.sum(loss) if self.reduction not in (None, "none") else loss

    def call(self, y_true, y_pred):
        """`y_true` are labels, or the `(batch, n, classes)` that `__call__` makes of them."""
        if len(y_true.shape) == 2:
            y_true, y_pred, _ = self._sets.read(y_true, y_pred)
        steps = y_pred.shape[1] if len(y_pred.shape) == 4 else 1
        if len(y_pred.shape) == 3:
            y_pred = ops.expand_dims(y_pred, 1)
        present = ops.expand_dims(ops.any(ops.not_equal(y_true, 0), axis=-1), 1)
        y_pred = set_ops.apply_mask(y_pred, present)
        if self.from_logits:
            log_p = ops.log_softmax(y_pred, axis=-1)
        else:
            log_p = ops.log(ops.maximum(y_pred, keras.config.epsilon()))
        # The steps are further columns of the same sums.
        shape = ops.shape(log_p)
        columns = ops.reshape(
            ops.transpose(log_p, (0, 2, 1, 3)), (shape[0], shape[2], steps * shape[3])
        )
        overlap, counts = matching_ops.class_overlap(y_true, -columns)
        overlap = ops.reshape(overlap, (shape[0], shape[3], steps, shape[3]))
        matching = set_ops.linear_sum_assignment(overlap[:, :, -1])
        matching = ops.expand_dims(ops.repeat(ops.expand_dims(matching, -1), steps, axis=-1), -1)
        matched = ops.sum(ops.take_along_axis(overlap, matching, axis=-1), axis=(1, 3))
        loss = matched[:, -1]
        if steps > 1:
            loss = 0.5 * (loss + ops.mean(matched[:, :-1], axis=1))
        return entity_ops.safe_ratio(loss, counts)

    def get_config(self):
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }


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
            or s = 1 for all axes together.
        sample_weight: Optional `(batch, n)`, the mask of the points or how often each
            counts, or `(batch,)`, one weight for all points of a set, at least 0. Points of
            weight 0 may hold anything, NaN included.

    Returns:
        `(batch, n)` before the reduction, in nats.

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
        epsilon=1e-6,
        reduction="mean_with_sample_weight",
        name="gaussian_mixture_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.epsilon = validation.positive_number("epsilon", epsilon)

    def __call__(self, y_true, y_pred, sample_weight=None):
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
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true, y_pred):
        self._check(y_true, y_pred)
        features = y_true.shape[-1]
        log_weights, means, sigmas = (ops.expand_dims(t, 1) for t in self.mixture(y_pred, features))
        distances = (ops.expand_dims(y_true, 2) - means) / sigmas
        log_p = -0.5 * ops.sum(ops.square(distances), axis=-1)
        log_p = log_p - ops.sum(ops.log(sigmas), axis=-1) - 0.5 * features * math.log(2 * math.pi)
        return -ops.logsumexp(log_weights + log_p, axis=-1)

    def mixture(self, y_pred, features):
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

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
