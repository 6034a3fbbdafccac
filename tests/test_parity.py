"""Outputs and gradients against the original PyTorch implementation; see data/README.md."""

import keras
import numpy as np
import pytest

from keras_sets import convert
from keras_sets import layers
from keras_sets import losses
from keras_sets import models
from keras_sets import testing
from keras_sets.layers import image_embedding
from keras_sets.ops import matching
from tests.conftest import load_arrays

TOLERANCE = 1e-6

pytestmark = pytest.mark.usefixtures("float64")


def assert_parity(what, received, expected):
    assert received.shape == expected.shape, what
    error = np.abs(received - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE, f"{what}: relative error {error:.3g}"


def compare(layer, arrays, weights):
    """`weights` maps variables to a function of PyTorch's array of the same name or sum."""
    mask = arrays["mask"].astype(bool) if "mask" in arrays else None
    cotangent = arrays["cotangent"]
    real = np.ones(cotangent.shape[:-1], bool) if mask is None else mask
    cotangent = np.where(real[..., None], cotangent, 0.0)
    outputs, towards_x, towards_weights = testing.outputs_and_gradients(
        layer, arrays["x"], [cotangent], mask=mask
    )
    assert_parity("outputs", outputs[0][real], arrays["y"][real])
    assert_parity("gradient towards x", towards_x[real], arrays["grad_x"][real])
    assert not towards_x[~real].any()
    assert len(towards_weights) == len(weights)
    for variable, gradient in zip(layer.trainable_variables, towards_weights, strict=True):
        expected = weights[variable.path]
        if expected is None:
            assert not gradient.any(), variable.path
        else:
            assert_parity(f"gradient towards {variable.path}", gradient, expected)


def to_keras(array, gates=False):
    """`(out, in, 1...)` to `(in, out)`, gates i, f, o, g to i, f, g, o."""
    array = array.reshape(array.shape[:2]) if array.ndim > 1 else array
    if gates:
        i, f, o, g = np.split(array, 4, axis=0)
        array = np.concatenate([i, f, g, o], axis=0)
    return array.T


SWARMS = {
    "swarm_mean": "mean",
    "swarm_mean_masked": "mean",
    "swarm_mean_2d": "mean",
    "swarm_causal": "causal",
    "swarm_causal_2d": "causal",
    "swarm_one_iteration": "mean",
    "swarm_pooling_maps": 4,
    "swarm_pooling_maps_masked": "pooling_maps",
}


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("name", SWARMS)
def test_swarm(name, unroll):
    arrays = load_arrays(name)
    pooling = SWARMS[name]
    layer = layers.Swarm(
        units=arrays["y"].shape[-1],
        hidden_units=arrays["w:cell.Whh.weight"].shape[1],
        iterations=int(arrays["iterations"]),
        pooling=pooling if isinstance(pooling, str) else layers.PoolingMaps(pooling),
        unroll=unroll,
    )
    state = {key[2:]: value for key, value in arrays.items() if key.startswith("w:")}
    convert.load_torch_swarm(layer, state)
    variables = {
        "cell.Wih.weight": (layer.cell.kernel, True),
        "cell.Whh.weight": (layer.cell.recurrent_kernel, True),
        "cell.Whp.weight": (layer.cell.pooled_kernel, True),
        "cell.Wih.bias": (layer.cell.bias, True),
        "ffwd.weight": (layer.projection.kernel, False),
        "ffwd.bias": (layer.projection.bias, False),
    }
    gradients = {}
    for key, (variable, gates) in variables.items():
        gradient = arrays.get(f"g:{key}")
        gradients[variable.path] = None if gradient is None else to_keras(gradient, gates)
    compare(layer, arrays, gradients)


@pytest.mark.parametrize("name", ["set_linear_mean", "set_linear_mean_masked"])
def test_permutation_equivariant_dense(name):
    arrays = load_arrays(name)
    layer = layers.PermutationEquivariantDense(arrays["y"].shape[-1])
    layer.build(arrays["x"].shape)
    layer.kernel.assign(to_keras(arrays["w:ffwd1.weight"]))
    layer.pooled_kernel.assign(to_keras(arrays["w:ffwd2.weight"]))
    # The mean of x @ W + b is mean(x) @ W + b: the two biases are one.
    layer.bias.assign(arrays["w:ffwd1.bias"] + arrays["w:ffwd2.bias"])
    assert_parity("biases", arrays["g:ffwd1.bias"], arrays["g:ffwd2.bias"])
    compare(
        layer,
        arrays,
        {
            layer.kernel.path: to_keras(arrays["g:ffwd1.weight"]),
            layer.pooled_kernel.path: to_keras(arrays["g:ffwd2.weight"]),
            layer.bias.path: arrays["g:ffwd1.bias"],
        },
    )


class MaxAfterProjection(keras.layers.Layer):
    """`ffwd1(x) + max_j ffwd2(x_j)`: unlike a mean, a maximum does not commute with a matrix."""

    def __init__(self, units):
        super().__init__(autocast=False)
        self.supports_masking = True
        self.own = keras.layers.Dense(units, name="own")
        self.shared = keras.layers.Dense(units, name="shared")
        self.pooling = layers.MaxPooling(keepdims=True)

    def build(self, input_shape):
        self.own.build(input_shape)
        self.shared.build(input_shape)
        self.built = True

    def call(self, inputs, mask=None):
        return self.own(inputs) + self.pooling(self.shared(inputs), mask=mask)


@pytest.mark.parametrize("name", ["set_linear_max", "set_linear_max_masked"])
def test_maximum_after_projection(name):
    arrays = load_arrays(name)
    layer = MaxAfterProjection(arrays["y"].shape[-1])
    layer.build(arrays["x"].shape)
    expected = {}
    for dense, key in ((layer.own, "ffwd1"), (layer.shared, "ffwd2")):
        for variable, kind in ((dense.kernel, "weight"), (dense.bias, "bias")):
            variable.assign(to_keras(arrays[f"w:{key}.{kind}"]))
            expected[variable.path] = to_keras(arrays[f"g:{key}.{kind}"])
    compare(layer, arrays, expected)


@pytest.mark.parametrize("name", ["image_transformer", "image_transformer_gray"])
def test_image_transformer(name):
    """All features of the original's image transformer, one or two causal layers."""
    arrays = load_arrays(name)
    images, labels = arrays["images"], arrays["labels"]
    depths = [depth for depth in (0, 2) if f"w:cells.{depth}.ffwd.bias" in arrays]
    model = models.swarm_image_transformer(
        images.shape[1:],
        num_classes=len(arrays["w:cond_embedding.weight"]),
        num_layers=len(depths),
        hidden_units=arrays["w:cells.0.cell.Whh.weight"].shape[1],
        iterations=int(arrays["iterations"]),
    )
    embedding = model.get_layer("embedding")
    locations = image_embedding.location_features(*images.shape[1:3], embedding.units)
    assert_parity("locations", locations, np.moveaxis(arrays["w:location_features"], 0, -1))
    embedding.values.assign(arrays["w:input_embedding.weight"])
    embedding.labels.assign(arrays["w:cond_embedding.weight"])
    if "w:channel_embedding" in arrays:
        embedding.channels.assign(arrays["w:channel_embedding"].T)
    state = {key[2:]: value for key, value in arrays.items() if key.startswith("w:")}
    for index, depth in enumerate(depths):
        convert.load_torch_swarm(model.get_layer(f"swarm_{index}"), state, f"cells.{depth}.")

    logits = model({"images": images, "labels": labels})
    assert_parity("logits", keras.ops.convert_to_numpy(logits), arrays["logits"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(images, logits)
    assert_parity("loss", keras.ops.convert_to_numpy(loss), arrays["loss_nats"].reshape(()))


@pytest.mark.parametrize("algorithm", ["subsets", "shortest_paths"])
def test_matched_crossentropy(algorithm, monkeypatch):
    if algorithm == "shortest_paths":
        monkeypatch.setattr(matching, "SUBSET_LIMIT", 0)
    arrays = load_arrays("matched_cross_entropy")
    labels = np.where(arrays["mask"] > 0, arrays["labels"], -1).astype("int32")
    loss = losses.MatchedCrossentropy(reduction=None)

    def per_set(logits):
        return loss(labels, logits)

    per_set.built = True
    batch = len(labels)
    outputs, gradient, _ = testing.outputs_and_gradients(
        per_set, arrays["logits"], [np.full(batch, 1 / batch)]
    )
    assert_parity("loss", outputs[0], arrays["loss_per_set"])
    assert_parity("gradient", gradient, arrays["grad_logits"])
    mean = losses.MatchedCrossentropy()(labels, keras.ops.convert_to_tensor(arrays["logits"]))
    assert_parity("mean", np.array(float(mean)), arrays["loss_per_set"].mean())
