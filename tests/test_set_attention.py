"""Set attention: the original's arrays, NumPy, and what is particular to it."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets.layers import InducedSetAttentionBlock
from keras_sets.layers import PoolingByMultiheadAttention
from keras_sets.layers import SetAttentionBlock
from keras_sets.layers import SetNormalization
from keras_sets.ops import attention
from keras_sets.ops import loops
from keras_sets.ops import set_attention
from keras_sets.testing import outputs_and_gradients
from tests.conftest import load_arrays

ATTENTION = {
    "query": "project_queries",
    "key": "project_keys",
    "value": "project_values",
    "attention_output": "concatenation",
}


def original_name(path, blocks):
    """The original's name of a weight, and whether it belongs to a kernel."""
    *_, block, layer, weight = ["", *path.split("/")]
    if layer in ATTENTION:
        block = path.split("/")[-4]
        name = f"multihead.{ATTENTION[layer]}"
    elif layer.startswith("feed_forward_") and layer[-1].isdigit():
        name = f"rff.layers.{2 * int(layer[-1])}"
    elif layer.endswith("_normalization"):
        name = "layer_norm1" if layer.startswith("attention") else "layer_norm2"
    else:
        return weight
    kind = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}[weight]
    return f"{blocks[block]}.{name}.{kind}"


def in_keras_layout(value, shape, path):
    """PyTorch's (out, in), heads along out (projections) or in (output), reshaped."""
    return (value.T if path.endswith("kernel") else value).reshape(shape)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name",
    ["induced_set_attention", "induced_set_attention_masked", "pooling_by_multihead_attention"],
)
def test_outputs_and_gradients_are_those_of_the_original(name):
    arrays = load_arrays(name)
    heads = int(arrays["heads"])
    if name.startswith("induced"):
        points, width = arrays["w:inducing_points"].shape
        make = lambda: InducedSetAttentionBlock(width, heads, points)  # noqa: E731
        blocks = {"inducing_block": "mab1", "block": "mab2"}
        names = {"inducing_points": "inducing_points"}
    else:
        points, width = arrays["w:seed_vectors"].shape
        make = lambda: PoolingByMultiheadAttention(width, heads, points)  # noqa: E731
        blocks = {"block": "mab"}
        names = {"seeds": "seed_vectors"}
    mask = arrays["mask"].astype(bool) if "mask" in arrays else None
    valid = np.ones(arrays["y"].shape[:2], bool) if mask is None else mask
    cotangent = np.where(valid[..., None], arrays["cotangent"], 0)
    layer = make()
    layer.build(arrays["x"].shape)
    keys = {}
    for variable in layer.weights:
        key = original_name(variable.path, blocks)
        keys[variable.path] = key = names.get(key, key)
        value = arrays[f"w:{key}"]
        variable.assign(in_keras_layout(value, variable.shape, variable.path))
    assert sorted(keys.values()) == sorted(k[2:] for k in arrays if k.startswith("w:"))
    (y,), dx, dw = outputs_and_gradients(layer, arrays["x"], [cotangent], mask=mask)
    np.testing.assert_allclose(y[valid], arrays["y"][valid], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dx, arrays["grad_x"], rtol=1e-5, atol=2e-6)
    for variable, grad in zip(layer.trainable_variables, dw, strict=True):
        wanted = arrays[f"g:{keys[variable.path]}"]
        wanted = in_keras_layout(wanted, grad.shape, variable.path)
        np.testing.assert_allclose(grad, wanted, rtol=1e-5, atol=5e-6, err_msg=variable.path)


def test_attention_agrees_with_the_formula():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(3, n, 2, 4)).astype("float32") for n in (5, 6, 6))
    weights = rng.uniform(0.5, 3, (3, 6)) * (rng.uniform(size=(3, 6)) < 0.7)
    weights[1] = 0
    wanted = np.zeros((3, 5, 2, 4))
    for b in range(3):
        for h in range(2):
            if weights[b].any():
                p = weights[b] * np.exp(q[b, :, h] @ k[b, :, h].T / 2)
                wanted[b, :, h] = p / p.sum(axis=-1, keepdims=True) @ v[b, :, h]
    y = ops.convert_to_numpy(set_attention(q, k, v, weights=weights))
    np.testing.assert_allclose(y, wanted, atol=1e-5)


