"""Poolings with options of their own against NumPy, and what no law of the registry says."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import models
from keras_sets.layers.pooling.names import POOLINGS
from keras_sets.testing import outputs_and_gradients
from tests import reference

# Of these `test_layers.py`, `test_chunks.py` and `test_pooling_maps.py` say as much.
ELSEWHERE = {"causal", "causal_mean", "logsumexp", "max", "mean", "pooling_maps", "slots", "sum"}
NAMES = sorted(set(POOLINGS) - ELSEWHERE - {"std"})
SORTING = {"median", "quantile", "sort"}


def numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def sets(dtype="float64", size=9):
    """Sets of all kinds, NaN where no entity is, equal entities and whole weights among them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, size, 3)).round(1)
    mask = rng.random((5, size)) < 0.7
    mask[1], mask[4] = True, False
    weights = rng.choice([0, 1, 2, 0.5], size=(5, size))
    weights[1] = 1
    counts = np.where(mask, weights, 0.0)
    return np.where(counts[..., None] > 0, x, np.nan).astype(dtype), mask, weights, counts


OPTIONED = {
    "quantile": (layers.QuantilePooling, {"q": [0.0, 0.25, 0.5, 0.9, 1.0]}),
    "sort": (layers.SortPooling, {"num_pieces": 4}),
    "softmax": (layers.SoftmaxPooling, {}),
    "power_mean": (layers.PowerMeanPooling, {"minimum": 0.2}),
}


@pytest.mark.parametrize("name", OPTIONED)
def test_against_numpy(name, float64):
    cls, options = OPTIONED[name]
    x, mask, weights, counts = sets()
    layer = cls(**options, dtype="float64")
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    expected = reference.pool_with_options(
        name, x, counts, [numpy(w) for w in layer.weights], **options
    )
    received = numpy(layer(x, mask=mask, weights=weights))
    np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9)


def test_a_short_name_is_kept_as_the_long_one():
    layer = layers.PermutationEquivariantDense(4, pooling="std")
    assert layer.get_config()["pooling"] == "standard_deviation"


@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.75, 1.0])
def test_quantiles_are_those_of_numpy(q):
    x, mask, weights, _ = sets("float32", size=8)
    counts = np.where(mask, 2 * weights, 0).astype(int)  # copies
    received = numpy(layers.QuantilePooling(q)(x, mask=mask, weights=weights))
    for row, points, copies in zip(received[:4], x, counts, strict=False):
        repeated = np.repeat(np.nan_to_num(points), copies, axis=0)
        expected = np.quantile(repeated, q, axis=0, method="averaged_inverted_cdf")
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_quantiles_of_entities_with_a_tiny_share():
    """The least and the largest count however little they weigh, and so does one in 200,000."""
    x = np.array([[[-100.0], [50.0], [0.0]]])
    ends = layers.QuantilePooling([0.0, 0.25, 1.0])
    np.testing.assert_array_equal(numpy(ends(x, weights=[[1, 1, 1e6]]))[0], [-100, 0, 50])
    n = 200_000
    x = np.random.default_rng(0).permutation(n).reshape(1, n, 1)
    q = [0.0, 2 / n, 2.5 / n, 0.5, 1 - 1.5 / n, 1.0]
    received = numpy(layers.QuantilePooling(q)(x))[0]
    np.testing.assert_array_equal(received, [0, 1.5, 2, n / 2 - 0.5, n - 2, n - 1])


def test_a_quantile_between_two_entities(float64):
    """Shares are equal up to rounding, of which sums of weights have more than counts."""
    x = np.arange(1000.0)[None, :, None]
    median = layers.MedianPooling(dtype="float32")
    half = np.random.default_rng(0).random((32, 500))
    uneven = np.concatenate([half, half], axis=1)
    many = np.broadcast_to(x, (32, 1000, 1))
    np.testing.assert_array_equal(numpy(median(many, weights=uneven)), np.full((32, 1), 499.5))
    np.testing.assert_array_equal(numpy(median(x[:, :2], weights=[[1, 1.0005]])), [[1]])
    np.testing.assert_array_equal(numpy(median(x[:, :3], weights=[[3e38] * 3])), [[1]])
    almost_all = layers.QuantilePooling(1 - 1e-9, dtype="float32")
    np.testing.assert_array_equal(numpy(almost_all(x)), [[999]])
    rounded = layers.QuantilePooling(0.1 + 0.2, dtype="float64")  # above 0.3
    np.testing.assert_array_equal(numpy(rounded(x[:, :10])), [[2.5]])


