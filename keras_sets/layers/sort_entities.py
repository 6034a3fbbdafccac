"""Entities in another order, for networks that read a set as a sequence."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sets")
class SortEntities(keras.layers.Layer):
    """Entities in the order of their first feature, and the way back.

    Returns `(sorted entities, sorted mask, ranks)`; `TakeEntities()(y, ranks)` restores the
    order. Masked entities come last.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask=None):
        return None, None, None  # the sorted mask is an output

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, mask):
        keys = ops.where(mask, inputs[..., 0], float("inf"))
        order = ops.argsort(keys, axis=1)
        ranks = ops.cast(ops.argsort(order, axis=1), "int32")
        return take_entities(inputs, order), ops.take_along_axis(mask, order, axis=1), ranks

    def compute_output_spec(self, inputs, mask):
        places = inputs.shape[:-1]
        return (
            keras.KerasTensor(inputs.shape, self.compute_dtype),
            keras.KerasTensor(places, "bool"),
            keras.KerasTensor(places, "int32"),
        )


@keras.saving.register_keras_serializable(package="keras_sets")
class TakeEntities(keras.layers.Layer):
    """Entity `indices[b, i]` of set b at place i."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def build(self, inputs_shape):
        self.built = True

    def call(self, inputs, indices):
        return take_entities(inputs, indices)

    def compute_output_shape(self, inputs_shape):
        return inputs_shape


def take_entities(x, indices):
    return ops.take_along_axis(x, ops.expand_dims(ops.cast(indices, "int32"), -1), axis=1)
