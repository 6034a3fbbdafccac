"""What the tests of the laws share: rows of the registry, comparisons, and checks of one law."""

import functools
import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import testing
from keras_sets.testing.gradients import Function
from tests.cases import CASES
from tests.cases import POOLINGS

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
slow_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if case.slow], ids=lambda case: case.name
)
# Appending entities makes no sense where there are exactly so many places.
any_size_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if case.group is None], ids=lambda case: case.name
)
MANY = 100_000


def outputs_of(case, layer, x, mask=None, weights=None):
    return _function(case, layer)(x, mask, weights, None).outputs


@functools.lru_cache(maxsize=1)  # of the same shapes is compiled once
def _function(case, layer):
    return Function(case.function(layer), training=None, gradients=False)


def answers(model, inputs):
    """The outputs of a model as a list of arrays, in the way that takes the backend least.

    TensorFlow makes a graph of what it compiles, which takes longer than its operations; JAX
    compiles every operation apart that it has not met.
    """
    if keras.config.backend() == "tensorflow":
        outputs = model(keras.tree.map_structure(ops.convert_to_tensor, inputs), training=False)
    else:
        outputs = model.predict_on_batch(inputs)
    return [ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def assert_close(received, expected, tolerance=2e-5):
    for new, old in zip(received, expected, strict=True):
        assert new.shape == old.shape
        assert np.isfinite(new).all()
        scale = np.abs(old).max(initial=0.0) or 1.0
        assert np.abs(new - old).max(initial=0.0) / scale <= tolerance


def functional(case, layer=None, masked=True, weighted=True):
    """A model with inputs of any size: x, and a mask and weights."""
    layer = layer or case.make()
    sizes = (None,) * len(case.entities)
    inputs = [keras.Input((*sizes, *case.elements, 3), name="x")]
    given = {}
    if masked:
        inputs.append(keras.Input(sizes, dtype="bool", name="mask"))
        given["mask"] = inputs[-1]
    if weighted:
        inputs.append(keras.Input(sizes, name="weights"))
        given["weights"] = inputs[-1]
    return keras.Model(inputs, layer(inputs[0], **given))


def padding_of(case):
    return 2 if case.group is None else 0


def assert_empty_is_finite(layer, x, first, zero, gradients=True, **given):
    outputs, towards_x, towards_weights = testing.outputs_and_gradients(
        layer, x, gradients=gradients, **given
    )
    for array in (*outputs, *([towards_x] if gradients else []), *towards_weights):
        assert np.isfinite(array).all(), "not finite for a set without entities"
    assert not gradients or not towards_x[first].any()
    for output in outputs:
        if zero or output.shape[1:-1] == x.shape[1:-1]:
            assert not output[first].any(), "not 0 for a set without entities"


def assert_any_size(case, layer, sizes=(1, 2)):
    """Every size gives what the same entities give as a masked part of a larger set."""
    x, _, _ = case.inputs(batch=2)
    parts = [(slice(None), *(slice(size) for _ in case.entities)) for size in sizes]
    masks = np.zeros((len(sizes), 2, *case.entities), bool)
    for mask, part in zip(masks, parts, strict=True):
        mask[part] = True
    # One call for all, because each call is compiled.
    larger = outputs_of(case, layer, np.concatenate([x] * len(sizes)), np.concatenate(masks))
    for index, part in enumerate(parts):
        reference = [output[2 * index : 2 * index + 2] for output in larger]
        if case.symmetry != "invariant":
            reference = [output[part] for output in reference]
        assert_close(outputs_of(case, layer, x[part]), reference)


def rounded_to_bfloat16(x):
    """To the nearest number with 8 significant bits."""
    mantissa, exponent = np.frexp(np.asarray(x, "float64"))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def assert_exact_mean(layer, x, **given):
    outputs, _, _ = testing.outputs_and_gradients(layer, x, gradients=False, **given)
    expected = rounded_to_bfloat16(x).mean(axis=1)
    last = outputs[0][:, -1] if outputs[0].ndim == 3 else outputs[0]
    assert np.abs(last / expected - 1).max() <= 2.0**-8, "rounded in the reduction"


def raises_before_building(case, match, *args, **kwargs):
    layer = case.make()
    with pytest.raises(ValueError, match=match):
        layer(*args, **kwargs)
    assert not layer.built and not layer.weights or case in POOLINGS


def assert_config_names_every_argument(of):
    """One that is left out is left out of both configurations of a round trip."""
    arguments = set(inspect.signature(type(of)).parameters) - {"kwargs"}
    if isinstance(of, keras.losses.Loss):
        arguments.discard("dtype")  # nor do losses of Keras keep it
    if getattr(of, "symmetry", None) == "causal":
        arguments.discard("keepdims")
    assert arguments <= set(of.get_config())


def assert_config_round_trip(layer):
    assert_config_names_every_argument(layer)
    text = json.dumps(keras.saving.serialize_keras_object(layer), sort_keys=True)
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(layer)
    assert json.dumps(keras.saving.serialize_keras_object(again), sort_keys=True) == text
    by_class = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert by_class.get_config() == layer.get_config()
    return again