def test_attention_is_that_of_ilse_et_al(float64):
    x, mask, weights, counts = sets()
    layer = layers.GatedAttentionPooling(4, dtype="float64")
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    value, value_bias, gate, gate_bias, score = (numpy(w) for w in layer.weights)
    pooled, attention = layer(x, mask=mask, weights=weights, return_attention_scores=True)
    x = np.nan_to_num(x)
    hidden = np.tanh(x @ value + value_bias) * reference.sigmoid(x @ gate + gate_bias)
    p = counts * np.exp((hidden @ score)[..., 0])
    total = p.sum(axis=1, keepdims=True)
    p = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    # Keras' Dense computes in float32 on torch, and its tanh on JAX.
    tolerance = 1e-12 if keras.backend.backend() == "tensorflow" else 1e-6
    np.testing.assert_allclose(numpy(attention), p, atol=tolerance)
    np.testing.assert_allclose(numpy(pooled), np.einsum("bn,bnf->bf", p, x), atol=10 * tolerance)
    alone = numpy(layer(np.nan_to_num(x), mask=mask, weights=weights))
    np.testing.assert_allclose(alone, numpy(pooled), atol=tolerance)


def test_attention_in_a_functional_model():
    inputs = keras.Input((None, 3))
    outputs = layers.GatedAttentionPooling(4)(inputs, return_attention_scores=True)
    model = keras.Model(inputs, outputs)
    assert [tuple(y.shape) for y in outputs] == [(None, 3), (None, None)]
    pooled, attention = model.predict(np.ones((2, 5, 3), "float32"), verbose=0)
    assert pooled.shape == (2, 3)
    np.testing.assert_allclose(attention, np.full((2, 5), 0.2), rtol=1e-6)


def test_ungated_attention():
    layer = layers.GatedAttentionPooling(1, gated=False)
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, 1)), np.zeros(1), np.full((1, 1), np.log(3) / np.tanh(1))])
    assert abs(numpy(layer(np.array([[[0.0], [1.0]]]))).item() - 0.75) < 1e-6


@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_combined_poolings(combine):
    x, mask, weights, counts = sets("float32")
    layer = layers.MultiPooling(
        ["mean", "min"], ["identity", "attenuation"], combine, mean_log_size=2.0
    )
    log_size = np.log(counts.sum(axis=1) + 1)[:, None]
    factor = np.divide(2.0, log_size, out=np.zeros_like(log_size), where=log_size > 0)
    parts = [reference.pool(name, x.astype("float64"), counts) for name in ("mean", "min")]
    expected = getattr(np, combine)([*parts, *(part * factor for part in parts)], axis=0)
    received = numpy(layer(x, mask=mask, weights=weights))
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_a_constant_changes_no_variance():
    """Float32 has seven digits: those of 1e6 leave none of a variance from sums of squares."""
    x = np.random.default_rng(0).normal(size=(2, 200, 3)).astype("float32")
    x = (x + 1e6).astype("float32")
    layer = layers.VariancePooling()
    expected = x.astype("float64").var(axis=1)
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-5)
    mask = np.arange(200) < [[5], [9]]
    few = [points[real].astype("float64").var(axis=0) for points, real in zip(x, mask, strict=True)]
    np.testing.assert_allclose(numpy(layer(x, mask=mask)), few, rtol=1e-5)
    state = layer.init(2, 3)
    for start in range(0, 200, 40):
        state = layer.update(state, x[:, start : start + 40])
    np.testing.assert_allclose(numpy(layer.finish(state)), expected, rtol=1e-5)


def test_a_constant_has_no_infinite_derivative():
    for x in (np.ones((2, 1, 3), "float32"), np.full((1, 4, 2), 3.0, "float32")):
        (y,), gradient, _ = outputs_and_gradients(layers.StandardDeviationPooling(), x)
        assert not y.any() and not gradient.any()


