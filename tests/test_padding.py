"""Padding: masked entities change nothing, whatever they hold, also in training."""

import keras
import numpy as np
from keras import ops

from keras_sets import layers
from keras_sets import testing
from tests.laws import assert_close
from tests.laws import every_case
from tests.laws import padding_of
from tests.laws import slow_cases


@every_case
def test_padding(case, thorough):
    x, mask, weights = case.inputs()
    layer = case.function()
    options = {"training": case.training, "num_entity_axes": len(case.entities)}
    options["padding"] = padding_of(case)
    if case.slow and case.bare:
        testing.assert_padding_invariant(layer, x, gradients=thorough, **options)
    testing.assert_padding_invariant(layer, x, mask=mask, weights=weights, **options)


@slow_cases
def test_padding_in_fit(case, thorough):
    """Training steps with NaN in the padding are those without padding."""
    x, mask, weights = case.inputs(batch=4)
    padding = [(0, 0), *((0, padding_of(case)) for _ in case.entities)]
    padded_mask = inside = np.pad(mask, padding)
    features = x.ndim - mask.ndim
    padded_x = np.pad(x, [*padding, *[(0, 0)] * features])
    padded = padded_x, padded_mask, np.pad(weights, padding)
    if thorough:
        expected, expected_loss = trained(model_to_train(case, x.shape), x, mask, weights)
    model = model_to_train(case, padded_x.shape)
    if not thorough:  # the same with zeros in the padding, in steps that are compiled once
        expected, expected_loss = trained(model, *padded)
    fill = np.resize(np.array([np.nan, np.inf, -np.inf, 1e30], "float32"), padded_x.shape)
    inside = np.reshape(inside, (*inside.shape, *[1] * features))
    received, loss = trained(model, np.where(inside, padded_x, fill), *padded[1:])
    assert loss[0] != loss[1]
    assert_close(received, expected, 1e-4)
    assert np.allclose(loss, expected_loss, rtol=1e-4)


def model_to_train(case, shape):
    """A compiled model of the case's layer, always with the same weights."""
    keras.utils.set_random_seed(1)
    sizes = shape[1 : 1 + len(case.entities)]
    inputs = keras.Input(shape[1:])
    given = {"mask": keras.Input(sizes, dtype="bool"), "weights": keras.Input(sizes)}
    layer = case.make()
    layer.build((None, *inputs.shape[1:]))
    y = inputs
    if not layer.trainable_variables:
        # Something to train before a pooling.
        y = layers.PermutationEquivariantDense(3, activation="tanh")(y, **given)
    y = layer(y, **given)
    if case.symmetry != "invariant":
        if case.elements:
            y = keras.layers.Reshape((*sizes, -1))(y)
        # Not the sum itself, which is 0 for a layer that centres its outputs.
        y = layers.SumPooling()(keras.layers.Activation("softsign")(y), **given)
    model = keras.Model([inputs, *given.values()], y)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def trained(model, x, mask, weights):
    """Weights and losses of two steps from the model's own weights, which it has afterwards."""
    before = [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]
    target = np.zeros((len(x), *model.output_shape[1:]), "float32")
    # Steps compiled as those of `fit` are, without its loop.
    loss = [model.train_on_batch([x, mask, weights], target) for _ in range(2)]
    after = model.get_weights()
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    model.reset_metrics()
    return after, loss
