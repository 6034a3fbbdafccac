"""Cross entropy of labels that have no order."""

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.labels import LabelledSets
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
        from_logits: bool = True,
        ignore_class: int | None = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "matched_crossentropy",
        dtype: DType = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.from_logits = validation.boolean("from_logits", from_logits)
        self.ignore_class = ignore_class
        self._sets = LabelledSets("MatchedCrossentropy", ignore_class)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        members, y_pred, sample_weight = self._sets.read(y_true, y_pred, sample_weight)
        loss = super().__call__(members, y_pred, sample_weight=sample_weight)
        # Of a batch without sets Keras leaves the values as they are, which are none.
        return ops.sum(loss) if self.reduction not in (None, "none") else loss

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
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
            loss = 0.5 * (loss + ops.sum(matched[:, :-1], axis=1) / (steps - 1))
        return entity_ops.safe_ratio(loss, counts)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
        }
