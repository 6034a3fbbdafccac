"""What losses between two sets have in common."""

import keras
from keras import ops

from keras_sets import validation
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.labels import IgnoreMasked
from keras_sets.labels import check_sample_weight


class SetLoss(keras.losses.Loss):
    """A loss between a true and a predicted set, which says what `call` is given.

    A subclass implements `distance(y_true, y_pred, true_weights, pred_weights)`, which gives
    `(batch,)`. Weights are how often each element counts, 0 for absent ones.
    """

    same_features = True

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: DType = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._ignore_masked = IgnoreMasked()

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        self._check(y_true, y_pred)
        true_weights = ops.ones_like(y_true[..., 0], dtype=self.dtype)
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight, self.dtype)
            check_sample_weight(sample_weight, y_true.shape[:2], type(self).__name__)
            if len(sample_weight.shape) == 2:
                true_weights, sample_weight = sample_weight, None
        present = ops.ones_like(y_pred[..., 0], dtype="bool")
        y_pred, present = self._ignore_masked(y_pred, present)
        self._check_weights(true_weights, present)
        loss = super().__call__((y_true, true_weights), (y_pred, present), sample_weight)
        # Of a batch without sets Keras leaves the values as they are, which are none.
        return ops.sum(loss) if self.reduction not in (None, "none") else loss

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Takes tensors, or pairs of tensors and weights, which `__call__` makes of them."""
        (y_true, true_weights), (y_pred, pred_weights) = (
            y if isinstance(y, tuple) else (y, ops.ones_like(y[..., 0])) for y in (y_true, y_pred)
        )
        return self.distance(y_true, y_pred, true_weights, pred_weights)

    def distance(
        self, y_true: Tensor, y_pred: Tensor, true_weights: Tensor, pred_weights: Tensor
    ) -> Tensor:
        raise NotImplementedError

    def _check_weights(self, true_weights, present):
        """For losses that take some numbers of elements only."""

    def _check(self, y_true, y_pred):
        name, shapes = type(self).__name__, (tuple(y_true.shape), tuple(y_pred.shape))
        for argument, size, shape in zip(("y_true", "y_pred"), "nm", shapes, strict=True):
            if len(shape) != 3 or shape[-1] is None:
                raise ValueError(
                    f"{name} expects `{argument}` of shape `(batch, {size}, features)` with a "
                    f"known number of features. Received: {argument}.shape={shape}"
                )
        axes = slice(None, None, 2) if self.same_features else slice(1)
        if not validation.compatible_shapes(shapes[0][axes], shapes[1][axes]):
            alike = "sets and of features" if self.same_features else "sets"
            raise ValueError(
                f"{name} expects `y_true` and `y_pred` with the same number of {alike}. "
                f"Received: y_true.shape={shapes[0]}, y_pred.shape={shapes[1]}"
            )


def sizes(true_weights, present):
    """How many elements the sets have, as arrays, or None where that cannot be seen."""
    seen = [validation.visible_array(t) for t in (true_weights, present)]
    return None if any(t is None for t in seen) else [(t != 0).sum(axis=1) for t in seen]
