"""Metrics of predicted cluster labels, which have no order, and of images."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import DType
from keras_sets._typing import Tensor
from keras_sets.labels import LabelledSets
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import matching as matching_ops

__all__ = [
    "AdjustedRandIndex",
    "BitsPerDimension",
    "MatchedAccuracy",
    "MatchedF1",
    "NormalizedMutualInformation",
]


class _ClusteringMetric(keras.metrics.Mean):
    """Mean over sets of a score of the predicted against the true labels.

    A subclass implements `score(table, counts)` with the contingency table
    `(batch, classes, classes)`: how many entities of true class k were given label j.
    """

    weighs_entities = True

    def __init__(
        self, ignore_class: int | None = -1, name: str | None = None, dtype: DType = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = ignore_class
        self._sets = LabelledSets(type(self).__name__, ignore_class)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Any:
        """Accumulates a batch.

        Args:
            y_true: Integer `(batch, n)`, labels or `ignore_class`.
            y_pred: Scores `(batch, n, classes)`; the largest is the prediction. Of scores of
                several steps, `(batch, steps, n, classes)`, the last ones count.
            sample_weight: Optional `(batch,)`, how much each set counts, or `(batch, n)`, how
                much each entity counts within its set, for `AdjustedRandIndex` 0 or 1: others
                are an error, or NaN inside compiled steps. Sets without a real entity never
                count.
        """
        shape = () if sample_weight is None else validation.shape_of(sample_weight)
        if len(shape) == 2 and not self.weighs_entities:
            sample_weight = self._mask_of_entities(sample_weight)
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

    def _mask_of_entities(self, sample_weight):
        """Weights of entities for a score that counts pairs, of which weights say nothing."""
        seen = validation.visible_array(sample_weight)
        if seen is not None and not np.isin(seen, (0, 1)).all():
            raise ValueError(
                f"{type(self).__name__} counts pairs of entities and expects `sample_weight` of "
                "shape `(batch,)`, one weight for each set, or of zeros and ones `(batch, n)`, as "
                "entities are marked by `ignore_class`. Received: "
                f"sample_weight.shape={seen.shape} with other numbers"
            )
        _, weights = entity_ops.multiplicities(mask=ops.cast(sample_weight, "float32"))
        return weights

    def score(self, table: Tensor, counts: Tensor) -> Tensor:
        raise NotImplementedError

    def get_config(self) -> Config:
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

    def __init__(
        self, ignore_class: int | None = -1, name: str = "matched_accuracy", dtype: DType = None
    ) -> None:
        super().__init__(ignore_class=ignore_class, name=name, dtype=dtype)

    def score(self, table: Tensor, counts: Tensor) -> Tensor:
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

    def __init__(
        self, ignore_class: int | None = -1, name: str = "adjusted_rand_index", dtype: DType = None
    ) -> None:
        super().__init__(ignore_class=ignore_class, name=name, dtype=dtype)

    def score(self, table: Tensor, counts: Tensor) -> Tensor:
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


@keras.saving.register_keras_serializable(package="keras_sets")
class NormalizedMutualInformation(_ClusteringMetric):
    """Information that predicted and true labels share, over the mean of what each holds.

    1 for equal partitions, 0 for independent ones; not adjusted for chance. Where both
    partitions are one class it is 1, as in scikit-learn.

    Args:
        ignore_class: Label of entities that do not count (padding), None for no such label. A
            mask that Keras carries along counts as well, but in `fit` under JAX metrics do not
            receive it: mark padding by this label there.
        name, dtype: As in `keras.metrics.Mean`.

    Example:

    >>> import numpy as np, keras_sets
    >>> metric = keras_sets.metrics.NormalizedMutualInformation()
    >>> metric.update_state(np.array([[2, 2, 0, 0]]), np.eye(3)[[[0, 0, 1, 1]]])
    >>> round(float(metric.result()), 6)
    1.0

    Reference:
        [Vinh et al., 2010](https://jmlr.org/papers/v11/vinh10a.html), table 2, NMI_sum.
    """

    def __init__(
        self,
        ignore_class: int | None = -1,
        name: str = "normalized_mutual_information",
        dtype: DType = None,
    ) -> None:
        super().__init__(ignore_class=ignore_class, name=name, dtype=dtype)

    def score(self, table: Tensor, counts: Tensor) -> Tensor:
        shares = entity_ops.safe_ratio(table, counts[:, None, None] + ops.zeros_like(table))

        def entropy(shares):
            axes = tuple(range(1, len(shares.shape)))
            safe = ops.where(shares > 0, shares, ops.ones_like(shares))
            return -ops.sum(shares * ops.log(safe), axis=axes)

        held = entropy(ops.sum(shares, axis=2)) + entropy(ops.sum(shares, axis=1))
        shared = held - entropy(shares)
        # One class on both sides holds nothing; rounding may leave less than nothing.
        trivial = held <= 0
        ratio = 2 * shared / ops.where(trivial, ops.ones_like(held), held)
        ratio = ops.where(ratio < 0, ops.zeros_like(ratio), ratio)
        return ops.where(trivial, ops.ones_like(ratio), ratio)


@keras.saving.register_keras_serializable(package="keras_sets")
class MatchedF1(_ClusteringMetric):
    """Mean F1 of the classes under the best matching of predicted to true labels.

    Each true class has one predicted label as its partner, so that the sum of

    ```
    F1 = 2 (entities in both) / (entities of the class + entities with the label)
    ```

    is largest. It is divided by the number of classes or of labels that occur, whichever is
    larger: classes and labels without a partner count 0. Small classes count as much as
    large ones, other than in `MatchedAccuracy`.

    Args:
        ignore_class: Label of entities that do not count (padding), None for no such label. A
            mask that Keras carries along counts as well, but in `fit` under JAX metrics do not
            receive it: mark padding by this label there.
        name, dtype: As in `keras.metrics.Mean`.

    Example:

    >>> import numpy as np, keras_sets
    >>> metric = keras_sets.metrics.MatchedF1()
    >>> metric.update_state(np.array([[2, 2, 0, -1]]), np.eye(3)[[[0, 0, 1, 1]]])
    >>> float(metric.result())
    1.0
    """

    def __init__(
        self, ignore_class: int | None = -1, name: str = "matched_f1", dtype: DType = None
    ) -> None:
        super().__init__(ignore_class=ignore_class, name=name, dtype=dtype)

    def score(self, table: Tensor, counts: Tensor) -> Tensor:
        true, predicted = ops.sum(table, axis=2), ops.sum(table, axis=1)
        total = ops.expand_dims(true, 2) + ops.expand_dims(predicted, 1)
        f1 = entity_ops.safe_ratio(2 * table, total)
        matching = set_ops.linear_sum_assignment(-f1)
        matched = ops.take_along_axis(f1, ops.expand_dims(matching, -1), axis=-1)
        classes, labels = (
            ops.sum(ops.cast(sizes > 0, f1.dtype), axis=1) for sizes in (true, predicted)
        )
        return entity_ops.safe_ratio(
            ops.sum(matched, axis=(1, 2)), ops.where(classes > labels, classes, labels)
        )


@keras.saving.register_keras_serializable(package="keras_sets")
class BitsPerDimension(keras.metrics.SparseCategoricalCrossentropy):
    """Cross entropy of the values of images, in bits a value: the code length.

    `keras.metrics.SparseCategoricalCrossentropy` over log 2, the measure in which likelihoods of
    images are published. A network that knows nothing of 256 values has 8.

    Call arguments:
        y_true: Integer values `(..., height, width, channels)` of 0 to `num_levels - 1`.
        y_pred: `(..., height, width, channels, num_levels)`.
        sample_weight: Optional, how much each image or each value counts.

    Args:
        from_logits: Whether `y_pred` are logits, as `models.swarm_image_transformer` returns
            them; if False, they are probabilities.
        name, dtype: As in `keras.metrics.SparseCategoricalCrossentropy`.

    Example:

    >>> import numpy as np, keras_sets
    >>> metric = keras_sets.metrics.BitsPerDimension()
    >>> metric.update_state(np.zeros((2, 8, 8, 1), "int32"), np.zeros((2, 8, 8, 1, 256)))
    >>> round(float(metric.result()), 4)
    8.0

    Reference:
        [Theis et al., 2016, A note on the evaluation of generative
        models](https://arxiv.org/abs/1511.01844), section 3.1.
    """

    def __init__(
        self,
        from_logits: bool = True,
        name: str = "bits_per_dimension",
        dtype: DType = None,
    ) -> None:
        from_logits = validation.boolean("from_logits", from_logits)
        super().__init__(name=name, dtype=dtype, from_logits=from_logits)

    def result(self) -> Tensor:
        return super().result() / math.log(2)

    def get_config(self) -> Config:
        return {"name": self.name, "dtype": self.dtype, "from_logits": self.from_logits}
