"""Poolings: what a set has in common, as one vector."""

from keras_sets.layers.chunked_pooling_scope import ChunkedPoolingScope
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.pooling.causal_mean_pooling import CausalMeanPooling
from keras_sets.layers.pooling.logsumexp_pooling import LogSumExpPooling
from keras_sets.layers.pooling.max_pooling import MaxPooling
from keras_sets.layers.pooling.mean_pooling import MeanPooling
from keras_sets.layers.pooling.names import get_pooling
from keras_sets.layers.pooling.names import serialize_pooling
from keras_sets.layers.pooling.pooling_maps import PoolingMaps
from keras_sets.layers.pooling.slot_pooling import SlotPooling
from keras_sets.layers.pooling.sum_pooling import SumPooling

__all__ = [
    "CausalMeanPooling",
    "ChunkedPoolingScope",
    "LogSumExpPooling",
    "MaxPooling",
    "MeanPooling",
    "Pooling",
    "PoolingMaps",
    "SlotPooling",
    "SumPooling",
    "get_pooling",
    "serialize_pooling",
]
