"""Exported models answer like the Keras model where there is no Keras."""

import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_sets
from keras_sets import ops as set_ops
from keras_sets.export import __main__ as command
from keras_sets.export import export_model
from keras_sets.export import formats
from keras_sets.ops.quantiles import set_quantile
from tests.export_cases import BACKEND
from tests.export_cases import BY_CONVERTERS
from tests.export_cases import MODELS
from tests.export_cases import TOLERANCE
from tests.export_cases import check
from tests.export_cases import clustering
from tests.export_cases import only_from
from tests.export_cases import power_spectrum
from tests.export_cases import questions
from tests.export_cases import slots

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
@pytest.mark.parametrize("name", ["blocks", "clustering", "image", "maximum", "slots"])
def test_torch(name, rng, tmp_path):
    import torch

    model = slots() if name == "slots" else BY_CONVERTERS[name]()
    path = export_model(model, tmp_path / "served", format="torch")
    module = torch.export.load(path).module()
    batches = questions(rng, model)
    answers = [module({k: torch.from_numpy(x) for k, x in batch.items()}) for batch in batches]
    check(model, batches, [answer.detach().numpy() for answer in answers])


@only_from("torch")
def test_torch_without_a_mask():
    """The size is a symbol in torch's graphs, of which nobody knows that it is not 0."""
    import torch

    class Pooled(torch.nn.Module):
        def forward(self, x):
            return set_ops.set_mean(x), set_ops.set_max(x), set_quantile(x, [0.4])

    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("n")}
    program = torch.export.export(Pooled(), (torch.ones((2, 3, 1)),), dynamic_shapes=(sizes,))
    pooled = program.module()
    for x, wanted in (([[1.0], [3.0]], (2, 3, 1)), (np.zeros((0, 1)), (0, 0, 0))):
        x = torch.tensor(np.array([x, x]), dtype=torch.float32)
        assert [y.tolist() for y in pooled(x)] == [[[value]] * 2 for value in wanted]


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


def test_edges(format, tmp_path):
    """Two axes of one size, which the model alone knows to be the same."""
    graph = keras_sets.layers.GraphEquivariantDense(1, input_order=2, output_order=1)
    model = keras.Sequential([keras.Input((None, None, 2), name="edges"), graph])
    path = export_model(model, tmp_path / "served", format=format)
    specs = formats._input_specs(model.inputs[0], ["batch", "n1", "n1", None])
    answer = formats.FORMATS[format].runtime(str(path), specs)
    edges = np.random.default_rng(0).normal(size=(3, 7, 7, 2)).astype("float32")
    np.testing.assert_allclose(answer(edges)[0], formats._predict(model, edges), atol=TOLERANCE)


@only_from("tensorflow")
def test_onnx_of_sorted_sets(tmp_path):
    model = keras.Sequential([keras.Input((None, 2)), keras_sets.layers.QuantilePooling([0.3, 1])])
    path = export_model(model, tmp_path / "served", format="onnx")
    answer = formats.FORMATS["onnx"].runtime(path, formats._input_specs(model.inputs[0], "bnd"))
    x = np.random.default_rng(0).normal(size=(4, 7, 2)).astype("float32")
    np.testing.assert_allclose(answer(x)[0], formats._predict(model, x), atol=TOLERANCE)


def test_sizes_that_may_differ_stay_free():
    images = keras.Input((None, None, None, 1), name="images")
    model = keras.Model(images, keras_sets.layers.DSSConv2D(1, 3)(images))
    assert formats._symbols(model, model.input) == ["batch", "n1", "n2", "n3", "n4"]


@pytest.fixture
def written(monkeypatch):
    """Exports write a file alone."""

    def write(model, path, **kwargs):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(os.path.join(path, "file") if os.path.isdir(path) else path, "w") as file:
            file.write("all")

    monkeypatch.setattr(keras.Model, "export", write)
    monkeypatch.setattr(formats, "_check_answers", lambda *arguments: None)


@pytest.mark.parametrize("exists", [False, True])
def test_output(exists, format, tmp_path, written):
    """In a folder that is there or not, as readable as any other."""
    output = tmp_path / "new" / "served"
    if exists:
        output.mkdir(parents=True)
    path = export_model(clustering(), output, format=format)
    assert path.exists() and path in (output, output / "model.pt2")
    assert [p.name for p in output.parent.iterdir()] == ["served"]
    assert output.stat().st_mode == output.parent.stat().st_mode


def test_a_folder_that_is_there_stays(format, tmp_path, written, monkeypatch):
    """It may be the current one, a link, or one that is mounted."""
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    monkeypatch.chdir(folder)
    before = folder.stat().st_ino
    for output in (".", link):
        export_model(clustering(), output, format=format)
        (file,) = os.listdir(".")
        assert folder.stat().st_ino == before and link.is_symlink()
        os.remove(file)


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