BLOCKS = {
    "sab": lambda **kwargs: SetAttentionBlock(8, 2, **kwargs),
    "isab": lambda **kwargs: InducedSetAttentionBlock(8, 2, 3, **kwargs),
    "pma": lambda **kwargs: PoolingByMultiheadAttention(8, 2, 2, **kwargs),
}


@pytest.mark.parametrize("residual", ["post", "clean"])
@pytest.mark.parametrize("normalization", ["layer", "set", None])
@pytest.mark.parametrize("block", BLOCKS)
def test_weights_are_repetitions_and_padding_does_not_count(block, normalization, residual):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    counts = np.array([[1, 3, 0, 2], [0, 0, 0, 0]])
    layer = BLOCKS[block](normalization=normalization, residual=residual, feed_forward_layers=2)
    dirty = np.where(counts[..., None] > 0, x, np.nan)
    y = ops.convert_to_numpy(layer(dirty, weights=counts.astype("float32")))
    repeated = np.repeat(x[:1], counts[0], axis=1)
    wanted = ops.convert_to_numpy(layer(repeated))[0]
    if block == "pma":
        np.testing.assert_allclose(y[0], wanted, atol=1e-5)
    else:
        np.testing.assert_allclose(np.repeat(y[0], counts[0], axis=0), wanted, atol=1e-5)
        assert not y[counts == 0].any()
    assert np.isfinite(y).all()


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_of_empty_and_dirty_sets_are_finite(block):
    x = np.full((2, 3, 8), np.nan, "float32")
    x[0, 0] = np.arange(8)
    mask = np.array([[True, False, False], [False, False, False]])
    layer = BLOCKS[block](normalization="set", residual="clean", feed_forward_layers=1)
    layer.build(x.shape)
    _, dx, dw = outputs_and_gradients(layer, x, mask=mask)
    assert np.isfinite(dx).all()
    assert not dx[~mask].any()
    assert all(np.isfinite(g).all() for g in dw)


@pytest.mark.parametrize("block", BLOCKS)
def test_configuration_symbolic_shapes_and_seeds(block):
    layer = BLOCKS[block](
        normalization="set",
        residual="clean",
        feed_forward_layers=2,
        feed_forward_units=16,
        feed_forward_activation="gelu",
        dropout=0.1,
        attention_dropout=0.2,
        kernel_initializer=keras.initializers.GlorotUniform(seed=3),
    )
    output = layer(keras.Input((None, 3)))
    assert output.shape == ((None, 2, 8) if block == "pma" else (None, None, 8))
    config = json.loads(json.dumps(layer.get_config()))
    copy = type(layer).from_config(config)
    copy.build((None, None, 3))
    assert [tuple(w.shape) for w in copy.weights] == [tuple(w.shape) for w in layer.weights]
    assert copy.get_config() == layer.get_config()
    kernels = [ops.convert_to_numpy(w) for w in layer.weights if w.path.endswith("kernel")]
    starts = {tuple(np.round(kernel.ravel()[:4], 5)) for kernel in kernels}
    assert len(starts) == len(kernels)


