"""Normalisation of whole sets."""

from keras import ops

from keras_sets.ops.pooling import accumulation_dtype
from keras_sets.ops.pooling import multiplicities
from keras_sets.ops.pooling import set_mean
from keras_sets.ops.pooling import zero_absent


def set_standardize(x, mask=None, weights=None, epsilon=1e-5):
    """Subtracts the mean of a set and divides by its standard deviation.

    There is one mean and one variance for a set, over its present entities and all
    features together, every entity counted `weights` times. Absent entities get 0. The
    variance is that of the deviations from the mean, which large offsets do not spoil.
    """
    dtype = accumulation_dtype(x)
    present, weights = multiplicities(mask, weights, dtype)
    x = zero_absent(ops.cast(x, dtype), present)
    mean = set_mean(ops.mean(x, axis=-1, keepdims=True), present, weights, keepdims=True)
    deviation = zero_absent(x - mean, present)
    square = ops.mean(ops.square(deviation), axis=-1, keepdims=True)
    variance = set_mean(square, present, weights, keepdims=True)
    return deviation / ops.sqrt(variance + epsilon)
