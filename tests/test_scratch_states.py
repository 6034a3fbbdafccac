"""Chunks whose hidden states wait in files: the same outputs, one iteration a pass."""

import os

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import models
from keras_sets.models.scratch_states import ScratchStates
from tests.chunk_cases import assert_close
from tests.chunk_cases import cut
from tests.chunk_cases import sets

FEATURES = 3


def network(**arguments):
    """Two swarms, with another pooling between them."""
    entities = keras.Input((None, FEATURES), name="entities")
    mask = keras.Input((None,), dtype="bool", name="mask")
    weights = keras.Input((None,), name="weights")
    context = {"mask": mask, "weights": weights}
    x = layers.Swarm(5, hidden_units=4, iterations=3, **arguments)(entities, **context)
    x = layers.PermutationEquivariantDense(4, pooling="max")(x, **context)
    x = layers.Swarm(2, hidden_units=4, iterations=4, pooling="logsumexp")(x, **context)
    return keras.Model({"entities": entities, "mask": mask, "weights": weights}, x)


@pytest.fixture
def steps(monkeypatch):
    """Counts the iterations that reach their end."""
    counted = []
    update = layers.SwarmCell.update

    def counting(cell, *arguments):
        counted.append(cell)
        return update(cell, *arguments)

    monkeypatch.setattr(layers.SwarmCell, "update", counting)
    return counted


@pytest.mark.parametrize(
    "arguments",
    [{}, {"context": "static"}, {"pooling": "causal_mean"}, {"dtype": "mixed_bfloat16"}],
    ids=str,
)
def test_equals_the_whole(arguments, tmp_path):
    model = network(**arguments)
    arrays = sets(features=FEATURES)
    whole = model(dict(zip(("entities", "mask", "weights"), arrays, strict=True)))
    parts = models.predict_in_chunks(model, cut(arrays), scratch_dir=tmp_path)
    # Chunks round half precision otherwise.
    tolerance = 2e-2 if "dtype" in arguments else 3e-6
    whole = ops.convert_to_numpy(whole)
    assert_close(np.concatenate(list(parts), axis=1), whole, tolerance)
    del parts
    assert list(tmp_path.iterdir()) == []


def test_double_precision(tmp_path):
    layer = layers.Swarm(2, hidden_units=4, iterations=3, dtype="float64")
    x = np.nan_to_num(sets(features=FEATURES)[0]).astype("float64")
    whole, first = (
        np.concatenate(list(models.predict_in_chunks(layer, cut((x,)), scratch_dir=folder)), axis=1)
        for folder in (None, tmp_path)
    )
    assert whole.dtype == first.dtype
    np.testing.assert_allclose(first, whole, rtol=0, atol=1e-14 * np.abs(whole).max())


def test_every_iteration_is_computed_once(steps, tmp_path):
    model, chunks = network(), cut(sets(features=FEATURES))
    steps.clear()
    list(models.predict_in_chunks(model, chunks, scratch_dir=tmp_path))
    assert len(steps) == (3 + 4) * len(chunks)
    steps.clear()
    list(models.predict_in_chunks(model, chunks))
    # Passes end in iteration 1 and 2 of the first swarm, after it, and in those of the second.
    assert len(steps) == (1 + 2 + 3 + 3 + 1 + 3 + 2 + 3 + 3 + 3 + 4) * len(chunks)


def test_one_output_a_set(tmp_path):
    model = models.swarm(FEATURES, 2, hidden_units=4, iterations=3, output_pooling="mean")
    x, mask, _ = sets(features=FEATURES)
    whole = ops.convert_to_numpy(model({"entities": x, "mask": mask}))
    received = models.predict_in_chunks(model, cut((x, mask)), scratch_dir=tmp_path)
    assert_close(received, whole)
    assert list(tmp_path.iterdir()) == []


def test_states_of_every_iteration(tmp_path):
    """They are all needed, and computed anew."""
    layer = layers.Swarm(2, hidden_units=4, iterations=3, return_iterations="outputs")
    x = np.nan_to_num(sets(features=FEATURES)[0])
    whole = ops.convert_to_numpy(layer(x))
    parts = models.predict_in_chunks(layer, cut((x,)), scratch_dir=tmp_path)
    assert_close(np.concatenate(list(parts), axis=2), whole)


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_bad_folder(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder that exists and can be written"):
        models.predict_in_chunks(network(), [], scratch_dir=tmp_path / name)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(ScratchStates, "_path", lambda self, key: "/dev/full")
    x = np.ones((1, 4, FEATURES), "float32")
    with pytest.raises(OSError, match="No space left on device"):
        list(models.predict_in_chunks(network(), [x], scratch_dir=tmp_path))
