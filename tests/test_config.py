"""Round trips through a configuration; those through files are in `test_saving.py`."""

import keras
import pytest

from keras_sets import layers
from keras_sets import losses
from keras_sets import metrics
from tests.laws import assert_close
from tests.laws import assert_config_names_every_argument
from tests.laws import assert_config_round_trip
from tests.laws import every_case
from tests.laws import outputs_of


@every_case
def test_config(case):
    layer = case.make()
    layer(keras.KerasTensor(case.input_shape))
    again = assert_config_round_trip(layer)
    assert again.built
    again.set_weights(layer.get_weights())
    x, mask, weights = case.inputs()
    expected = outputs_of(case, layer, x, mask, weights)
    assert_close(outputs_of(case, again, x, mask, weights), expected)


@pytest.mark.parametrize(
    "name, options",
    [
        ("Chamfer", {}),
        ("EarthMover", {}),
        ("GaussianMixtureLoss", {"epsilon": 0.5}),
        ("MatchedCrossentropy", {"from_logits": False, "ignore_class": 7}),
        ("MatchedLoss", {"pairwise": "mae", "no_object_weight": 0.5}),
        ("SinkhornDivergence", {"epsilon": 0.5, "iterations": 7}),
        ("BitsPerDimension", {"from_logits": False}),
        *((name, {"ignore_class": None}) for name in metrics.__all__ if "Bits" not in name),
    ],
)
def test_losses_and_metrics(name, options):
    of = getattr(losses if hasattr(losses, name) else metrics, name)(**options, name="mine")
    assert_config_names_every_argument(of)
    again = type(of).from_config(of.get_config())
    for option in options:
        assert getattr(again, option) == getattr(of, option)


def test_config_keeps_every_option():
    options = {
        "kernel_initializer": keras.initializers.HeNormal(seed=3),
        "pooled_regularizer": keras.regularizers.L2(0.1),
        "bias_constraint": keras.constraints.NonNeg(),
        "dtype": "mixed_bfloat16",
        "name": "mine",
    }
    swarm = layers.Swarm(4, projection_regularizer="l1", seed=5, dropout=0.1, **options)
    dense = layers.PermutationEquivariantDense(
        4, activity_regularizer="l2", pooling=layers.MeanPooling(keepdims=True), **options
    )
    for layer in (swarm, dense, layers.SwarmCell(4, pooled_units=2, **options)):
        assert_config_round_trip(layer)
