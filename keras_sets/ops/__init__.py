"""Pure functions that own the arithmetic over sets.

Every masked, weighted or causal reduction of the package is written here, once;
layers, losses and models call these functions and hold no reductions of their own.
"""

from keras_sets.ops.attention import set_attention
from keras_sets.ops.graph import edges_from_nodes
from keras_sets.ops.graph import node_shares
from keras_sets.ops.graph import reduce_edges
from keras_sets.ops.graph import zero_absent_edges
from keras_sets.ops.groups import orbit_linear
from keras_sets.ops.groups import orbit_sums
from keras_sets.ops.linear import linear
from keras_sets.ops.linear import lstm_update
from keras_sets.ops.loops import static_loop
from keras_sets.ops.matching import class_overlap
from keras_sets.ops.matching import linear_sum_assignment
from keras_sets.ops.normalization import set_standardize
from keras_sets.ops.pooling import accumulation_dtype
from keras_sets.ops.pooling import expand_over_entities
from keras_sets.ops.pooling import flatten_entities
from keras_sets.ops.pooling import multiplicities
from keras_sets.ops.pooling import set_causal_mean
from keras_sets.ops.pooling import set_logsumexp
from keras_sets.ops.pooling import set_max
from keras_sets.ops.pooling import set_mean
from keras_sets.ops.pooling import set_pooling_maps
from keras_sets.ops.pooling import set_sum
from keras_sets.ops.pooling import zero_absent

__all__ = [
    "accumulation_dtype",
    "class_overlap",
    "edges_from_nodes",
    "expand_over_entities",
    "flatten_entities",
    "linear",
    "linear_sum_assignment",
    "lstm_update",
    "multiplicities",
    "node_shares",
    "orbit_linear",
    "orbit_sums",
    "reduce_edges",
    "set_attention",
    "set_causal_mean",
    "set_logsumexp",
    "set_max",
    "set_mean",
    "set_pooling_maps",
    "set_standardize",
    "set_sum",
    "static_loop",
    "zero_absent",
    "zero_absent_edges",
]
