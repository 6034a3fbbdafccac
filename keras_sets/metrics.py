"""Metrics of predicted cluster labels, which have no order."""

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.labels import LabelledSets
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import matching as matching_ops


class _ClusteringMetric(keras.metrics.Mean):
    """Mean over sets of a score of the predicted against the true labels.

    A subclass implements `score(table, counts)` with the contingency table
    `(batch, classes, classes)`: how many entities of true class k were given label j.
    """

    weighs_entities = True

    def __init__(self, ignore_class=-1, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = ignore_class
        self._sets = LabelledSets(type(self).__name__, ignore_class)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Accumulates a batch.

        Args:
            y_true: Integer `(batch, n)`, labels or `ignore_class`.
            y_pred: Scores `(batch, n, classes)`; the largest is the prediction. Of scores of
                several steps, `(batch, steps, n, classes)`, the last ones count.
            sample_weight: Optional `(batch,)`, how much each set counts, or, for
                `MatchedAccuracy`, `(batch, n)`, how much each entity counts within its set.
                Sets without a real entity never count.
        """
        shape = () if sample_weight is None else validation.shape_of(sample_weight)
        if len(shape) == 2 and not self.weighs_entities:
            raise ValueError(
                f"{type(self).__name__} counts pairs of entities and expects `sample_weight` of "
                "shape `(batch,)`, one weight for each set; mark entities that do not count by "
                f"`ignore_class`. Received: sample_weight.shape={shape}"
            )
        members, y_pred, sample_weight = self._sets.read(y_true, y_pred, sample_weight)
        if len(y_pred.shape) == 4:
            y_pred = y_pred[:, -1]
        classes = y_pred.shape[-1]
        chosen = ops.one_hot(ops.argmax(y_pred, axis=-1), classes, dtype="float32")
        table, counts = matching_ops.class_overlap(members, chosen)
        counted = 1 - ops.cast(counts <= 0, "float32")
        if sample_weight is not None:
            counted = counted * ops.cast(sample_weight, "float32")
        return super().update_state(self.score(table, counts), sample_weight=counted)

    def score(self, table, counts):
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="keras_sets")
class MatchedAccuracy(_ClusteringMetric):
    """Accuracy under the best matching of predicted to true labels, mean over sets.

    Args:
        ignore_class: Label of entities that do not count (padding), None for no such label. A
            mask that Keras carries along counts as well, but in `fit` under JAX metrics do not
            receive it: mark padding by this label there.
        name, dtype: As in `keras.metrics.Mean`.

    Example:

    >>> import numpy as np, keras_sets
    >>> metric = keras_sets.metrics.MatchedAccuracy()
    >>> metric.update_state(np.array([[2, 2, 0, -1]]), np.eye(3)[[[0, 0, 1, 1]]])
    >>> float(metric.result())
    1.0
    """

    def __init__(self, ignore_class=-1, name="matched_accuracy", dtype=None):
        super().__init__(ignore_class=ignore_class, name=name, dtype=dtype)

    def score(self, table, counts):
        matching = set_ops.linear_sum_assignment(-table)
        hits = ops.take_along_axis(table, ops.expand_dims(matching, -1), axis=-1)
        return entity_ops.safe_ratio(ops.sum(hits, axis=(1, 2)), counts)


@keras.saving.register_keras_serializable(package="keras_sets")
class AdjustedRandIndex(_ClusteringMetric):
    """Rand index of predicted against true labels, adjusted for chance, mean over sets.

    1 for equal partitions, about 0 for random labels. Where both partitions are trivial
    (all entities together, or each alone) it is 1, as in scikit-learn.

    Args:
        ignore_class: Label of entities that do not count (padding), None for no such label. A
            mask that Keras carries along counts as well, but in `fit` under JAX metrics do not
            receive it: mark padding by this label there.
        name, dtype: As in `keras.metrics.Mean`.

    Example:

    >>> import numpy as np, keras_sets
    >>> metric = keras_sets.metrics.AdjustedRandIndex()
    >>> metric.update_state(np.array([[2, 2, 0, 0]]), np.eye(3)[[[0, 0, 1, 1]]])
    >>> float(metric.result())
    1.0

    Reference:
        [Hubert and Arabie, 1985](https://doi.org/10.1007/BF01908075), equation 5.
    """

    weighs_entities = False

    def __init__(self, ignore_class=-1, name="adjusted_rand_index", dtype=None):
        super().__init__(ignore_class=ignore_class, name=name, dtype=dtype)

    def score(self, table, counts):
        # As shares of all pairs, so that large sets stay exact enough in float32.
        pairs = ops.maximum(counts * (counts - 1) / 2, 1)

        def share(sizes):
            axes = tuple(range(1, len(sizes.shape)))
            return ops.sum(sizes * (sizes - 1) / 2, axis=axes) / pairs

        together = share(table)
        true, predicted = share(ops.sum(table, axis=2)), share(ops.sum(table, axis=1))
        expected = true * predicted
        scale = (true + predicted) / 2 - expected
        trivial = scale <= 0
        ratio = (together - expected) / ops.where(trivial, ops.ones_like(scale), scale)
        return ops.where(trivial, ops.ones_like(ratio), ratio)
