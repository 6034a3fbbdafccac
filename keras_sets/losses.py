"""Losses for predictions about sets."""

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation


def check_labels(y_true, y_pred, name, ignore_class=-1):
    """Raises unless labels are `(batch, n)` and scores `(batch, n, classes)`.

    Labels have to be classes or `ignore_class`, which is checked where they can be seen:
    outside compiled steps.
    """
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    if len(pred_shape) != 3 or pred_shape[-1] is None:
        raise ValueError(
            f"{name} expects `y_pred` of shape `(batch, n, classes)` with a known number of "
            f"classes. Received: y_pred.shape={pred_shape}"
        )
    if not validation.compatible_shapes(true_shape, pred_shape[:-1]):
        raise ValueError(
            f"{name} expects integer `y_true` of shape `(batch, n)`, here {pred_shape[:-1]}. "
            f"Received: y_true.shape={true_shape}"
        )
    labels = validation.visible_array(y_true)
    if labels is None:
        return
    wrong = (labels != ignore_class) & ~((labels >= 0) & (labels < pred_shape[-1]))
    if wrong.any():
        raise ValueError(
            f"{name} expects labels `y_true` in 0..{pred_shape[-1] - 1}, the classes of "
            f"`y_pred`, or {ignore_class} for padding. Received: {int(wrong.sum())} of "
            f"{labels.size} labels are others, the first is {labels[wrong][0]}"
        )


class IgnoreMasked(keras.layers.Layer):
    """Marks the entities that the Keras mask of `scores` excludes by `ignore_class`.

    A layer, because only to a layer does Keras hand the mask that a tensor carries. Left
    on the scores, Keras would turn the mask into weights of the batch, which reweights
    sets by their size; the scores returned here carry none.
    """

    def __init__(self, ignore_class):
        super().__init__(autocast=False)
        self.ignore_class = ignore_class
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def build(self, scores_shape):
        self.built = True

    def call(self, scores, labels, scores_mask=None):
        if scores_mask is None:
            return labels, scores
        labels = ops.where(scores_mask, labels, ops.full_like(labels, self.ignore_class))
        scores = ops.where(ops.expand_dims(scores_mask, -1), scores, ops.zeros_like(scores))
        return labels, scores


@keras.saving.register_keras_serializable(package="keras_sets")
class MatchedCrossentropy(keras.losses.Loss):
    """Cross entropy of the entities under the best matching of predicted to true labels.

    For every set, `min over permutations s of mean_i -log p_i[s(y_i)]` over its real
    entities: cluster labels have no order, so the loss may not depend on one. The minimum
    is exact; the gradient is that of the best matching.

    Args:
        from_logits: Whether `y_pred` are logits; if False, they are probabilities.
        ignore_class: Label of entities that do not count (padding). Entities that the
            Keras mask of `y_pred` excludes do not count either.
        reduction, name, dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: Integer `(batch, n)`, labels in 0..classes-1 or `ignore_class`.
        y_pred: `(batch, n, classes)`.

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
        self._ignore_masked = IgnoreMasked(ignore_class)

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        check_labels(y_true, y_pred, "MatchedCrossentropy", self.ignore_class)
        y_true, y_pred = self._ignore_masked(y_pred, y_true)
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true, y_pred):
        check_labels(y_true, y_pred, "MatchedCrossentropy", self.ignore_class)
        if self.from_logits:
            log_p = ops.log_softmax(y_pred, axis=-1)
        else:
            log_p = ops.log(ops.maximum(y_pred, keras.config.epsilon()))
        overlap, counts = set_ops.class_overlap(y_true, -log_p, y_pred.shape[-1], self.ignore_class)
        matching = set_ops.linear_sum_assignment(overlap)
        matched = ops.take_along_axis(overlap, ops.expand_dims(matching, -1), axis=-1)
        return ops.sum(matched, axis=(1, 2)) / ops.maximum(counts, 1)

    def get_config(self):
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }
