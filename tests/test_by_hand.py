"""One small example with numbers for every public layer, to be followed with pencil and paper."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import groups
from keras_sets import layers

THREE = [[[1], [2], [6]]]  # one set of three entities with one feature: sum 9, mean 3
SIGNALS = [[[1, 2, 3], [0, 0, 1]]]  # one set of two signals: sum 1, 2, 4
CIRCLE = [[1, 2, 4]]
LOG_3 = math.log(3)
# Gates that are not squashed, so that a cell multiplies: i and o are x, f is 0, g is x + pooled.
LINEAR = {
    "hidden_units": 1,
    "iterations": 2,
    "activation": "linear",
    "recurrent_activation": "linear",
}
SWARM = {
    "cell/kernel": [1, 0, 1, 1],
    "cell/pooled_kernel": [0, 0, 1, 0],
    "projection/kernel": [1, 10],
    "projection/bias": 1,
}
PLAIN = {"normalization": None, "feed_forward_layers": 1}


def attending(block):
    """Scores are the keys, 0 and log 3 for entities 0 and 1, so that their shares are 1 : 3.

    Values are 4 x, so that the attention of entities 0 and 1 is (0 + 3 * 4) / 4 = 3.
    """
    return {
        f"{block}/attention/query/bias": 1,
        f"{block}/attention/key/kernel": LOG_3,
        f"{block}/attention/value/kernel": 4,
        f"{block}/attention/attention_output/kernel": 1,
    }


def stream(swarm):
    swarm.build((None, None, 1))
    return keras.layers.RNN(swarm.streaming_cell(), return_sequences=True)


def swarm(**options):
    return layers.Swarm(1, **LINEAR, **options)


# Name: the layer, its inputs, its outputs, its weights that are not 0, and what else it is given.
ROWS = {
    # (1 + 2) / 2 without the masked third, (1 + 2 * 2) / (1 + 2) with weights.
    "MeanPooling": [
        (layers.MeanPooling, THREE, 3),
        (layers.MeanPooling, THREE, 1.5, {}, {"mask": [[True, True, False]]}),
        (layers.MeanPooling, THREE, 5 / 3, {}, {"weights": [[1, 2, 0]]}),
    ],
    "SumPooling": [
        (layers.SumPooling, THREE, 9),
        (layers.SumPooling, THREE, 8, {}, {"weights": [[2, 0, 1]]}),
    ],
    "MaxPooling": [
        (layers.MaxPooling, THREE, 6),
        (layers.MaxPooling, THREE, 2, {}, {"mask": [[True, True, False]]}),
    ],
    # 1 + 2 + 6 = 9; with weights 3 * 1 + 2 = 5.
    "LogSumExpPooling": [
        (layers.LogSumExpPooling, np.log(THREE), math.log(9)),
        (layers.LogSumExpPooling, np.log(THREE), math.log(5), {}, {"weights": [[3, 1, 0]]}),
    ],
    "MinPooling": [
        (layers.MinPooling, THREE, 1),
        (layers.MinPooling, THREE, 2, {}, {"weights": [[0, 2, 1]]}),
    ],
    # (4 + 1 + 9) / 3; the mean of 1, 1 and 6 is 8 / 3, and the mean of their squares 38 / 3.
    "VariancePooling": [
        (layers.VariancePooling, THREE, 14 / 3),
        (layers.VariancePooling, THREE, 38 / 3 - 64 / 9, {}, {"weights": [[2, 0, 1]]}),
    ],
    "StandardDeviationPooling": [(layers.StandardDeviationPooling, THREE, math.sqrt(14 / 3))],
    # Shares 1 : 3 of 0 and log 3; with the temperature -1 shares 3 : 1.
    "SoftmaxPooling": [
        (layers.SoftmaxPooling, [[[0], [LOG_3]]], 0.75 * LOG_3, {"temperature": 1}),
        (layers.SoftmaxPooling, [[[0], [LOG_3]]], 0.25 * LOG_3, {"temperature": -1}),
    ],
    # The root of (1 + 4 + 36) / 3; the harmonic mean 3 / (1 + 1 / 2 + 1 / 6).
    "PowerMeanPooling": [
        (layers.PowerMeanPooling, THREE, math.sqrt(41 / 3), {"exponent": 2}),
        (layers.PowerMeanPooling, THREE, 1.8, {"exponent": -1}),
    ],
    # A third of the weight is reached by 1 exactly, so that it is the mean of 1 and 2.
    "QuantilePooling": [
        (lambda: layers.QuantilePooling([0, 0.3, 1 / 3, 0.9]), THREE, [1, 1, 1.5, 6]),
    ],
    "MedianPooling": [
        (layers.MedianPooling, THREE, 2),
        (layers.MedianPooling, THREE, 4, {}, {"weights": [[1, 1, 2]]}),
    ],
    # f(u) = u: integrals 1/18, 3/18 and 5/18 over the thirds.
    "SortPooling": [
        (lambda: layers.SortPooling(1), THREE, (1 + 6 + 30) / 18, {"kernel": [[0], [1]]}),
    ],
    # Scores are tanh(x) sigmoid(0) = tanh(x) / 2 times 2 log 3 / tanh 1: 0 and log 3.
    "GatedAttentionPooling": [
        (
            lambda: layers.GatedAttentionPooling(1),
            [[[0], [1]]],
            0.75,
            {"value/kernel": 1, "score/kernel": 2 * LOG_3 / math.tanh(1)},
        ),
    ],
    # Mean 3 and maximum 6, then twice that for log(3 + 1) / log 2.
    "MultiPooling": [
        (
            lambda: layers.MultiPooling(
                ["mean", "max"], ["identity", "amplification"], mean_log_size=math.log(2)
            ),
            THREE,
            [3, 6, 6, 12],
        ),
    ],
    "CausalMeanPooling": [(layers.CausalMeanPooling, THREE, [1, 1.5, 3])],
    # Values 1 and 5, shares 1 : 3, so that the map is (1 + 3 * 5) / 4 = 4; gates 2 and 10.
    "PoolingMaps": [
        (lambda: layers.PoolingMaps(1), [[[1, 0, 2], [5, LOG_3, 10]]], [8, 40]),
    ],
    # 2 x + 10 * 3 + 1
    "PermutationEquivariantDense": [
        (
            lambda: layers.PermutationEquivariantDense(1),
            THREE,
            [33, 35, 43],
            {"kernel": 2, "pooled_kernel": 10, "bias": 1},
        ),
    ],
    # Mean 3 and variance 9 of 0 and 6: (x - 3) / sqrt(9 + 16), times 10, plus 1.
    "SetNormalization": [
        (
            lambda: layers.SetNormalization(epsilon=16),
            [[[0], [6]]],
            [-5, 7],
            {"gamma": 10, "beta": 1},
        ),
    ],
    # All variance is in the second coordinate: mean 1, deviations -1, -1, 2, third moment above
    # 0, variances 2 and 0, whose mean is 1. The mirror image has the same coordinates.
    "PrincipalAxes": [
        (layers.PrincipalAxes, [[[7, 0], [7, 0], [7, 3]]], [-1, 0, -1, 0, 2, 0]),
        (layers.PrincipalAxes, [[[7, 0], [7, 0], [7, -3]]], [-1, 0, -1, 0, 2, 0]),
    ],
    # x = 2 through an RNN, h = c = 0 before: i = 2, f = 4, g = 6, o = 8; c = 12, h = 96.
    # Then h and c count: o = 8 + 96; c = 4 * 12 + 2 * 6 = 60, h = 104 * 60.
    "SwarmCell": [
        (
            lambda: keras.layers.RNN(
                layers.SwarmCell(1, activation="linear", recurrent_activation="linear"),
                return_sequences=True,
            ),
            [[[2], [2]]],
            [96, 6240],
            {"kernel": [1, 2, 3, 4], "recurrent_kernel": [0, 0, 0, 1]},
        ),
    ],
    # Entities 1 and 3. First c = x * x is 1 and 9, h = x * c is 1 and 27: their mean is 14. Then
    # g = x + 14 is 15 and 17, c = x * g is 15 and 51, h = x * c is 15 and 153; h + 10 c + 1.
    "Swarm": [(swarm, [[[1], [3]]], [166, 664], SWARM)],
    # As above, but the mean of entity 1 is its own h, so that c = h = 1 + 1.
    "SwarmStreamingCell": [
        (lambda: stream(swarm(pooling="causal")), [[[1], [3]]], [23, 664], SWARM),
    ],
    # The first slot starts with -3 and -1, the second with 1 and 3: half of all, means -2 and 2,
    # variances (2 + 1) / (2 + 1) with the prior. Logits differ by ((x + 2)^2 - (x - 2)^2) / 2
    # = 4 x, and the temperature doubles that.
    "SlotRefinement": [
        (
            lambda: keras.Sequential(
                [
                    layers.SlotRefinement(2, units=1, iterations=1, em_steps=0),
                    keras.layers.Dense(1, use_bias=False, name="difference"),
                ]
            ),
            [[[-3], [-1], [1], [3]]],
            [-24, -8, 8, 24],
            {
                "initial_scores": [[0, -50, 0], [0, 50, 0]],
                "readout/bias": [math.log(2), 0, 0, 0],
                "difference/kernel": [-1, 1],
            },
        ),
    ],
    # Three entities at one place and one at another: each place is a slot, and log p of the other
    # one is far below -12.
    "SlotPooling": [
        (
            lambda: layers.SlotPooling(2, coordinates=1, units=1, iterations=1, em_steps=0),
            [[[-1], [-1], [-1], [3]]],
            [*(3 * [1, 0, 1, -1]), 0, 1, -1, 1],
            {"projection/kernel": 1, "slots/initial_scores": [[0, -50, 0], [0, 50, 0]]},
            {"weights": [[100, 100, 100, 100]]},
        ),
    ],
    # h = x + 3, and h + relu(h - 3).
    "SetAttentionBlock": [
        (
            lambda: layers.SetAttentionBlock(1, 1, **PLAIN),
            [[[0], [1]]],
            [3, 5],
            {**attending("block"), "feed_forward_0/kernel": 1, "feed_forward_0/bias": -3},
        ),
    ],
    # The point becomes 10 + 3; all that entities attend to is this one, so that they add 4 * 13.
    "InducedSetAttentionBlock": [
        (
            lambda: layers.InducedSetAttentionBlock(1, 1, 1, **PLAIN),
            [[[0], [1]]],
            [52, 53],
            {"inducing_points": 10, **attending("inducing_block"), **attending("block")},
        ),
    ],
    # A seed becomes 10 + 3.
    "PoolingByMultiheadAttention": [
        (
            lambda: layers.PoolingByMultiheadAttention(1, 1, **PLAIN),
            [[[0], [1]]],
            13,
            {"seeds": 10, **attending("block")},
        ),
    ],
    # 2 x + 1 + 10 * 6 + 100, since the pooled layer has a bias too.
    "DSS": [
        (
            lambda: layers.DSS(keras.layers.Dense(1, name="own"), pooling="max"),
            THREE,
            [163, 165, 173],
            {
                "own/kernel": 2,
                "own/bias": 1,
                "own_pooled/kernel": 10,
                "own_pooled/bias": 100,
            },
        ),
    ],
    # 2 x + 1 + 10 * 9
    "DSSDense": [
        (
            lambda: layers.DSSDense(1),
            THREE,
            [93, 95, 103],
            {"layer/kernel": 2, "layer/bias": 1, "pooled_layer/kernel": 10},
        ),
    ],
    # Each entity by 2, the mean 3 by 10, plus 1.
    "GraphEquivariantDense": [
        (
            lambda: layers.GraphEquivariantDense(1, 1, 1),
            THREE,
            [33, 35, 43],
            {"kernel": [2, 10], "bias": 1},
        ),
        # The matrix 1 2 / 3 4: itself, its transpose by 10, its total mean 2.5 by 100.
        (
            lambda: layers.GraphEquivariantDense(1, 2, 2),
            [[[[1], [2]], [[3], [4]]]],
            [1 + 10 + 250, 2 + 30 + 250, 3 + 20 + 250, 4 + 40 + 250],
            {"kernel": [1, 10] + 10 * [0] + [100, 0, 0]},
        ),
    ],
    # Itself, the next by 10, the one after it by 100, around the circle.
    "PermutationGroupDense": [
        (
            lambda: layers.PermutationGroupDense(1, groups.cyclic(3)),
            THREE,
            [1 + 20 + 600 + 5, 2 + 60 + 100 + 5, 6 + 10 + 200 + 5],
            {"kernel": [1, 10, 100], "bias": 5},
        ),
    ],
}
for rank in (1, 2, 3):
    ones = (1,) * (rank - 1)  # the axes before the last
    # x_t + 10 x_(t + 1), around the circle.
    ROWS[f"CircularConv{rank}D"] = [
        (
            lambda rank=rank, ones=ones: getattr(layers, f"CircularConv{rank}D")(1, (*ones, 2)),
            np.reshape(CIRCLE, (1, *ones, 3, 1)),
            [21, 42, 14],
            {"kernel": [1, 10]},
        )
    ]
    # x_t - x_(t + 1) of each signal, plus 10 times their sum, 1 and 2.
    ROWS[f"DSSConv{rank}D"] = [
        (
            lambda rank=rank, ones=ones: getattr(layers, f"DSSConv{rank}D")(1, (*ones, 2)),
            np.reshape(SIGNALS, (1, 2, *ones, 3, 1)),
            [-1 + 10, -1 + 20, 0 + 10, -1 + 20],
            {"layer/kernel": [1, -1], "pooled_layer/kernel": [10, 0]},
        )
    ]


def test_every_layer_has_an_example():
    assert set(ROWS) == set(layers.__all__) - {"Pooling", "SetLayer", "get_pooling"}


def set_weights(layer, values):
    """Gives every weight its values, by the end of its path, and 0 to all others."""
    paths = {f"/{weight.path}": weight for weight in layer.weights}
    for weight in layer.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    for name, value in values.items():
        (path,) = [path for path in paths if path.endswith(f"/{name}")]
        paths[path].assign(np.reshape(value, paths[path].shape))


@pytest.mark.parametrize(
    ("name", "row"), [(name, row) for name, rows in ROWS.items() for row in rows]
)
def test_numbers(name, row):
    make, inputs, expected, *more = row
    weights, given = (*more, {}, {})[:2]
    layer, x = make(), np.array(inputs, "float32")
    layer.build(x.shape)
    set_weights(layer, weights)
    received = ops.convert_to_numpy(layer(x, **{key: np.array(v) for key, v in given.items()}))
    np.testing.assert_allclose(received.ravel(), np.ravel(expected), rtol=2e-4, atol=1e-5)
