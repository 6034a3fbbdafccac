"""Weights of original implementations; test_parity.py compares what the SwarmLayer computes."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_sets
from keras_sets import models
from keras_sets.convert import load_torch_set_transformer
from keras_sets.convert import load_torch_swarm
from keras_sets.layers import InducedSetAttentionBlock
from keras_sets.layers import PoolingByMultiheadAttention
from keras_sets.layers import SetAttentionBlock
from keras_sets.layers import Swarm
from tests.conftest import load_arrays


def make_layer(arrays, pooling):
    units, twice_hidden = arrays["w:ffwd.weight"].shape[:2]
    iterations = int(arrays["iterations"])
    return Swarm(units, twice_hidden // 2, iterations=iterations, pooling=pooling)


def torch_weights(arrays):
    """The entries `w:NAME` as a state dict."""
    return {key[2:]: value for key, value in arrays.items() if key.startswith("w:")}


def test_a_prefix_selects_one_layer_of_a_stack():
    arrays = load_arrays("swarm_mean")
    state = {f"cells.0.{name}": value for name, value in torch_weights(arrays).items()}
    state["cells.2.ffwd.bias"] = np.zeros(3)
    layer = make_layer(arrays, "mean")
    assert keras_sets.convert.load_torch_swarm(layer, state, prefix="cells.0.") is layer
    wanted = arrays["w:ffwd.bias"].astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.projection.bias), wanted)


def test_errors_name_what_does_not_fit():
    arrays = load_arrays("swarm_mean")
    state = torch_weights(arrays)
    layer = make_layer(arrays, "mean")
    missing = {name: value for name, value in state.items() if name != "cell.Whp.weight"}
    with pytest.raises(ValueError, match=r"missing: \['cell.Whp.weight'\]"):
        load_torch_swarm(layer, missing)
    with pytest.raises(ValueError, match=r"unknown: \['extra'\]"):
        load_torch_swarm(layer, {**state, "extra": np.zeros(2)})
    with pytest.raises(ValueError, match=r"cell.Whh.weight.*Received: \(7, 24\)"):
        load_torch_swarm(layer, {**state, "cell.Whh.weight": np.zeros((24, 7, 1))})
    before = [ops.convert_to_numpy(w).copy() for w in layer.weights]
    with pytest.raises(ValueError, match="ffwd.bias"):
        load_torch_swarm(layer, {**state, "ffwd.bias": np.zeros(9)})
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


# --- The original Set Transformer ----------------------------------------------------


class Original:
    """`modules.py` of the original in NumPy: weights `(out, in)`, and what they compute."""

    def __init__(self, heads, ln):
        self.heads, self.ln, self.state = heads, ln, {}
        self.rng = np.random.default_rng(0)

    def linear(self, name, x, units):
        if f"{name}.weight" not in self.state:
            self.state[f"{name}.weight"] = self.rng.normal(size=(units, x.shape[-1]), scale=0.5)
            self.state[f"{name}.bias"] = self.rng.normal(size=units)
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def normalized(self, name, x):
        if not self.ln:
            return x
        for part in ("weight", "bias"):
            self.state.setdefault(f"{name}.{part}", self.rng.normal(size=x.shape[-1]))
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def mab(self, name, q, k, units):
        q, v = self.linear(f"{name}.fc_q", q, units), self.linear(f"{name}.fc_v", k, units)
        k = self.linear(f"{name}.fc_k", k, units)
        q, k, v = (np.stack(np.split(x, self.heads, axis=-1)) for x in (q, k, v))
        scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(units)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        o = q + shares / shares.sum(-1, keepdims=True) @ v
        o = self.normalized(f"{name}.ln0", np.concatenate(list(o), axis=-1))
        return self.normalized(
            f"{name}.ln1", o + np.maximum(self.linear(f"{name}.fc_o", o, units), 0)
        )

    def points(self, name, x, count, units):
        points = self.state.setdefault(name, self.rng.normal(size=(1, count, units)))
        return np.repeat(points, len(x), axis=0)

    def isab(self, name, x, units, count):
        h = self.mab(f"{name}mab0", self.points(f"{name}I", x, count, units), x, units)
        return self.mab(f"{name}mab1", x, h, units)

    def pma(self, name, x, units, count):
        return self.mab(f"{name}mab", self.points(f"{name}S", x, count, units), x, units)

    def set_transformer(self, x, units, outputs):
        for module in ("enc.0.", "enc.1."):
            x = self.isab(module, x, units, 3)
        x = self.pma("dec.0.", x, units, 2)
        for module in ("dec.1.", "dec.2."):
            x = self.mab(f"{module}mab", x, x, units)
        return self.linear("dec.3", x, outputs)


def original_blocks(ln):
    options = {"residual": "projected", "feed_forward_layers": 1, "num_heads": 2}
    return {**options, "normalization": "layer" if ln else None}


@pytest.mark.parametrize("ln", [False, True])
def test_the_original_set_transformer(ln):
    original = Original(2, ln)
    x = original.rng.normal(size=(3, 5, 2))
    expected = original.set_transformer(x, 4, 3)
    options = original_blocks(ln)
    network = keras.Sequential(
        [
            InducedSetAttentionBlock(4, num_inducing_points=3, **options),
            InducedSetAttentionBlock(4, num_inducing_points=3, **options),
            PoolingByMultiheadAttention(4, num_seeds=2, **options),
            SetAttentionBlock(4, **options),
            SetAttentionBlock(4, **options),
            keras.layers.Dense(3),
        ]
    )
    assert load_torch_set_transformer(network, original.state) is network
    received = ops.convert_to_numpy(network(x.astype("float32")))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    encoder = keras.Sequential(network.layers[:2])
    load_torch_set_transformer(encoder, original.state, prefix="enc.")


def test_blocks_and_models_of_the_original():
    original = Original(2, False)
    x = original.rng.normal(size=(3, 5, 4))
    blocks = {
        "mab.": SetAttentionBlock(6, **original_blocks(False)),
        "isab.": InducedSetAttentionBlock(6, num_inducing_points=3, **original_blocks(False)),
        "pma.": PoolingByMultiheadAttention(6, num_seeds=2, **original_blocks(False)),
    }
    expected = [
        original.mab("mab.mab", x, x, 6),
        original.isab("isab.", x, 6, 3),
        original.pma("pma.", x, 6, 2),
    ]
    for (name, block), values in zip(blocks.items(), expected, strict=True):
        load_torch_set_transformer(block, original.state, prefix=name)
        received = ops.convert_to_numpy(block(x.astype("float32")))
        np.testing.assert_allclose(received, values, rtol=1e-4, atol=1e-5)
    original = Original(2, False)
    expected = original.isab("enc.0.", x, 6, 3)
    expected = original.linear("dec.1", original.pma("dec.0.", expected, 6, 1), 1)[:, 0]
    network = models.set_transformer(
        4, 1, 6, num_inducing_points=3, output_pooling="attention", **original_blocks(False)
    )
    load_torch_set_transformer(network, original.state)
    received = network.predict_on_batch({"entities": x, "mask": np.ones((3, 5), bool)})
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_errors_name_what_is_not_as_in_the_original():
    original = Original(2, False)
    x = original.rng.normal(size=(3, 5, 4))
    original.mab("mab", x, x, 6)
    load = load_torch_set_transformer
    with pytest.raises(ValueError, match="'residual': 'post'.*'feed_forward_layers': 4"):
        load(SetAttentionBlock(6, 2), original.state)
    options = original_blocks(True)
    with pytest.raises(ValueError, match=r"missing: \['mab.ln0.bias'"):
        load(SetAttentionBlock(6, **options), original.state)
    block = SetAttentionBlock(6, **original_blocks(False))
    with pytest.raises(ValueError, match="as many modules.*Received: "):
        load(keras.Sequential([block, keras.layers.Dense(3)]), original.state)
    wrong = {**original.state, "mab.fc_o.bias": np.zeros(5)}
    before = [ops.convert_to_numpy(w).copy() for w in block.weights]
    with pytest.raises(ValueError, match=r"mab.fc_o.bias.*\(6,\).*Received: \(5,\)"):
        load(block, wrong)
    for weight, value in zip(block.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    with pytest.raises(ValueError, match="class LayerNormalization"):
        load(keras.Sequential([keras.layers.LayerNormalization()]), original.state)
