"""Normalisation of whole sets."""

from keras import ops

from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.entities import zero_absent
from keras_sets.ops.pooling import set_mean


def set_standardize(x, mask=None, weights=None, epsilon=1e-5):
    """Subtracts the mean of a set and divides by its standard deviation.

    There is one mean and one variance for a set, over its present entities and all
    features together, every entity counted `weights` times. Absent entities get 0.
    """
    dtype = accumulation_dtype(x)
    present, weights = multiplicities(mask, weights, dtype)

    def mean(x):
        return set_mean(ops.mean(x, axis=-1, keepdims=True), present, weights, keepdims=True)

    x = zero_absent(ops.cast(x, dtype), present)
    # The mean of numbers far from 0 is rounded: what is left over is taken off as well. The
    # result does not depend on the first shift, so no gradient needs to pass through it.
    deviation = zero_absent(x - ops.stop_gradient(mean(x)), present)
    deviation = zero_absent(deviation - mean(deviation), present)
    variance = mean(ops.square(deviation))
    return deviation / ops.sqrt(variance + epsilon)
