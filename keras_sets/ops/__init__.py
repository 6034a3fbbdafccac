"""Pure functions that own the arithmetic over sets.

Every masked, weighted or causal reduction of the package is written here, once;
layers, losses and models call these functions and hold no reductions of their own.
"""

from keras_sets.ops.attention import set_attention
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import apply_mask
from keras_sets.ops.entities import counts_of
from keras_sets.ops.entities import expand_over_entities
from keras_sets.ops.entities import fit_mask
from keras_sets.ops.entities import flatten_entities
from keras_sets.ops.entities import flatten_set
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.graph import apply_edge_mask
from keras_sets.ops.graph import edges_from_nodes
from keras_sets.ops.graph import node_shares
from keras_sets.ops.graph import nodes_of_edges
from keras_sets.ops.graph import reduce_edges
from keras_sets.ops.groups import orbit_linear
from keras_sets.ops.groups import orbit_sums
from keras_sets.ops.linear import add_in_place
from keras_sets.ops.linear import linear
from keras_sets.ops.linear import lstm_update
from keras_sets.ops.loops import iterate
from keras_sets.ops.loops import remat_gates
from keras_sets.ops.loops import static_loop
from keras_sets.ops.matching import class_members
from keras_sets.ops.matching import class_overlap
from keras_sets.ops.matching import linear_sum_assignment
from keras_sets.ops.normalization import principal_axes
from keras_sets.ops.normalization import set_standardize
from keras_sets.ops.pooling import causal_mean_state
from keras_sets.ops.pooling import finish_causal_mean
from keras_sets.ops.pooling import finish_logsumexp
from keras_sets.ops.pooling import finish_max
from keras_sets.ops.pooling import finish_mean
from keras_sets.ops.pooling import finish_pooling_maps
from keras_sets.ops.pooling import finish_sum
from keras_sets.ops.pooling import logsumexp_state
from keras_sets.ops.pooling import max_state
from keras_sets.ops.pooling import mean_state
from keras_sets.ops.pooling import merge_logsumexps
from keras_sets.ops.pooling import merge_maxima
from keras_sets.ops.pooling import merge_means
from keras_sets.ops.pooling import merge_pooling_maps
from keras_sets.ops.pooling import merge_sums
from keras_sets.ops.pooling import mix_by_gates
from keras_sets.ops.pooling import pooling_maps_state
from keras_sets.ops.pooling import scan_causal_mean
from keras_sets.ops.pooling import set_causal_mean
from keras_sets.ops.pooling import set_logsumexp
from keras_sets.ops.pooling import set_max
from keras_sets.ops.pooling import set_mean
from keras_sets.ops.pooling import set_pooling_maps
from keras_sets.ops.pooling import set_sum
from keras_sets.ops.pooling import sum_state

__all__ = [
    "accumulation_dtype",
    "add_in_place",
    "apply_edge_mask",
    "apply_mask",
    "causal_mean_state",
    "class_members",
    "class_overlap",
    "counts_of",
    "edges_from_nodes",
    "expand_over_entities",
    "finish_causal_mean",
    "finish_logsumexp",
    "finish_max",
    "finish_mean",
    "finish_pooling_maps",
    "finish_sum",
    "fit_mask",
    "flatten_entities",
    "flatten_set",
    "iterate",
    "linear",
    "linear_sum_assignment",
    "logsumexp_state",
    "lstm_update",
    "max_state",
    "mean_state",
    "merge_logsumexps",
    "merge_maxima",
    "merge_means",
    "merge_pooling_maps",
    "merge_sums",
    "mix_by_gates",
    "multiplicities",
    "node_shares",
    "nodes_of_edges",
    "orbit_linear",
    "orbit_sums",
    "pooling_maps_state",
    "principal_axes",
    "reduce_edges",
    "remat_gates",
    "safe_ratio",
    "scan_causal_mean",
    "set_attention",
    "set_causal_mean",
    "set_logsumexp",
    "set_max",
    "set_mean",
    "set_pooling_maps",
    "set_standardize",
    "set_sum",
    "static_loop",
    "sum_state",
]
