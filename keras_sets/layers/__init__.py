"""Keras layers on sets."""

from keras_sets.layers.base import SetLayer
from keras_sets.layers.circular_conv import CircularConv1D
from keras_sets.layers.circular_conv import CircularConv2D
from keras_sets.layers.circular_conv import CircularConv3D
from keras_sets.layers.dss import DSS
from keras_sets.layers.dss_layers import DSSConv1D
from keras_sets.layers.dss_layers import DSSConv2D
from keras_sets.layers.dss_layers import DSSConv3D
from keras_sets.layers.dss_layers import DSSDense
from keras_sets.layers.graph_equivariant_dense import GraphEquivariantDense
from keras_sets.layers.permutation_equivariant_dense import PermutationEquivariantDense
from keras_sets.layers.permutation_group_dense import PermutationGroupDense
from keras_sets.layers.pooling import CausalMeanPooling
from keras_sets.layers.pooling import GatedAttentionPooling
from keras_sets.layers.pooling import LogSumExpPooling
from keras_sets.layers.pooling import MaxPooling
from keras_sets.layers.pooling import MeanPooling
from keras_sets.layers.pooling import MedianPooling
from keras_sets.layers.pooling import MinPooling
from keras_sets.layers.pooling import MultiPooling
from keras_sets.layers.pooling import Pooling
from keras_sets.layers.pooling import PoolingMaps
from keras_sets.layers.pooling import PowerMeanPooling
from keras_sets.layers.pooling import QuantilePooling
from keras_sets.layers.pooling import SlotPooling
from keras_sets.layers.pooling import SoftmaxPooling
from keras_sets.layers.pooling import SortPooling
from keras_sets.layers.pooling import StandardDeviationPooling
from keras_sets.layers.pooling import SumPooling
from keras_sets.layers.pooling import VariancePooling
from keras_sets.layers.pooling import get_pooling
from keras_sets.layers.pooling_by_multihead_attention import PoolingByMultiheadAttention
from keras_sets.layers.principal_axes import PrincipalAxes
from keras_sets.layers.set_attention import InducedSetAttentionBlock
from keras_sets.layers.set_attention import SetAttentionBlock
from keras_sets.layers.set_normalization import SetNormalization
from keras_sets.layers.slot_refinement import SlotRefinement
from keras_sets.layers.streaming import SwarmStreamingCell
from keras_sets.layers.swarm import Swarm
from keras_sets.layers.swarm_cell import SwarmCell

__all__ = [
    "CausalMeanPooling",
    "CircularConv1D",
    "CircularConv2D",
    "CircularConv3D",
    "DSS",
    "DSSConv1D",
    "DSSConv2D",
    "DSSConv3D",
    "DSSDense",
    "GatedAttentionPooling",
    "GraphEquivariantDense",
    "InducedSetAttentionBlock",
    "LogSumExpPooling",
    "MaxPooling",
    "MeanPooling",
    "MedianPooling",
    "MinPooling",
    "MultiPooling",
    "PermutationEquivariantDense",
    "PermutationGroupDense",
    "Pooling",
    "PoolingByMultiheadAttention",
    "PoolingMaps",
    "PowerMeanPooling",
    "PrincipalAxes",
    "QuantilePooling",
    "SetAttentionBlock",
    "SetLayer",
    "SetNormalization",
    "SlotPooling",
    "SlotRefinement",
    "SoftmaxPooling",
    "SortPooling",
    "StandardDeviationPooling",
    "SumPooling",
    "Swarm",
    "SwarmCell",
    "SwarmStreamingCell",
    "VariancePooling",
    "get_pooling",
]
