"""Weights of the original SwarmLayer; test_parity.py compares what it computes with them."""

import numpy as np
import pytest
from keras import ops

import keras_sets
from keras_sets.convert import load_torch_swarm
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
