"""The original SwarmLayer: its weights, outputs and gradients."""

import numpy as np
import pytest
from keras import ops

import keras_sets
from keras_sets.convert import load_torch_swarm
from keras_sets.layers import PoolingMaps
from keras_sets.layers import Swarm
from tests.parity import double_precision
from tests.parity import gradients
from tests.parity import load_arrays
from tests.parity import torch_weights

CASES = {
    "swarm_mean": "mean",
    "swarm_mean_masked": "mean",
    "swarm_mean_2d": "mean",
    "swarm_one_iteration": "mean",
    "swarm_causal": "causal",
    "swarm_causal_2d": "causal",
    "swarm_pooling_maps": PoolingMaps(4),
    "swarm_pooling_maps_masked": "pooling_maps",
}


def make_layer(arrays, pooling, dtype="float64", **kwargs):
    units, twice_hidden = arrays["w:ffwd.weight"].shape[:2]
    iterations = int(arrays["iterations"])
    return Swarm(
        units, twice_hidden // 2, iterations=iterations, pooling=pooling, dtype=dtype, **kwargs
    )


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_original(name):
    arrays = load_arrays(name)
    pooling = CASES[name]
    if isinstance(pooling, PoolingMaps):
        pooling = PoolingMaps(pooling.num_maps, dtype="float64")
    with double_precision():
        layer = load_torch_swarm(make_layer(arrays, pooling), torch_weights(arrays))
        mask = arrays["mask"].astype(bool) if "mask" in arrays else None
        valid = np.ones(arrays["x"].shape[:-1], bool) if mask is None else mask
        cotangent = np.where(valid[..., None], arrays["cotangent"], 0)

        def loss(x):
            return ops.sum(layer(x, mask=mask) * ops.convert_to_tensor(cotangent))

        y = ops.convert_to_numpy(layer(arrays["x"], mask=mask))
        dx, dw = gradients(layer, arrays["x"], loss)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y[valid], arrays["y"][valid], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dx, arrays["grad_x"], rtol=1e-6, atol=1e-6)
    expected = {key[2:]: value for key, value in arrays.items() if key.startswith("g:")}
    for variable, grad in zip(layer.trainable_variables, dw, strict=True):
        name = {
            "cell/kernel": "cell.Wih.weight",
            "cell/recurrent_kernel": "cell.Whh.weight",
            "cell/pooled_kernel": "cell.Whp.weight",
            "cell/bias": "cell.Wih.bias",
            "projection/kernel": "ffwd.weight",
            "projection/bias": "ffwd.bias",
        }["/".join(variable.path.split("/")[-2:])]
        if name not in expected:  # no part in a single iteration
            assert not grad.any()
            continue
        wanted = expected[name]
        wanted = wanted.reshape(wanted.shape[:2]).T if wanted.ndim > 1 else wanted
        if name.startswith("cell"):
            i, f, o, g = np.split(wanted, 4, axis=-1)
            wanted = np.concatenate([i, f, g, o], axis=-1)
        np.testing.assert_allclose(grad, wanted, rtol=1e-6, atol=1e-6, err_msg=name)


def test_a_prefix_selects_one_layer_of_a_stack():
    arrays = load_arrays("swarm_mean")
    state = {f"cells.0.{name}": value for name, value in torch_weights(arrays).items()}
    state["cells.2.ffwd.bias"] = np.zeros(3)
    layer = make_layer(arrays, "mean", dtype="float32")
    assert keras_sets.convert.load_torch_swarm(layer, state, prefix="cells.0.") is layer
    wanted = arrays["w:ffwd.bias"].astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.projection.bias), wanted)


def test_errors_name_what_does_not_fit():
    arrays = load_arrays("swarm_mean")
    state = torch_weights(arrays)
    layer = make_layer(arrays, "mean", dtype="float32")
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
