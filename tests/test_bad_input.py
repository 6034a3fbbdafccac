"""Bad input: errors that name the argument, before any weight is made."""

import inspect

import keras
import numpy as np
import pytest

from keras_sets import groups
from keras_sets import layers
from keras_sets import losses
from keras_sets import metrics
from keras_sets import models
from keras_sets import testing
from keras_sets import utils
from tests.cases import CASES
from tests.conftest import once
from tests.laws import assert_close
from tests.laws import every_case
from tests.laws import outputs_of
from tests.laws import raises_before_building


@every_case
def test_bad_calls(case):
    x, mask, weights = case.inputs()
    rank_2 = np.ones((2, 3), "float32")
    raises_before_building(case, r"`inputs` of shape.*inputs\.shape=\(2, 3\)", rank_2)
    raises_before_building(case, r"`mask`.*mask\.shape=", x, mask=mask[:, :-1])
    raises_before_building(case, r"`mask`.*mask\.shape=", x, mask=mask[..., None])
    raises_before_building(case, r"`weights`.*weights\.shape=", x, weights=weights[:1])
    for wrong in (-1.0, np.nan, np.inf):
        bad = weights.copy()
        bad.reshape(-1)[0] = wrong
        raises_before_building(case, "finite `weights` >= 0", x, weights=bad)
    raises_before_building(case, "`inputs` as one array", list(x))
    raises_before_building(case, "real numbers.*dtype complex64", x.astype("complex64"))
    for name in ("inputs", "mask", "weights"):
        masked = {"inputs": x, "mask": mask, "weights": weights}
        masked[name] = np.ma.masked_array(masked[name], np.ones_like(masked[name]))
        raises_before_building(case, f"`{name}` must have no masked values", **masked)
    unknown = keras.KerasTensor((*x.shape[:-1], None))
    raises_before_building(case, "last axis", unknown)


def test_wrong_weights_of_masked_entities_do_no_harm():
    case = CASES[0]
    x, mask, weights = case.inputs()
    mask[0, 1] = False
    expected = outputs_of(case, case.make(), x, mask, weights)
    weights[0, 1] = np.nan
    assert_close(outputs_of(case, case.make(), x, mask, weights), expected)


@pytest.mark.parametrize("shape", [(1, 2), (1, 1, 2)])
def test_weights_that_vanish_in_float32(shape):
    """A set of them would be one without entities; beside a larger one they are nothing."""
    x, weights = np.ones((*shape, 1)), np.full(shape, 1e-50)
    for given in (weights, weights.tolist()):
        with pytest.raises(ValueError, match="`weights` that float32 can hold.*1 of 1 sets"):
            layers.MeanPooling()(x, weights=given)
    weights.reshape(-1)[0] = 1
    assert float(layers.SumPooling()(x, weights=weights)[0, 0]) == 1


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, "3", None, float("nan")])
@pytest.mark.parametrize(
    ("cls", "argument"),
    [
        (layers.PermutationEquivariantDense, "units"),
        (layers.Swarm, "units"),
        (layers.Swarm, "hidden_units"),
        (layers.Swarm, "iterations"),
        (layers.SwarmCell, "units"),
        (layers.SwarmCell, "pooled_units"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_bad_sizes(cls, argument, value):
    if value is None and argument in ("hidden_units", "pooled_units"):
        pytest.skip("None is the default")
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: {argument}="):
        cls(**{"units": 4, argument: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, True, "0.5", None, float("nan")])
def test_bad_dropout(value):
    with pytest.raises(ValueError, match="`dropout`.*Received: dropout="):
        layers.Swarm(4, dropout=value)


def test_bad_choices():
    with pytest.raises(ValueError, match="`pooling`.*'mean'.*'causal'.*pooling='mode'"):
        layers.PermutationEquivariantDense(4, pooling="mode")
    with pytest.raises(ValueError, match="`pooling`.*'mean'.*pooling=3"):
        layers.Swarm(4, pooling=3)
    with pytest.raises(ValueError, match="`pooling`.*'mean'"):
        layers.Swarm(4, pooling=layers.MeanPooling)
    with pytest.raises(ValueError, match="`context`.*'swarm', 'static', 'self'.*'all'"):
        layers.Swarm(4, context="all")
    with pytest.raises(ValueError, match="keepdims"):
        layers.CausalMeanPooling(keepdims=True)


# What functions and classes with boolean arguments need beside them.
NEEDED = {
    "units": 4,
    "filters": 4,
    "kernel_size": 3,
    "num_heads": 2,
    "num_inducing_points": 2,
    "num_slots": 2,
    "input_order": 1,
    "output_order": 1,
    "group": groups.cyclic(2),
    "q": [0.5],
    "poolings": ["mean", "max"],
    "features": 4,
    "image_shape": (2, 2, 1),
    "hidden_units": 4,
    "sets": [np.ones((2, 3))],
    "layer": layers.MeanPooling(),
    "inputs": np.ones((1, 2, 3)),
}


def boolean_arguments():
    for module in (layers, losses, metrics, models, testing, utils):
        for name in getattr(module, "__all__", vars(module)):
            for argument, parameter in signature(getattr(module, name)).items():
                if "bool" in str(parameter.annotation) and argument != "training":
                    yield pytest.param(module, name, argument, id=f"{name}-{argument}")


def signature(function):
    here = inspect.isroutine(function) or isinstance(function, type)
    return inspect.signature(function).parameters if here else {}


@once
@pytest.mark.parametrize(("module", "name", "argument"), boolean_arguments())
def test_text_is_no_boolean(module, name, argument):
    function = getattr(module, name)
    needed = {key: value for key, value in NEEDED.items() if key in signature(function)}
    for wrong in ("no", "False", 2, []):
        with pytest.raises(ValueError, match=f"`{argument}`.*Received: {argument}="):
            function(**{**needed, argument: wrong})


def test_numbers_and_numpy_for_booleans():
    for given in (True, np.True_, 1, np.int64(1)):
        layer = layers.Swarm(4, use_bias=given, remat=given, unroll=None)
        assert (layer.cell.use_bias, layer.remat, layer.unroll) == (True, True, None)
    for given in (False, np.False_, 0):
        assert layers.SetNormalization(center=given).center is False