def test_extreme_temperatures_and_exponents():
    x = np.array([[[1.0], [50.0], [200.0]]], "float32")
    for value, expected in ((0.0, 251 / 3), (1e4, 200.0), (-1e4, 1.0)):
        layer = layers.SoftmaxPooling(keras.initializers.Constant(value))
        np.testing.assert_allclose(numpy(layer(x)), [[expected]], rtol=1e-6)
    for value, expected in ((0.0, 10_000 ** (1 / 3)), (200.0, 200 * 3 ** (-1 / 200))):
        layer = layers.PowerMeanPooling(keras.initializers.Constant(value))
        np.testing.assert_allclose(numpy(layer(x)), [[expected]], rtol=3e-3)
    # Near 0 there is no root: it is taken for a small exponent of its sign.
    for value in (1e-3, -1e-3):
        layer = layers.PowerMeanPooling(keras.initializers.Constant(value / 10))
        expected = np.mean(x**value) ** (1 / value)
        np.testing.assert_allclose(numpy(layer(x)), [[expected]], rtol=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_pooling_works_by_name(name):
    """In layers, in a swarm, and after a network, whose configuration keeps it."""
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    for layer, inputs in (
        (layers.PermutationEquivariantDense(4, pooling=name), x),
        (layers.Swarm(4, hidden_units=3, iterations=2, pooling=name), x),
        (layers.DSSDense(4, pooling=name), x[:, :, None]),
    ):
        y = numpy(layer(inputs))
        assert y.shape[:2] == (2, 5) and np.isfinite(y).all()
        assert layer.get_config()["pooling"] == name
    model = models.deep_sets(3, 2, hidden_units=4, num_layers=1, output_pooling=name)
    batch = {"entities": x, "mask": np.ones((2, 5), bool)}
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(numpy(again(batch)), numpy(model(batch)))


def test_several_pooled_elements_become_channels():
    """DSS pools places one by one: mean and maximum of a channel are two channels of its place."""
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    seen = []
    pooled_layer = keras.layers.Lambda(lambda y: seen.append(numpy(y)) or y[..., :3])
    layer = layers.DSS(
        keras.layers.Identity(), pooled_layer, pooling=layers.MultiPooling(["mean", "max"])
    )
    layer(x)
    expected = np.concatenate([x.mean(axis=1), x.max(axis=1)], axis=-1)
    np.testing.assert_allclose(seen[-1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SORTING))
def test_chunks_of_every_pooling(name):
    x, mask, weights, _ = sets("float32", size=12)
    pooling = layers.get_pooling(name)
    whole = numpy(pooling(x, mask=mask, weights=weights))
    states = [pooling.init(5, 3)]
    for start in (0, 4, 8):
        part = slice(start, start + 4)
        chunk = (x[:, part], mask[:, part], weights[:, part])
        states.append(pooling.update(pooling.init(5, 3), *chunk))
    a, b, c, d = states
    for state in (
        pooling.merge(pooling.merge(pooling.merge(a, b), c), d),
        pooling.merge(d, pooling.merge(c, pooling.merge(b, a))),
    ):
        scale = max(1.0, np.abs(whole).max())
        np.testing.assert_allclose(numpy(pooling.finish(state)), whole, atol=3e-6 * scale)


@pytest.mark.parametrize("name", sorted(SORTING))
def test_sorted_sets_are_no_sum_of_chunks(name):
    with pytest.raises(NotImplementedError, match="chunk"):
        layers.get_pooling(name).init(2, 3)
    with pytest.raises(ValueError, match="methods chunk_state"):
        models.predict_in_chunks(layers.get_pooling(name), [np.ones((1, 2, 3), "float32")])


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (layers.QuantilePooling, {"q": 1.5}, "q=1.5"),
        (layers.QuantilePooling, {"q": []}, r"q=\[\]"),
        (layers.QuantilePooling, {"q": "median"}, "q='median'"),
        (layers.SortPooling, {"num_pieces": 0}, "num_pieces=0"),
        (layers.PowerMeanPooling, {"minimum": 0.0}, "minimum=0.0"),
        (layers.GatedAttentionPooling, {"units": -1}, "units=-1"),
        (layers.MultiPooling, {"poolings": []}, r"poolings=\[\]"),
        (layers.MultiPooling, {"poolings": "mean"}, "poolings='mean'"),
        (layers.MultiPooling, {"poolings": ["causal"]}, "one vector a set"),
        (layers.MultiPooling, {"poolings": [layers.MeanPooling(keepdims=True)]}, "keepdims"),
        (layers.MultiPooling, {"scalers": ["degree"]}, "scalers='degree'"),
        (layers.MultiPooling, {"combine": "product"}, "combine='product'"),
        (layers.MultiPooling, {"mean_log_size": 0}, "mean_log_size=0"),
    ],
)
def test_bad_options(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_combined_poolings_must_agree_in_width():
    pooling = layers.MultiPooling(["mean", layers.QuantilePooling([0.1, 0.9])], combine="sum")
    with pytest.raises(ValueError, match=r"\[3, 6\]"):
        pooling(np.ones((2, 5, 3)))


def test_poolings_of_several_passes_name_the_function_that_makes_them():
    with pytest.raises(NotImplementedError, match="several times.*predict_in_chunks"):
        layers.SlotPooling().init(2, 4)
