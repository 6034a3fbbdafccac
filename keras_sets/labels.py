"""Labels, scores and their weights, as losses and metrics are given them."""

import keras
import numpy as np
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.ops import matching as matching_ops


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
    labels = labels.astype("float64")
    wrong = ~((labels >= 0) & (labels < pred_shape[-1]) & (labels == np.floor(labels)))
    padding = ""
    if ignore_class is not None:
        wrong &= labels != ignore_class
        padding = f", or {ignore_class} for padding"
    if wrong.any():
        raise ValueError(
            f"{name} expects labels `y_true` in 0..{pred_shape[-1] - 1}, the classes of "
            f"`y_pred`{padding}. Received: {int(wrong.sum())} of {labels.size} labels are "
            f"others, the first is {labels[wrong][0]:g}"
        )


def check_sample_weight(sample_weight, entities, name):
    """Raises unless weights are `(batch,)` or `(batch, n)`, as `entities`, and at least 0."""
    shape, expected = tuple(sample_weight.shape), tuple(entities)
    if not any(validation.compatible_shapes(shape, expected[:rank]) for rank in (1, 2)):
        raise ValueError(
            f"{name} expects `sample_weight` of shape `(batch, n)` or `(batch,)`, here "
            f"{expected} or {expected[:1]}. Received: sample_weight.shape={shape}"
        )
    validation.check_weights(name, sample_weight, argument="sample_weight")


class IgnoreMasked(keras.layers.Layer):
    """Leaves out of `present` the entities that the Keras mask of `scores` excludes.

    A layer, because only to a layer does Keras hand the mask that a tensor carries. Left
    on the scores, Keras would turn the mask into weights of the batch, which reweights
    sets by their size; the scores returned here carry none.
    """

    def __init__(self):
        super().__init__(autocast=False)
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def build(self, scores_shape):
        self.built = True

    def call(self, scores, present, scores_mask=None):
        if scores_mask is not None:
            present = ops.logical_and(present, scores_mask)
            scores = set_ops.apply_mask(scores, present)
        return scores, present


class LabelledSets:
    """Reads what losses and metrics of labels are given.

    Args:
        name: Of the loss or the metric, for errors.
        ignore_class: Label of entities that do not count, or None.
    """

    def __init__(self, name, ignore_class):
        if ignore_class is not None and not validation.is_integer(ignore_class):
            raise ValueError(
                "Received an invalid value for `ignore_class`, expected an integer or None. "
                f"Received: ignore_class={ignore_class!r}"
            )
        self.name = name
        self.ignore_class = ignore_class
        self._ignore_masked = IgnoreMasked()

    def read(self, y_true, y_pred, sample_weight=None):
        """`(members, scores, sample_weight)`, of scores of several steps as well.

        `members` `(batch, n, classes)` says how much every entity counts in every class, the
        weights of entities included; `sample_weight` is what is left of it, a weight for
        each set, or None.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        steps = None
        if len(y_pred.shape) == 4:
            steps, y_pred = y_pred, y_pred[:, -1]
        check_labels(y_true, y_pred, self.name, self.ignore_class)
        weights = None
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight)
            check_sample_weight(sample_weight, y_true.shape, self.name)
            if len(sample_weight.shape) == 2:
                weights, sample_weight = sample_weight, None
        y_pred, present = self._ignore_masked(y_pred, ops.ones_like(y_true, dtype="bool"))
        members = matching_ops.class_members(
            y_true, y_pred.shape[-1], self.ignore_class, present, weights
        )
        return members, y_pred if steps is None else steps, sample_weight
