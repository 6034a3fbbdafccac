"""Pure functions that own the arithmetic over sets.

Every masked, weighted or causal reduction of the package is written here, once;
layers, losses and models call these functions and hold no reductions of their own.
"""

from keras_sets.ops.attention import set_attention
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.matching import linear_sum_assignment
from keras_sets.ops.normalization import principal_axes
from keras_sets.ops.normalization import set_standardize
from keras_sets.ops.pooling import set_causal_mean
from keras_sets.ops.pooling import set_logsumexp
from keras_sets.ops.pooling import set_max
from keras_sets.ops.pooling import set_mean
from keras_sets.ops.pooling import set_pooling_maps
from keras_sets.ops.pooling import set_sum

__all__ = [
    "accumulation_dtype",
    "apply_mask",
    "linear_sum_assignment",
    "multiplicities",
    "principal_axes",
    "set_attention",
    "set_causal_mean",
    "set_logsumexp",
    "set_max",
    "set_mean",
    "set_pooling_maps",
    "set_standardize",
    "set_sum",
]
