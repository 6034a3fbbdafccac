"""Keras' own test of a layer, over every public layer.

It builds and calls the layer symbolically and eagerly, trains it in a compiled step, and
compares configurations, shapes, dtypes and numbers of weights. There is no public way to it.
"""

import keras
import pytest
from keras.src.testing import TestCase

from keras_sets import groups
from keras_sets import layers


def _layer(cls, *args, **options):
    return lambda **kwargs: cls(*args, **options, **kwargs)


def _dss(**kwargs):
    return layers.DSS(keras.layers.Dense(4), **kwargs)


def _cell(**kwargs):
    return keras.layers.RNN(layers.SwarmCell(4, **kwargs), return_sequences=True, **kwargs)


def _stream(**kwargs):
    swarm = layers.Swarm(4, iterations=2, pooling="causal", **kwargs)
    return keras.layers.RNN(swarm.streaming_cell(), return_sequences=True, **kwargs)


ATTENTION = {"units": 4, "num_heads": 2, "feed_forward_layers": 1}
SET = (2, 5, 3)
GRAPH = (2, 5, 5, 3)
# The layer, and the shapes of its inputs and of its outputs.
ROWS = {
    "CausalMeanPooling": (layers.CausalMeanPooling, SET, SET),
    "CircularConv1D": (_layer(layers.CircularConv1D, 4, 3), SET, (2, 5, 4)),
    "CircularConv2D": (_layer(layers.CircularConv2D, 4, 3), (2, 5, 4, 3), (2, 5, 4, 4)),
    "CircularConv3D": (_layer(layers.CircularConv3D, 4, 2), (2, 2, 3, 4, 3), (2, 2, 3, 4, 4)),
    "DSS": (_dss, SET, (2, 5, 4)),
    "DSSConv1D": (_layer(layers.DSSConv1D, 4, 3), (2, 3, 5, 3), (2, 3, 3, 4)),
    "DSSConv2D": (
        _layer(layers.DSSConv2D, 4, 2, padding="circular"),
        (2, 3, 4, 5, 3),
        (2, 3, 4, 5, 4),
    ),
    "DSSConv3D": (
        _layer(layers.DSSConv3D, 4, 2, padding="same", pooling="max"),
        (2, 3, 2, 3, 2, 3),
        (2, 3, 2, 3, 2, 4),
    ),
    "DSSDense": (_layer(layers.DSSDense, 4), (2, 3, 5, 3), (2, 3, 5, 4)),
    "GraphEquivariantDense": (_layer(layers.GraphEquivariantDense, 4, 2, 2), GRAPH, (2, 5, 5, 4)),
    "InducedSetAttentionBlock": (
        _layer(layers.InducedSetAttentionBlock, num_inducing_points=3, **ATTENTION),
        SET,
        (2, 5, 4),
    ),
    "GatedAttentionPooling": (_layer(layers.GatedAttentionPooling, 4), SET, (2, 3)),
    "MedianPooling": (layers.MedianPooling, SET, (2, 3)),
    "MinPooling": (layers.MinPooling, SET, (2, 3)),
    "MultiPooling": (_layer(layers.MultiPooling, ["mean", "softmax"]), SET, (2, 6)),
    "PowerMeanPooling": (layers.PowerMeanPooling, SET, (2, 3)),
    "QuantilePooling": (_layer(layers.QuantilePooling, [0.1, 0.9]), SET, (2, 6)),
    "SoftmaxPooling": (layers.SoftmaxPooling, SET, (2, 3)),
    "SortPooling": (_layer(layers.SortPooling, 4), SET, (2, 3)),
    "StandardDeviationPooling": (layers.StandardDeviationPooling, SET, (2, 3)),
    "VariancePooling": (layers.VariancePooling, SET, (2, 3)),
    "LogSumExpPooling": (layers.LogSumExpPooling, SET, (2, 3)),
    "MaxPooling": (layers.MaxPooling, SET, (2, 3)),
    "MeanPooling": (_layer(layers.MeanPooling, keepdims=True), SET, (2, 1, 3)),
    "PermutationEquivariantDense": (
        _layer(layers.PermutationEquivariantDense, 4, pooling=layers.MeanPooling()),
        SET,
        (2, 5, 4),
    ),
    "PrincipalAxes": (layers.PrincipalAxes, SET, SET),
    "SlotRefinement": (
        _layer(layers.SlotRefinement, 4, units=3, iterations=1, em_steps=1, num_starts=2),
        SET,
        (2, 5, 4),
    ),
    "SlotPooling": (
        _layer(layers.SlotPooling, 4, units=3, iterations=1, em_steps=1),
        SET,
        (2, 5, 8),
    ),
    "PermutationGroupDense": (
        _layer(layers.PermutationGroupDense, 4, groups.cyclic(5)),
        SET,
        (2, 5, 4),
    ),
    "PoolingByMultiheadAttention": (
        _layer(layers.PoolingByMultiheadAttention, num_seeds=2, residual="projected", **ATTENTION),
        SET,
        (2, 2, 4),
    ),
    "PoolingMaps": (_layer(layers.PoolingMaps, 1), SET, (2, 5, 1)),
    "SetAttentionBlock": (
        _layer(layers.SetAttentionBlock, dropout=0.5, **ATTENTION),
        SET,
        (2, 5, 4),
    ),
    "SetNormalization": (layers.SetNormalization, SET, SET),
    "SumPooling": (layers.SumPooling, SET, (2, 3)),
    "Swarm": (_layer(layers.Swarm, 4, iterations=2, dropout=0.5), SET, (2, 5, 4)),
    "SwarmCell": (_cell, SET, (2, 5, 4)),
    "SwarmStreamingCell": (_stream, SET, (2, 5, 4)),
}


def test_every_layer_is_here():
    assert set(ROWS) | {"Pooling", "SetLayer", "get_pooling"} == set(layers.__all__)


@pytest.mark.parametrize("name", ROWS)
def test_layer(name):
    make, input_shape, output_shape = ROWS[name]
    masks = issubclass(getattr(layers, name), layers.SetLayer)
    TestCase().run_layer_test(
        make,
        init_kwargs={},
        input_shape=input_shape,
        expected_output_shape=output_shape,
        supports_masking=True if masks else None,
    )
