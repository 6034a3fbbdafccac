"""What cannot be exported is refused, and leaves nothing behind."""

import dataclasses
import importlib.util
import zipfile

import keras
import numpy as np
import pytest

import keras_sets
from keras_sets.export import __main__ as command
from keras_sets.export import export_model
from keras_sets.export import formats
from keras_sets.export import writers
from tests.export_cases import BACKEND
from tests.export_cases import clustering
from tests.export_cases import image
from tests.export_cases import only_from


@keras.saving.register_keras_serializable(package="tests")
class Cholesky(keras.layers.Layer):
    def call(self, x):
        return keras.ops.cholesky(keras.ops.swapaxes(x, 1, 2) @ x + keras.ops.eye(2))


@only_from("jax")
def test_what_tensorflow_cannot_serve_is_refused(tmp_path):
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, Cholesky()(inputs))
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow python -m keras_sets.export"):
        export_model(model, tmp_path / "served")
    assert not list(tmp_path.iterdir())


def test_what_does_not_answer_like_the_model_is_refused(format, tmp_path, monkeypatch):
    write = writers.write

    def write_another(model, *arguments):
        write(model, *arguments)
        bias = model.get_layer("swarm_0").trainable_weights[-1]
        bias.assign(bias + 0.5)

    monkeypatch.setattr(writers, "write", write_another)
    with pytest.raises(ValueError, match="does not answer like the model for a small.*Instead, "):
        export_model(clustering(), tmp_path / "served", format=format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", formats._SIZES)
def test_every_question_counts(name, format, tmp_path, monkeypatch):
    """A file that answers wrongly to one of them is refused for that one."""
    model = clustering()
    batch, set_size, present = formats._SIZES[name]
    if BACKEND == "jax" and 0 in (batch, set_size):
        pytest.skip("the symbols of JAX are at least 1")
    shares = {"all": 1.0, "one": 0.2, "none": 0.0}

    def answer(inputs):
        y = np.asarray(model.predict_on_batch(inputs))
        if y.shape[:2] == (batch, set_size):
            mean = inputs["mask"].mean() if inputs["mask"].size else 1.0
            if mean == shares.get(present) or (present == "some" and mean not in shares.values()):
                return [y[..., :1]]
        return [y]

    fake = dataclasses.replace(formats.FORMATS[format], runtime=lambda path, specs: answer)
    monkeypatch.setitem(formats.FORMATS, format, fake)
    monkeypatch.setattr(writers, "write", lambda *arguments: None)
    with pytest.raises(ValueError, match=f"does not answer like the model for {name}"):
        export_model(model, tmp_path / "served", format=format)


@pytest.mark.parametrize("format", [f for f in formats.FORMATS if BACKEND not in
                                    formats.FORMATS[f].needs])  # fmt: skip
def test_refused_formats(format, tmp_path):
    with pytest.raises(ValueError, match=f"from the backend {BACKEND}") as refusal:
        export_model(clustering(), tmp_path / "served", format=format)
    backend = next(iter(formats.FORMATS[format].needs))
    way = f"KERAS_BACKEND={backend} python -m keras_sets.export model.keras --format {format} "
    assert way in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    format = "tf_saved_model" if BACKEND == "jax" else "onnx"
    package = formats.FORMATS[format].needs[BACKEND][0]
    with pytest.raises(ImportError, match=f"pip install {package}"):
        export_model(clustering(), tmp_path / "served", format=format)


@pytest.mark.parametrize("exists", [False, True])
def test_a_failure_leaves_nothing_behind(exists, format, tmp_path, monkeypatch):
    def fail(model, path, **kwargs):
        with open(f"{path}.part", "w") as file:
            file.write("half")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(keras.Model, "export", fail)
    output = tmp_path / "served"
    if exists:
        output.mkdir()
    with pytest.raises(ValueError, match="RuntimeError: the disk is full. Instead, save"):
        export_model(clustering(), output, format=format)
    assert list(tmp_path.rglob("*")) == [output] * exists


def write_text(path):
    path.write_text("no model")


def write_truncated(path):
    clustering().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.txt", "no model")


def write_nothing(path):
    pass


def write_damaged(path):
    """Complete as a zip file, but without the weights."""
    clustering().save(path)
    with zipfile.ZipFile(path) as file:
        config = file.read("config.json")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", config)


BAD_FILES = {
    "text": (write_text, "This is none, or it is truncated"),
    "truncated": (write_truncated, "This is none, or it is truncated"),
    "other_zip": (write_other_zip, "that Keras can load"),
    "no_weights": (write_damaged, "that Keras can load"),
    "missing": (write_nothing, "there is no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_model_files(name, format, tmp_path):
    write, message = BAD_FILES[name]
    path = tmp_path / "model.keras"
    write(path)
    with pytest.raises(ValueError, match=message) as refusal:
        export_model(path, tmp_path / "served", format=format)
    assert "`model`" in str(refusal.value) and str(path) in str(refusal.value)
    assert not (tmp_path / "served").exists()


def test_unknown_layers(format, tmp_path):
    """The message says how to make them known."""

    class Unknown(keras.layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((None, 2))
    keras.Model(inputs, Unknown()(inputs)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="--import MODULE.*Unknown"):
        export_model(tmp_path / "model.keras", tmp_path / "served", format=format)


def test_the_reason_is_what_the_layer_says(format, tmp_path, monkeypatch):
    """Not the words, colours and arguments that Keras puts around it."""

    def write(model, *arguments):
        model({"entities": np.ones((1, 2, 2)), "mask": np.ones((1, 3))})

    monkeypatch.setattr(writers, "write", write)
    with pytest.raises(ValueError, match=f"from {BACKEND}: ValueError: Layer 'swarm_0' exp"):
        export_model(clustering(), tmp_path / "served", format=format)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_bad_models(format, tmp_path):
    with pytest.raises(ValueError, match="`model`.*Received: int"):
        export_model(3, tmp_path / "served", format=format)
    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(3)])):
        with pytest.raises(ValueError, match="`model`.*functional model or a built Sequential"):
            export_model(model, tmp_path / "served", format=format)


def test_bad_arguments(format, tmp_path):
    model = clustering()
    with pytest.raises(ValueError, match="`format`, expected one of 'tf_saved_model', 'onnx', "):
        export_model(model, tmp_path / "served", format="pickle")
    for name in ("batch_size", "set_size"):
        with pytest.raises(ValueError, match=f"`{name}`, expected a positive integer"):
            export_model(model, tmp_path / "served", format=format, **{name: 0})
    with pytest.raises(ValueError, match=r"one axis of unknown size.*set_size=5 .*\(None, 3, 4, 1"):
        export_model(image(), tmp_path / "served", format=format, set_size=5)
    x = keras.Input(batch_shape=(4, None, 2))
    fixed = keras.Model(x, keras_sets.layers.MeanPooling()(x))
    with pytest.raises(ValueError, match=r"free batch size.* batch_size=2 .*\(4, None, 2\)"):
        export_model(fixed, tmp_path / "served", format=format, batch_size=2)
    assert not list(tmp_path.iterdir())


@only_from("tensorflow")
def test_litert_needs_sizes(tmp_path):
    for sizes, missing in (
        ({}, "`batch_size` and `set_size`"),
        ({"set_size": 5}, "`batch_size`"),
        ({"batch_size": 5}, "`set_size`"),
    ):
        with pytest.raises(ValueError, match=f"no free sizes, expected {missing} as well"):
            export_model(clustering(), tmp_path / "served", format="litert", **sizes)


@only_from("tensorflow", "torch")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_refused_where_it_is_not_served(policy, tmp_path):
    inputs = keras.Input((None, 2))
    layer = keras_sets.layers.PermutationEquivariantDense(3, dtype=policy)
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises(ValueError, match="in float32.*export it as tf_saved_model or torch"):
        export_model(model, tmp_path / "served", format="onnx")


def test_output_that_is_in_use(format, tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir()
    file.write_text("precious")
    for output in (folder, file, file / "served"):
        with pytest.raises(ValueError, match="`output`, expected a folder that does not exist or"):
            export_model(clustering(), output, format=format)
    assert file.read_text() == "precious" and list(folder.iterdir()) == [file]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format", "pickle"], "invalid choice: 'pickle'"),
        (["--batch-size", "0"], "`batch_size`, expected a positive integer"),
        (["--import", "no_such_module"], "No module named 'no_such_module'"),
        ([], "there is no such file"),
    ],
)
def test_bad_commands(arguments, message, format, tmp_path, capsys):
    if "--format" not in arguments:
        arguments = ["--format", format, *arguments]
    with pytest.raises(SystemExit, match="2"):
        command.main(["missing.keras", "--output", str(tmp_path / "served"), *arguments])
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())
