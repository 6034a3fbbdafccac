"""Poolings against the aggregations of PyTorch Geometric, and where the definitions differ.

Not collected with the other tests, because it needs that package: `tox run -e pyg`, or
`KERAS_BACKEND=torch python -m pytest tests/check_torch_geometric.py` where it is installed.

Where they differ, a test says so:

- **Standard deviation.** Both are roots of the variance. Theirs is the root of
  `max(variance, 1e-5)`, with 0 in place of its smallest value.
- **Median.** Theirs of an even number of entities is the lower of the two in the middle, ours
  their mean.
- **Quantiles.** Theirs interpolate between entities, `n - 1` steps apart. Ours are those of
  weighted sets, in which an entity of weight 2 counts like two.
- **Power mean.** Theirs clamps inputs and the mean of their powers to [1e-4, 100], but nothing for
  p = 1. Ours raises inputs to `minimum`, for every p.
- **Sorting.** Theirs sorts whole entities by their last feature and keeps k of them. Ours sorts
  every feature by itself.
- **Degree scalers.** Theirs takes `log(n + 1)` of a histogram of sizes, ours is given its mean.
- **Repetition.** Weights are ours alone.
"""

import keras
import numpy as np
import pytest
import torch

from keras_sets import layers

aggregations = pytest.importorskip("torch_geometric.nn.aggr")

FEATURES = 3
SIZES = (5, 1, 8, 0, 4)


@pytest.fixture(scope="module")
def sets():
    """`(points, mask, flat, index)`: padded sets, and theirs, one after the other."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(len(SIZES), max(SIZES), FEATURES)).astype("float32")
    mask = np.arange(max(SIZES)) < np.array(SIZES)[:, None]
    index = torch.tensor(np.repeat(np.arange(len(SIZES)), SIZES))
    return np.where(mask[..., None], points, np.nan), mask, torch.tensor(points[mask]), index


def ours(pooling, points, mask):
    return keras.ops.convert_to_numpy(pooling(points, mask=mask))


def theirs(aggregation, flat, index):
    return aggregation(flat, index, dim_size=len(SIZES)).detach().numpy()


PAIRS = {
    "mean": ("mean", "MeanAggregation"),
    "sum": ("sum", "SumAggregation"),
    "max": ("max", "MaxAggregation"),
    "min": ("min", "MinAggregation"),
    "variance": ("variance", "VarAggregation"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_same_definition(name, sets):
    points, mask, flat, index = sets
    own, other = PAIRS[name]
    received = ours(layers.get_pooling(own), points, mask)
    expected = theirs(getattr(aggregations, other)(), flat, index)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_standard_deviation(sets):
    points, mask, flat, index = sets
    received = ours(layers.StandardDeviationPooling(), points, mask)
    expected = theirs(aggregations.StdAggregation(), flat, index)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    close = np.full((1, 2, 1), 1.0, "float32")
    close[0, 1] += 0.004  # a standard deviation of 0.002, below the root of 1e-5
    other = aggregations.StdAggregation()(torch.tensor(close[0]), torch.zeros(2, dtype=int))
    assert float(other[0, 0]) == 0
    np.testing.assert_allclose(ours(layers.StandardDeviationPooling(), close, None), 0.002, 1e-3)


@pytest.mark.parametrize("temperature", [0.5, -2.0])
def test_softmax(temperature, sets):
    points, mask, flat, index = sets
    pooling = layers.SoftmaxPooling(keras.initializers.Constant(temperature))
    expected = theirs(aggregations.SoftmaxAggregation(t=temperature), flat, index)
    np.testing.assert_allclose(ours(pooling, points, mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exponent", [1.0, 3.0, -1.0])
def test_power_mean(exponent, sets):
    points, mask, flat, index = sets
    pooling = layers.PowerMeanPooling(keras.initializers.Constant(exponent))
    other = aggregations.PowerMeanAggregation(p=exponent)
    received = ours(pooling, np.abs(points) + 0.1, mask)
    expected = theirs(other, torch.abs(flat) + 0.1, index)
    there = mask.any(axis=1)
    np.testing.assert_allclose(received[there], expected[there], rtol=1e-4)
    assert not received[~there].any()
    assert exponent == 1 or (expected[~there] != 0).all()  # the root of a clamped 0
    if exponent == 1:  # theirs is the mean then, of negative numbers too
        assert theirs(other, flat, index).min() < 0 <= ours(pooling, points, mask).min()


def test_median(sets):
    points, mask, flat, index = sets
    received = ours(layers.MedianPooling(), points, mask)
    expected = theirs(aggregations.MedianAggregation(), flat, index)
    odd = np.array(SIZES) % 2 == 1
    np.testing.assert_allclose(received[odd], expected[odd], rtol=1e-6)
    for i, size in enumerate(SIZES):
        if size and size % 2 == 0:
            ordered = np.sort(points[i, :size], axis=0)
            lower, upper = ordered[size // 2 - 1], ordered[size // 2]
            np.testing.assert_allclose(expected[i], lower, rtol=1e-6)
            np.testing.assert_allclose(received[i], (lower + upper) / 2, rtol=1e-5)


def test_quantiles(sets):
    points, mask, flat, index = sets
    shares = [0.0, 0.3, 1.0]
    received = ours(layers.QuantilePooling(shares), points, mask).reshape(-1, 3, FEATURES)
    expected = theirs(aggregations.QuantileAggregation(shares), flat, index)
    expected = expected.reshape(-1, 3, FEATURES)
    for place in (0, 2):  # the least and the largest
        np.testing.assert_allclose(received[:, place], expected[:, place], rtol=1e-6)
    methods = ("averaged_inverted_cdf", received), ("linear", expected)
    for method, values in methods:
        wanted = np.quantile(points[2, : SIZES[2]], 0.3, axis=0, method=method)
        np.testing.assert_allclose(values[2, 1], wanted, rtol=1e-5, atol=1e-6)


def test_sorting(sets):
    """By one feature both keep the same; theirs keeps the others of the same entity with it."""
    points, mask, flat, index = sets
    other = theirs(aggregations.SortAggregation(k=1), flat, index)
    received = ours(layers.MaxPooling(), points, mask)
    there = np.array(SIZES) > 0
    np.testing.assert_allclose(other[there, -1], received[there, -1], rtol=1e-6)
    assert (other[there, 0] < received[there, 0]).any()
    # One piece of a linear function that is 0 at the least and 1 at the largest entity.
    pooling = layers.SortPooling(num_pieces=1, kernel_initializer="ones")
    mean = theirs(aggregations.MeanAggregation(), flat, index)
    np.testing.assert_allclose(ours(pooling, points, mask), mean, rtol=1e-4, atol=1e-5)


def test_attention(sets):
    points, mask, flat, index = sets
    pooling = layers.GatedAttentionPooling(units=4)
    received = ours(pooling, points, mask)

    class Gate(torch.nn.Module):
        def forward(self, x):
            return pooling.score(pooling.value(x) * pooling.gate(x))

    expected = theirs(aggregations.AttentionalAggregation(Gate()), flat, index)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_degree_scalers(sets):
    points, mask, flat, index = sets
    scalers = ["identity", "amplification", "attenuation"]
    histogram = torch.bincount(torch.tensor([size for size in SIZES if size]))
    other = aggregations.DegreeScalerAggregation(aggregations.MeanAggregation(), scalers, histogram)
    expected = theirs(other, flat, index)
    mean_log_size = np.mean([np.log(size + 1) for size in SIZES if size])
    pooling = layers.MultiPooling(["mean"], scalers, mean_log_size=float(mean_log_size))
    received = ours(pooling, points, mask)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
