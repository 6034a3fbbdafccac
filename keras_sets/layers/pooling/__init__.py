"""Poolings: what a set has in common, as one vector."""

from keras_sets.layers.chunked_pooling_scope import ChunkedPoolingScope
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.pooling.causal_mean_pooling import CausalMeanPooling
from keras_sets.layers.pooling.gated_attention_pooling import GatedAttentionPooling
from keras_sets.layers.pooling.logsumexp_pooling import LogSumExpPooling
from keras_sets.layers.pooling.max_pooling import MaxPooling
from keras_sets.layers.pooling.mean_pooling import MeanPooling
from keras_sets.layers.pooling.median_pooling import MedianPooling
from keras_sets.layers.pooling.min_pooling import MinPooling
from keras_sets.layers.pooling.multi_pooling import MultiPooling
from keras_sets.layers.pooling.names import get_pooling
from keras_sets.layers.pooling.names import serialize_pooling
from keras_sets.layers.pooling.pooling_maps import PoolingMaps
from keras_sets.layers.pooling.power_mean_pooling import PowerMeanPooling
from keras_sets.layers.pooling.quantile_pooling import QuantilePooling
from keras_sets.layers.pooling.slot_pooling import SlotPooling
from keras_sets.layers.pooling.softmax_pooling import SoftmaxPooling
from keras_sets.layers.pooling.sort_pooling import SortPooling
from keras_sets.layers.pooling.standard_deviation_pooling import StandardDeviationPooling
from keras_sets.layers.pooling.sum_pooling import SumPooling
from keras_sets.layers.pooling.variance_pooling import VariancePooling

__all__ = [
    "CausalMeanPooling",
    "ChunkedPoolingScope",
    "GatedAttentionPooling",
    "LogSumExpPooling",
    "MaxPooling",
    "MeanPooling",
    "MedianPooling",
    "MinPooling",
    "MultiPooling",
    "Pooling",
    "PoolingMaps",
    "PowerMeanPooling",
    "QuantilePooling",
    "SlotPooling",
    "SoftmaxPooling",
    "SortPooling",
    "StandardDeviationPooling",
    "SumPooling",
    "VariancePooling",
    "get_pooling",
    "serialize_pooling",
]
