"""Exported models answer like the Keras model where there is no Keras, or are refused."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_sets
from examples.power_spectrum.model import circle_network
from keras_sets.export import __main__ as command
from keras_sets.export import export_model
from keras_sets.export import formats
from keras_sets.export import writers

BACKEND = keras.config.backend()
# A batch as large as a set, one set, one entity; no model has seen any of them.
SIZES = [(1, 7), (5, 5), (3, 1), (2, 31), (4, 2)]
if BACKEND != "jax":  # its symbols for sizes are at least 1
    SIZES += [(2, 0), (0, 3)]
TOLERANCE = 1e-5


def only_from(*backends):
    reason = f"of {' and '.join(backends)}; test_refused_formats has what others refuse"
    return pytest.mark.skipif(BACKEND not in backends, reason=reason)


def clustering():
    return keras_sets.models.swarm(2, 3, hidden_units=8, iterations=2)


def power_spectrum():
    model = circle_network(1, 4, 3, weighted=True)
    # Powers of about one, as after training: exponentials of large numbers magnify rounding.
    output = model.get_layer("output")
    output.kernel.assign(0.1 * output.kernel)
    return model


def image():
    return keras_sets.models.swarm_image_transformer(
        (3, 4, 1), classes=5, hidden_units=8, iterations=2, levels=5
    )


def attention():
    return keras_sets.models.set_transformer(
        2, 3, 8, num_heads=2, num_inducing_points=None, feed_forward_layers=1, weighted=True
    )


def maximum():
    return keras_sets.models.deep_sets(2, 3, hidden_units=8, layers=2, pooling="max")


MODELS = {"clustering": clustering, "power_spectrum": power_spectrum, "image": image}
BY_CONVERTERS = {**MODELS, "attention": attention, "maximum": maximum}


def draw(rng, model, batch, set_size):
    def draw_one(x):
        shape = (batch, *(set_size if size is None else size for size in x.shape[1:]))
        if x.dtype == "bool":
            return rng.random(shape) < 0.7
        if x.dtype == "int32":
            return rng.integers(0, 5, shape).astype("int32")
        return np.abs(rng.normal(size=shape)).astype("float32")

    return {name: draw_one(x) for name, x in model.input.items()}


def questions(rng, model):
    """Inputs of all sizes; with a mask also other masked entities, then another mask."""
    batches = [draw(rng, model, *sizes) for sizes in SIZES]
    if "mask" in model.input:
        first = draw(rng, model, 2, 6)
        first["mask"][:] = np.arange(6) >= 2  # the first ones, for causal models, too
        entities = np.where(first["mask"][..., None], first["entities"], np.nan).astype("float32")
        empty = first["mask"] & ([[True], [False]])
        batches += [
            {**first, "mask": empty, "entities": entities},
            first,
            {**first, "entities": entities},
            {**first, "mask": np.ones_like(first["mask"])},
        ]
    return batches


def check(model, batches, answers, tolerance=TOLERANCE):
    expected = [formats._predict(model, batch) for batch in batches]
    for batch, answer, y in zip(batches, answers, expected, strict=True):
        shapes = {name: x.shape for name, x in batch.items()}
        np.testing.assert_allclose(answer, y, rtol=tolerance, atol=tolerance, err_msg=str(shapes))
    if "mask" in model.input and model.output.shape[1] is None:
        first, others_absent, all_present = answers[-3:]
        real = batches[-3]["mask"]
        np.testing.assert_allclose(others_absent[real], first[real], atol=TOLERANCE)
        assert np.abs(all_present[real] - first[real]).max() > 10 * TOLERANCE


SERVE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    # Finds all packages that are installed, but for these.

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "keras_sets", "tf_keras", "jax", "torch"):
            return None
        return super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
try:
    import keras
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("Keras is here")
import json, pathlib
import numpy as np
import tensorflow as tf

folder = pathlib.Path(sys.argv[1])
for name, batches in json.loads((folder / "batches.json").read_text()).items():
    served = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
    for i in range(batches):
        inputs = {key: tf.constant(x) for key, x in np.load(folder / f"{name}_{i}.npz").items()}
        (answer,) = served(**inputs).values()
        np.save(folder / f"{name}_{i}.npy", answer.numpy())
"""


@only_from("tensorflow", "jax")
def test_saved_models_in_a_process_without_keras(rng, tmp_path):
    asked = {}
    for name, build in MODELS.items():
        model = build()
        asked[name] = model, questions(rng, model)
        assert export_model(model, tmp_path / name) == tmp_path / name
        for i, batch in enumerate(asked[name][1]):
            np.savez(tmp_path / f"{name}_{i}.npz", **batch)
    counts = {name: len(batches) for name, (_, batches) in asked.items()}
    (tmp_path / "batches.json").write_text(json.dumps(counts))
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for name, (model, batches) in asked.items():
        check(model, batches, [np.load(tmp_path / f"{name}_{i}.npy") for i in range(len(batches))])


