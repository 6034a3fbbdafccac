"""Poolings by name."""

from typing import Any

import keras

from keras_sets._typing import Config
from keras_sets._typing import DType
from keras_sets._typing import PoolingLike
from keras_sets.layers.part_options import same_policy
from keras_sets.layers.part_options import serialize_part
from keras_sets.layers.pooling.causal_mean_pooling import CausalMeanPooling
from keras_sets.layers.pooling.gated_attention_pooling import GatedAttentionPooling
from keras_sets.layers.pooling.logsumexp_pooling import LogSumExpPooling
from keras_sets.layers.pooling.max_pooling import MaxPooling
from keras_sets.layers.pooling.mean_pooling import MeanPooling
from keras_sets.layers.pooling.median_pooling import MedianPooling
from keras_sets.layers.pooling.min_pooling import MinPooling
from keras_sets.layers.pooling.multi_pooling import MultiPooling
from keras_sets.layers.pooling.pooling_maps import PoolingMaps
from keras_sets.layers.pooling.power_mean_pooling import PowerMeanPooling
from keras_sets.layers.pooling.quantile_pooling import QuantilePooling
from keras_sets.layers.pooling.slot_pooling import SlotPooling
from keras_sets.layers.pooling.softmax_pooling import SoftmaxPooling
from keras_sets.layers.pooling.sort_pooling import SortPooling
from keras_sets.layers.pooling.standard_deviation_pooling import StandardDeviationPooling
from keras_sets.layers.pooling.sum_pooling import SumPooling
from keras_sets.layers.pooling.variance_pooling import VariancePooling

POOLINGS = {
    "mean": MeanPooling,
    "sum": SumPooling,
    "max": MaxPooling,
    "logsumexp": LogSumExpPooling,
    "causal_mean": CausalMeanPooling,
    "causal": CausalMeanPooling,
    "pooling_maps": PoolingMaps,
    "slots": SlotPooling,
    "gated_attention": GatedAttentionPooling,
    "median": MedianPooling,
    "min": MinPooling,
    "multi": MultiPooling,
    "power_mean": PowerMeanPooling,
    "quantile": QuantilePooling,
    "softmax": SoftmaxPooling,
    "sort": SortPooling,
    "standard_deviation": StandardDeviationPooling,
    "std": StandardDeviationPooling,
    "variance": VariancePooling,
}


def get_pooling(identifier: PoolingLike, **kwargs: Any) -> Any:
    """Resolves a name, a configuration, a layer or a callable to a pooling.

    Args:
        identifier: A name such as `"mean"`, a serialised layer, a layer, or any callable
            `pooling(inputs, mask=None, weights=None)`.
        **kwargs: Arguments for a pooling that is made from its name.

    Example:

    >>> import keras_sets
    >>> keras_sets.layers.get_pooling("max", keepdims=True).keepdims
    True
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in POOLINGS:
        return POOLINGS[identifier](**kwargs)
    if callable(identifier) and not isinstance(identifier, type):
        return identifier
    names = ", ".join(repr(name) for name in POOLINGS)
    raise ValueError(
        f"Received an invalid value for `pooling`, expected one of {names}, or a layer or "
        f"callable `pooling(inputs, mask=None, weights=None)`. Received: pooling={identifier!r}"
    )


def serialize_pooling(pooling: Any, dtype: DType = None) -> str | Config:
    """Inverse of `get_pooling`: the name of a plain pooling, else its configuration.

    `dtype` is the dtype policy that a pooling made from its name will get, None for any.
    """
    same_dtype = dtype is None or same_policy(getattr(pooling, "dtype_policy", None), dtype)
    for name, cls in POOLINGS.items():
        if type(pooling) is cls and same_dtype and _options(pooling) == _options(cls(name=name)):
            return name
    return serialize_part(pooling)


def _options(pooling):
    """The configuration of a pooling but for what every layer has."""
    common = ("name", "trainable", "dtype")
    return {key: value for key, value in pooling.get_config().items() if key not in common}