@pytest.mark.parametrize("given", [(), ("mask", "weights")], ids="+".join)
def test_fast_ways_are_the_plain_one(backend, monkeypatch, given):
    """PyTorch's fused kernels, and a few sets at a time on JAX."""
    rng = np.random.default_rng(0)
    kinds = {"mask": rng.random((5, 6)) < 0.6, "weights": 2 * rng.random((5, 6)).astype("float32")}
    kinds["mask"][1] = False
    kinds = {name: kinds[name] for name in given}
    x = rng.normal(size=(5, 6, 3)).astype("float32")
    layer = SetAttentionBlock(8, 2)
    cotangents = [rng.normal(size=(5, 6, 8))]
    fast = []
    with monkeypatch.context() as patch:
        if backend == "torch":
            import torch

            parts, name = torch.nn.functional, "scaled_dot_product_attention"
        else:
            parts, name = loops, "in_groups"
        function = getattr(parts, name)
        patch.setattr(parts, name, lambda *a, **k: fast.append(a) or function(*a, **k))
        patch.setattr(loops, "KEPT_BYTES", 0)
        # Five sets in two groups of three, of which the second is filled.
        patch.setattr(loops, "MIN_ROWS", 3 * 6 * 2)
        patch.setattr(loops, "MIN_GROUPS", 1)
        received = outputs_and_gradients(layer, x, cotangents, **kinds)
    assert bool(fast) == (backend != "tensorflow")
    monkeypatch.setattr(attention, "_has_fused_kernels", lambda *tensors: False)
    expected = outputs_and_gradients(layer, x, cotangents, **kinds)
    pairs = [(received[0][0], expected[0][0]), (received[1], expected[1])]
    for new, old in pairs + list(zip(received[2], expected[2], strict=True)):
        assert np.isfinite(new).all()
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 3), (3, 1)], ids=["queries", "entities"])
def test_one_set_of_queries_or_of_entities_for_all(rng, sizes):
    query, key = (rng.normal(size=(size, 4, 2, 8)).astype("float32") for size in sizes)
    query, key = map(ops.convert_to_tensor, (query, key))
    expected = []
    for i in range(3):
        entities = key[i % sizes[1]][None]
        expected.append(set_attention(query[i % sizes[0]][None], entities, entities)[0])
    received = ops.convert_to_numpy(set_attention(query, key, key))
    np.testing.assert_allclose(received, [ops.convert_to_numpy(y) for y in expected], atol=1e-5)


def test_factors_multiply_the_attention():
    """The softmax is that over all present entities, whatever the factors."""
    rng = np.random.default_rng(4)
    q, k, v = (rng.normal(size=(2, n, 1, 4)).astype("float32") for n in (3, 5, 5))
    mask = np.array([[True, False, True, True, True], [False] * 5])
    factors = 2.0 * (rng.uniform(size=(2, 1, 3, 5)) < 0.5)
    p = np.exp(q[0, :, 0] @ k[0, :, 0].T / 2) * mask[0]
    wanted = p / p.sum(axis=-1, keepdims=True) * factors[0, 0] @ v[0, :, 0]
    y = ops.convert_to_numpy(set_attention(q, k, v, mask, factors=factors))
    np.testing.assert_allclose(y[0, :, 0], wanted, atol=1e-5)
    assert not y[1].any()


def test_attention_dropout_drops_entities_and_rescales_the_others():
    """A set of one real entity: seeds get nothing of it, or twice what they get at inference."""
    layer = PoolingByMultiheadAttention(
        4, 1, 2, normalization=None, residual="clean", attention_dropout=0.5, seed=0
    )
    x = np.full((500, 3, 4), np.nan, "float32")
    x[:, 1] = [1.0, -2.0, 0.5, 3.0]
    mask = np.broadcast_to([False, True, False], (500, 3))
    layer.build(x.shape)
    for variable in layer.weights:
        if "feed_forward" in variable.path:  # its output is 0 then
            variable.assign(np.zeros(variable.shape, "float32"))
    seeds = ops.convert_to_numpy(layer.seeds)
    calm = ops.convert_to_numpy(layer(x, mask=mask)) - seeds
    (y,), dx, _ = outputs_and_gradients(layer, x, mask=mask, training=True)
    ratios = ((y - seeds) * calm).sum(axis=-1) / (calm**2).sum(axis=-1)
    np.testing.assert_allclose(y - seeds, ratios[..., None] * calm, atol=1e-5)
    np.testing.assert_allclose(ratios * (2 - ratios), 0, atol=1e-4)
    assert 0.4 < (ratios > 1).mean() < 0.6  # of 1,000 draws
    assert (ratios[:, 0] != ratios[:, 1]).any()
    assert np.isfinite(dx).all() and not dx[~mask].any()