def serve_onnx(path, batches):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return [session.run(None, batch)[0] for batch in batches]


# torch makes a graph for each, which takes seconds: check_export.py has all models.
FROM_TORCH = ["attention", "maximum"]


@only_from("tensorflow", "torch")
@pytest.mark.parametrize("name", FROM_TORCH if BACKEND == "torch" else BY_CONVERTERS)
def test_onnx(name, rng, tmp_path):
    model = BY_CONVERTERS[name]()
    path = export_model(model, tmp_path / "served", format="onnx")
    batches = questions(rng, model)
    check(model, batches, serve_onnx(path, batches))


@only_from("torch")
@pytest.mark.parametrize("name", ["clustering", "image", "maximum"])
def test_torch(name, rng, tmp_path):
    import torch

    model = BY_CONVERTERS[name]()
    path = export_model(model, tmp_path / "served", format="torch")
    module = torch.export.load(path).module()
    batches = questions(rng, model)
    answers = [module({k: torch.from_numpy(x) for k, x in batch.items()}) for batch in batches]
    check(model, batches, [answer.detach().numpy() for answer in answers])


@only_from("tensorflow")
@pytest.mark.parametrize("name", ["clustering", "image"])
def test_litert_in_one_size(name, rng, tmp_path):
    import tensorflow as tf

    model = MODELS[name]()
    sizes = {"batch_size": 2} if name == "image" else {"batch_size": 2, "set_size": 6}
    path = export_model(model, tmp_path / "served", format="litert", **sizes)
    run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    batches = [batch for batch in questions(rng, model) if len(next(iter(batch.values()))) == 2]
    batches = [b for b in batches if name == "image" or b["entities"].shape[1] == 6]
    check(model, batches, [next(iter(run(**batch).values())) for batch in batches])


@only_from("tensorflow")
def test_fixed_sizes(tmp_path):
    import tensorflow as tf

    path = export_model(clustering(), tmp_path / "served", batch_size=2, set_size=6)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {
        "entities": (2, 6, 2),
        "mask": (2, 6),
    }


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
    share = {"all": 1.0, "none": 0.0}.get(present)

    def answer(inputs):
        y = np.asarray(model.predict_on_batch(inputs))
        if y.shape[:2] == (batch, set_size):
            mean = inputs["mask"].mean() if inputs["mask"].size else 1.0
            if mean == share or (share is None and 0 < mean < 1):
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


@pytest.fixture
def format():
    return "torch" if BACKEND == "torch" else "tf_saved_model"


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


@pytest.mark.parametrize("exists", [False, True])
def test_output(exists, format, tmp_path, monkeypatch):
    """In a folder that is there or not, as readable as any other."""

    def write(model, path, **kwargs):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(os.path.join(path, "file") if os.path.isdir(path) else path, "w") as file:
            file.write("all")

    monkeypatch.setattr(keras.Model, "export", write)
    monkeypatch.setattr(formats, "_check_answers", lambda *arguments: None)
    output = tmp_path / "new" / "served"
    if exists:
        output.mkdir(parents=True)
    path = export_model(clustering(), output, format=format)
    assert path.exists() and path in (output, output / "model.pt2")
    assert [p.name for p in output.parent.iterdir()] == ["served"]
    assert output.stat().st_mode == output.parent.stat().st_mode


def test_command(tmp_path, format, capsys):
    model = power_spectrum()
    model.save(tmp_path / "model.keras")
    output = tmp_path / "served"
    command.main(
        [
            str(tmp_path / "model.keras"),
            *("--format", format),
            *("--output", str(output)),
            *("--import", "examples.power_spectrum.model"),
        ]
    )
    path = output / formats.FORMATS[format].file
    assert capsys.readouterr().out.splitlines()[-1] == str(path) and path.exists()


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


def test_sets_filled_up_as_in_the_documentation(rng):
    text = (pathlib.Path(__file__).parent.parent / "docs" / "export.md").read_text()
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, flags=re.S) if "fill_up" in c]
    scope = {"np": np}
    exec(compile(code, "export.md", "exec"), scope)  # noqa: S102
    model = clustering()
    points = rng.normal(size=(70, 2)).astype("float32")
    filled = scope["fill_up"](points)
    assert filled["entities"].shape == (1, 128, 2) and filled["mask"].sum() == 70
    expected = model.predict_on_batch({"entities": points[None], "mask": np.ones((1, 70), bool)})
    received = model.predict_on_batch(filled)
    np.testing.assert_allclose(received[:, :70], expected, rtol=TOLERANCE, atol=TOLERANCE)
