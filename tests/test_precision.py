"""Precision: sums over many entities, and dtype policies."""

import keras
import numpy as np
import pytest

from keras_sets import layers
from keras_sets import testing
from tests.laws import MANY
from tests.laws import assert_close
from tests.laws import assert_exact_mean
from tests.laws import every_case
from tests.laws import outputs_of
from tests.laws import padding_of
from tests.laws import rounded_to_bfloat16
from tests.laws import slow_cases

POLICIES = ("mixed_float16", "mixed_bfloat16")


@pytest.mark.parametrize("pooling", [layers.MeanPooling, layers.CausalMeanPooling])
@pytest.mark.parametrize("given", ["", "mask", "weights"])
def test_precision_of_many_entities(pooling, given):
    x = (1.0 + np.random.default_rng(0).random((1, MANY, 2))).astype("float32")
    kinds = {"": {}, "mask": np.ones((1, MANY), bool), "weights": np.full((1, MANY), 3.0)}
    given = {given: kinds[given]} if given else {}
    assert_exact_mean(pooling(dtype="mixed_bfloat16"), x, **given)


def test_precision_of_other_poolings():
    x = (1.0 + np.random.default_rng(0).random((1, MANY, 2))).astype("float32")
    exact = rounded_to_bfloat16(x)
    expected = {
        layers.SumPooling: exact.sum(axis=1),
        layers.LogSumExpPooling: np.log(np.exp(exact).sum(axis=1)),
        layers.MaxPooling: exact.max(axis=1),
    }
    for pooling, value in expected.items():
        layer = pooling(dtype="mixed_bfloat16")
        outputs, _, _ = testing.outputs_and_gradients(layer, x, gradients=False)
        assert np.abs(outputs[0] / value - 1).max() <= 2.0**-8


def test_precision_of_counts():
    """Weights above 256 are not rounded to bfloat16."""
    x = np.array([[[1.0], [0.0]]], "float32")
    layer = layers.SumPooling(dtype="mixed_bfloat16")
    weights = np.array([[257.0, 1.0]])
    outputs, _, _ = testing.outputs_and_gradients(layer, x, weights=weights, gradients=False)
    assert abs(outputs[0][0, 0] - 257) <= 1
    mean = layers.MeanPooling(dtype="mixed_bfloat16")
    outputs, _, _ = testing.outputs_and_gradients(
        mean, x, weights=np.array([[257.0, 257.0 * 255]]), gradients=False
    )
    assert outputs[0][0, 0] == 2.0**-8


@pytest.mark.parametrize("policy", POLICIES)
@slow_cases
def test_policies(case, policy, thorough):
    x, mask, weights = case.inputs()
    reference, layer = case.make(), case.make(dtype=policy)
    expected = outputs_of(case, reference, x, mask, weights)
    layer.build(x.shape)
    layer.set_weights(reference.get_weights())
    half = policy.removeprefix("mixed_")
    assert layer.compute_dtype == half
    received = layer.compute_output_spec(keras.KerasTensor(x.shape, "float32"))
    assert all(tensor.dtype == half for tensor in keras.tree.flatten(received))
    assert all(weight.dtype == "float32" for weight in layer.trainable_weights)
    tolerance = testing.TOLERANCES[half]
    assert_close(outputs_of(case, layer, x, mask, weights), expected, tolerance)
    if policy == "mixed_bfloat16":
        options = {"padding": padding_of(case), "gradients": thorough}
        testing.assert_padding_invariant(
            case.function(layer), x, mask, weights, case.training, **options
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_case
def test_weights_of_16_bits(case, dtype):
    """Initial values that no backend draws in 16 bits, such as orthogonal ones, are rounded."""
    layer = case.make(dtype=dtype)
    x, _, _ = case.inputs()
    layer.build(x.shape)
    assert layer.variable_dtype == dtype
    received = layer.compute_output_spec(keras.KerasTensor(x.shape, dtype))
    assert all(tensor.dtype == dtype for tensor in keras.tree.flatten(received))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_orthogonal_weights_of_16_bits(dtype):
    cell = layers.SwarmCell(8, recurrent_initializer=keras.initializers.Orthogonal(seed=0))
    rounded = layers.SwarmCell.from_config({**cell.get_config(), "dtype": dtype})
    kernels = []
    for one in (cell, rounded):
        one.build((None, 5, 3))
        kernels.append(keras.ops.convert_to_numpy(keras.ops.cast(one.recurrent_kernel, "float32")))
    np.testing.assert_allclose(kernels[0] @ kernels[0].T, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(kernels[1], kernels[0], rtol=2.0**-8)