@pytest.mark.parametrize("block", BLOCKS)
def test_attention_dropout_is_for_training_and_shared_by_equal_entities(block):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    x[:, 4] = x[:, 2]
    plain = BLOCKS[block](feed_forward_layers=1)
    wanted = plain(x)
    layers = [BLOCKS[block](feed_forward_layers=1, attention_dropout=0.5, seed=7) for _ in range(2)]
    first, again = [], []
    for layer, outputs in zip(layers, (first, again), strict=True):
        layer.build(x.shape)
        layer.set_weights(plain.get_weights() + layer.get_weights()[len(plain.weights) :])
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (layer(x), wanted)))
        outputs += [ops.convert_to_numpy(layer(x, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - first[1]).max() > 1e-3
    assert np.abs(first[0] - ops.convert_to_numpy(wanted)).max() > 1e-3
    if block != "pma":
        np.testing.assert_allclose(first[0][:, 4], first[0][:, 2], atol=1e-6)


def test_set_transformers_have_as_many_weights_as_the_original():
    """h128 with ten inducing points, one block: FACTS of the published code."""
    x = keras.Input((None, 2))
    h = keras.layers.Dense(128)(x)
    h = InducedSetAttentionBlock(128, 4, 10)(h)
    assert keras.Model(x, keras.layers.Dense(10)(h)).count_params() == 268_170


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("block", BLOCKS)
def test_half_precision(block, dtype):
    layer = BLOCKS[block](dtype=dtype, normalization="set", dropout=0.5)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    y = layer(x, weights=np.full((2, 5), 300.0, "float32"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype[6:]
    assert np.isfinite(ops.convert_to_numpy(ops.cast(y, "float32"))).all()


def test_images_are_sets_of_pixels():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 2, 3, 4)).astype("float32")
    mask = rng.uniform(size=(2, 2, 3)) < 0.6
    layer = InducedSetAttentionBlock(8, 2, 3, feed_forward_layers=1)
    y = ops.convert_to_numpy(layer(x, mask=mask)).reshape(2, 6, 8)
    flat = layer(x.reshape(2, 6, 4), mask=mask.reshape(2, 6))
    np.testing.assert_allclose(y, ops.convert_to_numpy(flat), atol=1e-6)


def test_set_normalization_agrees_with_the_formula():
    rng = np.random.default_rng(3)
    x = rng.normal(1000, 2, size=(3, 5, 4)).astype("float32")
    weights = rng.integers(0, 3, (3, 5)).astype("float32")
    weights[2] = 0
    layer = SetNormalization(epsilon=1e-6)
    y = ops.convert_to_numpy(layer(x, weights=weights))
    for b in range(2):
        repeated = np.repeat(x[b].astype("float64"), weights[b].astype(int), axis=0)
        wanted = (x[b] - repeated.mean()) / np.sqrt(repeated.var() + 1e-6)
        wanted = wanted * (weights[b, :, None] > 0)
        np.testing.assert_allclose(y[b], wanted, atol=2e-3)
    assert not y[2].any()


def test_errors():
    with pytest.raises(ValueError, match="units=8, num_heads=3"):
        SetAttentionBlock(8, 3)
    with pytest.raises(ValueError, match="normalization='batch'"):
        SetAttentionBlock(8, 2, normalization="batch")
    with pytest.raises(ValueError, match="residual='pre'"):
        InducedSetAttentionBlock(8, 2, 3, residual="pre")
    with pytest.raises(ValueError, match="num_inducing_points=0"):
        InducedSetAttentionBlock(8, 2, 0)
    with pytest.raises(ValueError, match="num_seeds=-1"):
        PoolingByMultiheadAttention(8, 2, -1)
    with pytest.raises(ValueError, match="attention_dropout=1"):
        SetAttentionBlock(8, 2, attention_dropout=1)
    with pytest.raises(ValueError, match="epsilon=0"):
        SetNormalization(epsilon=0)
