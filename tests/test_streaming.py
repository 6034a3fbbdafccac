"""A causal Swarm as a stream equals the whole."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets.layers import CausalMeanPooling
from keras_sets.layers import Swarm
from keras_sets.layers import SwarmStreamingCell

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModel is written by TensorFlow"
)


def points(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def stream(swarm, x, mask=None, **kwargs):
    layer = keras.layers.RNN(swarm.streaming_cell(), return_sequences=True, **kwargs)
    return ops.convert_to_numpy(layer(x, mask=mask))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"iterations": 1},
        {"context": "static"},
        {"context": "self"},
        {"hidden_units": 7, "use_bias": False, "output_activation": "tanh"},
        {"pooling": "causal", "dropout": 0.3, "unroll": False},
    ],
)
def test_equals_the_layer(options):
    swarm = Swarm(4, **{"iterations": 3, "pooling": CausalMeanPooling(), **options})
    x = points(2, 6, 3)
    np.testing.assert_allclose(stream(swarm, x), ops.convert_to_numpy(swarm(x)), atol=2e-6)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_equals_the_layer_with_a_mask(n):
    """n = batch too: the mask of a step must not be taken for that of a set."""
    swarm = Swarm(4, iterations=3, pooling="causal_mean")
    x = points(3, n, 3)
    mask = np.random.default_rng(1).uniform(size=(3, n)) < 0.6
    wanted = ops.convert_to_numpy(swarm(x, mask=mask))
    np.testing.assert_allclose(stream(swarm, x, mask)[mask], wanted[mask], atol=2e-6)
    zeroed = stream(swarm, x, mask, zero_output_for_mask=True)
    np.testing.assert_allclose(zeroed, wanted, atol=2e-6)


def test_states_do_not_grow_and_continue_a_stream():
    swarm = Swarm(4, hidden_units=5, iterations=3, pooling="causal_mean")
    x = points(2, 8, 3)
    wanted = ops.convert_to_numpy(swarm(x))
    cell = swarm.streaming_cell()
    assert cell.state_size == [4, 10, 1]
    assert cell.output_size == 4
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    first, *states = layer(x[:, :5])
    second = layer(x[:, 5:], initial_state=states)[0]
    whole = np.concatenate([ops.convert_to_numpy(y) for y in (first, second)], axis=1)
    np.testing.assert_allclose(whole, wanted, atol=2e-6)
    state = cell.get_initial_state(2)
    for t in range(3):
        y, state = cell(x[:, t], state)
        assert [tuple(s.shape) for s in state] == [(2, 4), (2, 10), (2, 1)]
        np.testing.assert_allclose(ops.convert_to_numpy(y), wanted[:, t], atol=2e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_keeps_the_sums_in_float32(dtype):
    swarm = Swarm(4, iterations=2, pooling="causal_mean", dtype=dtype)
    cell = swarm.streaming_cell()
    y, state = cell(points(2, 3), cell.get_initial_state(2))
    assert {keras.backend.standardize_dtype(s.dtype) for s in state} == {"float32"}
    x = points(2, 5, 3)
    wanted = ops.convert_to_numpy(ops.cast(swarm(x), "float32"))
    np.testing.assert_allclose(stream(swarm, x), wanted, atol=3e-2)


def test_stacks():
    first = Swarm(4, iterations=2, pooling="causal_mean")
    second = Swarm(3, iterations=2, pooling="causal_mean")
    x = points(2, 5, 3)
    mask = np.array([[True, False, True, True, False], [False, True, True, False, True]])
    wanted = ops.convert_to_numpy(second(first(x, mask=mask), mask=mask))
    cells = [first.streaming_cell(), second.streaming_cell()]
    layer = keras.layers.RNN(keras.layers.StackedRNNCells(cells), return_sequences=True)
    y = ops.convert_to_numpy(layer(x, mask=mask))
    np.testing.assert_allclose(y[mask], wanted[mask], atol=2e-6)


def test_a_model_is_saved_with_and_without_the_layer(tmp_path):
    x = points(2, 5, 3)
    swarm = Swarm(4, iterations=2, pooling="causal_mean")
    inputs = keras.Input((None, 3))
    rnn = keras.layers.RNN(swarm.streaming_cell(), return_sequences=True)
    for outputs in (rnn(inputs), [swarm(inputs), rnn(inputs)]):
        model = keras.Model(inputs, outputs)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert len(again.weights) == len(model.weights) == len(swarm.weights)
        wanted, y = model.predict(x, verbose=0), again.predict(x, verbose=0)
        for a, b in zip(keras.tree.flatten(wanted), keras.tree.flatten(y), strict=True):
            np.testing.assert_array_equal(a, b)
    cell = SwarmStreamingCell.from_config(swarm.streaming_cell().get_config())
    assert cell.swarm.get_config() == swarm.get_config()


@on_tensorflow
def test_exports_as_a_saved_model(tmp_path):
    import tensorflow as tf

    swarm = Swarm(4, iterations=2, pooling="causal_mean")
    inputs = keras.Input((None, 3))
    rnn = keras.layers.RNN(swarm.streaming_cell(), return_sequences=True)
    model = keras.Model(inputs, rnn(inputs))
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    x = points(2, 5, 3)
    np.testing.assert_allclose(served.serve(x), ops.convert_to_numpy(swarm(x)), atol=2e-6)


def test_errors():
    with pytest.raises(ValueError, match="make the layer with pooling='causal_mean'"):
        Swarm(4).streaming_cell()
    cell = Swarm(4, pooling="causal_mean", dropout=0.1).streaming_cell()
    with pytest.raises(ValueError, match="does not apply dropout"):
        cell(points(2, 3), cell.get_initial_state(2), training=True)
