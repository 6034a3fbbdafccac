"""Files on one backend; `tests/test_golden.py` has those of other processes and backends."""

import keras
import numpy as np
import pytest

from keras_sets import layers
from keras_sets import losses
from tests.cases import CASES
from tests.laws import answers
from tests.laws import every_case
from tests.laws import functional
from tests.laws import slow_cases


def assert_equal(received, expected, tolerance=1e-5):
    for new, old in zip(received, expected, strict=True):
        assert np.abs(new - old).max() <= tolerance * max(np.abs(old).max(), 1e-6)


def assert_file_round_trip(case, folder):
    model = functional(case)
    inputs = list(case.inputs())
    path = folder / f"{case.name}.keras"
    expected = answers(model, inputs)
    model.save(path)
    again = keras.saving.load_model(path)
    assert_equal(answers(again, inputs), expected)
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


@every_case
def test_keras_file(case, tmp_path):
    assert_file_round_trip(case, tmp_path)


@keras.saving.register_keras_serializable(package="tests")
class ForgetsItsPooling(layers.PermutationEquivariantDense):
    def get_config(self):
        return {**super().get_config(), "pooling": "sum"}


def test_keras_file_is_broken(tmp_path):
    dense = next(case for case in CASES if case.name == "dense_mean")
    broken = type(dense)("broken", lambda: ForgetsItsPooling(4), "equivariant")
    with pytest.raises(AssertionError):
        assert_file_round_trip(broken, tmp_path)


def test_training_goes_on_after_loading(tmp_path):
    """A compiled model comes back with its loss and its optimizer."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 2)).astype("float32")
    labels = rng.integers(0, 3, size=(4, 6))
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, layers.Swarm(3, iterations=2)(inputs))
    model.compile("adam", losses.MatchedCrossentropy())
    model.fit(x, labels, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for trained in (model, again):
        trained.fit(x, labels, batch_size=4, verbose=0)
    assert_equal(again.get_weights(), model.get_weights(), 1e-4)


@slow_cases
def test_saved_model(case, backend, tmp_path):
    """Any batch size and set size, with the mask as an input of its own."""
    if backend != "tensorflow":
        pytest.skip("SavedModels are exported under TensorFlow")
    import tensorflow as tf

    sizes = (None,) * len(case.entities)
    inputs = [keras.Input((*sizes, *case.elements, 3)), keras.Input(sizes, dtype="bool")]
    model = keras.Model(inputs, case.make()(inputs[0], mask=inputs[1]))
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(tmp_path / "model")
    others = (1, 7) if case.group is None else case.entities
    sets = [(2, case.entities), *zip((5, 1), ((n,) * len(sizes) for n in others), strict=False)]
    for batch, entities in sets:
        x, mask, _ = case.inputs(batch=batch, entities=entities)
        x[~mask] = np.nan
        received = served.serve([tf.constant(x), tf.constant(mask)])
        received = [tensor.numpy() for tensor in keras.tree.flatten(received)]
        assert_equal(received, answers(model, [x, mask]))
