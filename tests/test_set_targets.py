"""Datasets of sets whose targets are those of several outputs."""

import pickle

import keras
import numpy as np
import pytest

import keras_sets
from keras_sets.utils import SetDataset

SIZES = (5, 2, 7, 1)
SETS = [np.random.default_rng(i).normal(size=(n, 2)) for i, n in enumerate(SIZES)]
TARGETS = {"each": [points[:, :1] for points in SETS], "all": np.arange(4.0)}
OPTIONS = {"batch_size": 4, "shuffle": False}


def two_outputs():
    inputs = {
        "entities": keras.Input((None, 2), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    x = keras_sets.layers.PermutationEquivariantDense(3)(inputs["entities"], mask=inputs["mask"])
    pooled = keras_sets.layers.MeanPooling()(x)
    each, all_ = keras.layers.Dense(1, name="each")(x), keras.layers.Dense(1, name="all")(pooled)
    return keras.Model(inputs, {"each": each, "all": all_})


@pytest.mark.parametrize("weighting", [None, "sets", "one output", "entities"])
def test_losses_of_several_outputs(weighting):
    per_set = np.array([1.0, 2.0, 0.0, 3.0])
    given, of_entities, of_sets = {
        None: (None, np.ones(4), np.ones(4)),
        "sets": (per_set, per_set, per_set),
        "one output": ({"all": per_set}, np.ones(4), per_set),
        "entities": ({"each": [np.arange(n) for n in SIZES]}, np.arange(7), np.ones(4)),
    }[weighting]
    model = two_outputs()
    model.compile(keras.optimizers.SGD(0.0), {"each": "mse", "all": "mse"})
    dataset = pickle.loads(pickle.dumps(SetDataset(SETS, TARGETS, None, given, **OPTIONS)))
    inputs, targets, _ = dataset[0]
    mask, predicted = inputs["mask"], model.predict_on_batch(inputs)
    counts = of_entities if weighting == "entities" else of_entities[:, None]
    errors = np.square(predicted["each"] - targets["each"])[..., 0]
    each = (errors * counts)[mask].sum() / mask.sum()
    whole = np.mean(of_sets * np.square(predicted["all"][:, 0] - TARGETS["all"]))
    history = model.fit(dataset, shuffle=False, verbose=0)
    assert history.history["loss"][0] == pytest.approx(each + whole, rel=1e-4)


def test_weights_are_there_for_every_output_or_none():
    names = {"a": np.arange(4), "b": np.arange(4.0)}
    assert len(SetDataset(SETS, names, **OPTIONS)[0]) == 2
    _, targets, weights = SetDataset(SETS, names, None, {"b": [2, 1, 0, 1]}, **OPTIONS)[0]
    assert targets["a"].tolist() == [0, 1, 2, 3]
    assert {name: own.tolist() for name, own in weights.items()} == {
        "a": [1, 1, 1, 1],
        "b": [2, 1, 0, 1],
    }
    assert SetDataset(SETS, names).shuffle


def test_entities_of_weight_0_have_no_targets():
    weights = [np.arange(n) for n in SIZES]
    inputs, _, sample_weight = SetDataset(SETS, TARGETS, weights, **OPTIONS)[0]
    np.testing.assert_array_equal(sample_weight["each"], inputs["mask"] & (np.arange(7) > 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(targets={}), "`targets` must have those of one output at least"),
        (dict(targets={"a": [1, 2, 3]}), r"`targets\['a'\]` must be as long as `sets`, 4"),
        (dict(targets={"a": list("abcd")}), r"`targets\['a'\]` must hold numbers.*np.unique"),
        (dict(targets={"a": {"b": [1] * 4}}), r"`targets\['a'\]` must hold numbers.*dict"),
        (dict(targets={"a": [[1]] * 4}), r"`targets\['a'\]` must hold one row for every entity"),
        (dict(sample_weight={"c": [1] * 4}), r"keys that `targets` has, \['each', 'all'\].*'c'"),
        (dict(sample_weight=TARGETS["each"]), "a dict with some of the keys.*an array for every"),
        (
            dict(sample_weight={"all": [np.ones(n) for n in SIZES]}),
            r"`sample_weight\['all'\]` must be a number for every set.*`targets\['all'\]` are",
        ),
        (dict(sample_weight={"all": [-1] * 4}), r"`sample_weight\['all'\]` >= 0"),
        (dict(targets=[1] * 4, sample_weight={"a": [1] * 4}), r"a dict where `targets` is one"),
    ],
)
def test_bad_targets(arguments, message):
    with pytest.raises(ValueError, match=message):
        SetDataset(**{"sets": SETS, "targets": TARGETS, **arguments})
