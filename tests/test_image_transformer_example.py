"""The example of the image transformer: its data, its scores, its command."""

import contextlib
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special
from sklearn.datasets import load_digits

from examples.common import image_sets
from examples.common import optimizers
from examples.common.image_sources import SOURCES
from examples.image_transformer import __main__ as command
from examples.image_transformer import data
from examples.image_transformer import evaluate
from examples.image_transformer import idx
from examples.image_transformer import linear_attention
from examples.image_transformer import model as networks
from examples.image_transformer import references
from examples.image_transformer.names import REFERENCES
from keras_sets import metrics
from keras_sets import models
from keras_sets.ops import linear_attention as linear_attention_ops
from tests.conftest import shortened
from tests.image_cases import LEVELS
from tests.image_cases import SHAPE
from tests.image_cases import small
from tests.image_cases import some_images
from tests.image_cases import with_weights

pytestmark = pytest.mark.usefixtures("sketches")

IMAGE_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
WEIGHTS = pathlib.Path(models.__file__).parent / "weights"
FILES = (
    "comparison.png completions.png config.json learning_curves.png metrics.csv model.keras "
    "samples.png scores.json table.txt weight_traces.png"
).split()


def write_idx_files(folder, monkeypatch, damage=lambda files: None):
    """Twelve and five random images and labels as idx files, which count as the published ones."""
    rng = np.random.default_rng(0)
    shapes = dict(zip(idx.FILES, [(12, 28, 28), (12,), (5, 28, 28), (5,)], strict=True))
    files = {
        name: bytearray(
            bytes([0, 0, 8, len(shape)])
            + np.array(shape, ">u4").tobytes()
            + rng.integers(0, 10, shape).astype("uint8").tobytes()
        )
        for name, shape in shapes.items()
    }
    checksums = tuple(hashlib.sha256(content).hexdigest() for content in files.values())
    monkeypatch.setattr(idx, "FILES", shapes)
    monkeypatch.setitem(idx.CHECKSUMS, "mnist", checksums)
    damage(files)
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


class TestData:
    def test_digits(self, folder):
        loaded = image_sets.load("digits", folder)
        parts = loaded.training, loaded.validation, loaded.test
        assert [len(images) for images, _ in parts] == [1294, 143, 360]
        assert (loaded.shape, loaded.levels, loaded.classes) == ((8, 8, 1), 17, 10)
        # Every digit once.
        digits = load_digits()
        expected = [(*x.ravel(), y) for x, y in zip(digits.images, digits.target, strict=True)]
        received = [
            (*x.ravel(), y) for images, labels in parts for x, y in zip(images, labels, strict=True)
        ]
        assert sorted(map(tuple, received)) == sorted(map(tuple, expected))
        assert [len(p[0]) for p in (image_sets.load("digits", folder, 20).training,)] == [18]

    def test_distorted_images(self):
        images = np.zeros((400, 16, 16, 2), "uint8")
        images[:, 4:12, 6:10] = [9, 3]
        changed = data.distorted(np.random.default_rng(0), images, 0.05, 17)
        assert changed.dtype == images.dtype and changed.max() < 17
        other = (changed != images).any(axis=(1, 2, 3))
        assert 0.4 < other.mean() < 0.6
        # Moved by 0.05 * 16 / 4 pixels, and as much of it there as before.
        place = np.arange(16)[:, None, None]
        rows = ((changed * place).sum(axis=(1, 2)) / changed.sum(axis=(1, 2)))[other, 0]
        assert abs(rows.mean() - 7.5) < 0.1 and 0.1 < rows.std() < 0.35
        mass = changed[other].sum(axis=(1, 2)) / images[other].sum(axis=(1, 2))
        assert np.abs(mass.mean(axis=0) - 1).max() < 0.05 < mass.std()
        none = data.distorted(np.random.default_rng(0), images, 0.0, 17)
        np.testing.assert_array_equal(none, images)

    def test_distortion_is_that_of_the_options(self, folder):
        """A search asks for the data of the options alone."""
        options = command.parse(["--data-dir", str(folder), "--distortion", "0.1"])
        (plain, _), (changed, _) = (data.training_data(options, d)[0][0] for d in (0.0, None))
        assert (plain != changed).any()

    @pytest.mark.parametrize("name", [name for name in SOURCES if name != "digits"])
    def test_the_others(self, name, tmp_path, monkeypatch):
        source = SOURCES[name]
        with mocked(name, monkeypatch) as examples:
            loaded = image_sets.load(name, tmp_path)
        original = np.stack([example["image"] for example in examples])
        expected = {
            None: original,
            "mean": np.rint(original.mean(axis=3, keepdims=True)),
            "center": original[:, 8:24, 8:24],
        }[source.change]
        np.testing.assert_array_equal(loaded.test[0], expected)
        assert loaded.levels == 256 and loaded.test[0].dtype == np.uint8
        assert loaded.classes == (100 if name == "cifar100" else 10)

    def test_idx_files(self, tmp_path, monkeypatch):
        """They become the data set that TensorFlow Datasets would have prepared from them."""
        pytest.importorskip("tensorflow_datasets")
        pytest.importorskip("tensorflow")
        mnist = pytest.importorskip("tensorflow_datasets.image_classification.mnist")
        monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 12)
        monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 5)
        contents = write_idx_files(tmp_path / "files", monkeypatch)
        data_dir = tmp_path / "data"
        arguments = ["--data-set", "mnist", "--data-dir", data_dir]
        call("--prepare-from", tmp_path / "files", *arguments)
        loaded = image_sets.load("mnist", data_dir)
        expected = [np.frombuffer(contents[name][16:], "uint8") for name in IMAGE_FILES]
        received = [np.concatenate([loaded.training[0], loaded.validation[0]]), loaded.test[0]]
        for own, published in zip(received, expected, strict=True):
            published = published.reshape(-1, 28, 28, 1)
            assert sorted(map(bytes, own)) == sorted(map(bytes, published))
        labels = np.frombuffer(contents["t10k-labels-idx1-ubyte"][8:], "uint8")
        assert sorted(loaded.test[1]) == sorted(labels)

    @pytest.mark.parametrize(
        "damage, message",
        [
            (lambda files: files["train-images-idx3-ubyte"].pop(), "bytes, expected 9424"),
            (lambda files: files["train-labels-idx1-ubyte"].__setitem__(9, 3), "checksum differs"),
            (
                lambda files: files.update({"train-labels-idx1-ubyte": files[IMAGE_FILES[0]]}),
                "does not hold bytes in 1 axes",
            ),
            (
                lambda files: files.update({IMAGE_FILES[0]: files[IMAGE_FILES[1]]}),
                r"shape \(5, 28, 28\), expected \(12, 28, 28\)",
            ),
            (lambda files: files.pop("t10k-labels-idx1-ubyte"), "Neither .* is there"),
            (lambda files: files.update({IMAGE_FILES[1]: b""}), "in the idx format"),
        ],
    )
    def test_bad_idx_files(self, tmp_path, monkeypatch, damage, message):
        write_idx_files(tmp_path, monkeypatch, damage)
        with pytest.raises(image_sets.DataError, match=message):
            idx.read_published("mnist", tmp_path)
        with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
            file.write(b"idx")
        (tmp_path / "train-images-idx3-ubyte").unlink()
        path = tmp_path / "train-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(image_sets.DataError, match="gz cannot be read"):
            idx.read_published("mnist", tmp_path)

    def test_no_network(self, tmp_path, monkeypatch):
        pytest.importorskip("tensorflow_datasets")
        monkeypatch.setattr(image_sets, "reachable", lambda address: False)
        with pytest.raises(image_sets.DataError) as error:
            image_sets.load("mnist", tmp_path)
        assert "--data-dir" in str(error.value) and "--data-set digits" in str(error.value)

    def test_reachable(self):
        assert not image_sets.reachable("http://127.0.0.1:9")

    def test_bad_values(self):
        images, labels = some_images(), np.array([0, 1, 2])
        image_sets.check(images, labels, LEVELS, 3)
        with pytest.raises(image_sets.DataError, match="images with values from 0 to 5"):
            image_sets.check(images, labels, LEVELS - 1, 3)
        with pytest.raises(image_sets.DataError, match="labels with values from 0 to 1"):
            image_sets.check(images, labels, LEVELS, 2)
        with pytest.raises(image_sets.DataError, match="images as integers"):
            image_sets.check(images / 255.0, labels, LEVELS, 3)


class TestLinearAttention:
    def test_is_the_formula(self):
        rng = np.random.default_rng(0)
        query, key = rng.random((2, 2, 7, 3, 5)).astype("float32")
        value = rng.normal(size=(2, 7, 3, 4)).astype("float32")
        y = linear_attention_ops.causal_sums(
            *map(ops.convert_to_tensor, (query, key, value)), block=3
        )
        earlier = np.tril(np.ones((7, 7)))
        expected = np.einsum("bihf,bjhf,ij,bjhv->bihv", query, key, earlier, value)
        np.testing.assert_allclose(ops.convert_to_numpy(y), expected, rtol=1e-4, atol=1e-4)

    def test_sums_of_many_places_in_half_precision(self):
        """They are rounded to 16 bits once, and not at every step."""
        rng = np.random.default_rng(0)
        given = rng.integers(1, 9, (3, 1, 2000, 1, 1)).astype("float32")  # exact in 16 bits
        query, key, value = (ops.cast(x, "bfloat16") for x in given)
        y = linear_attention_ops.causal_sums(query, key, value)
        y = ops.convert_to_numpy(ops.cast(y, "float32")).ravel()
        query, key, value = given.reshape(3, -1)
        # Of a block, of those before, what they add, what the own block adds, and both.
        np.testing.assert_allclose(y, query * np.cumsum(key * value), rtol=5 * 2**-9)
        block = linear_attention.LinearAttentionBlock(heads=1, dtype="mixed_bfloat16")
        block.build((None, 2, 4))
        (state,) = block.streaming_cell().get_initial_state(1)
        assert keras.backend.standardize_dtype(state.dtype) == "float32"

    def test_drawn_place_by_place(self):
        """The likeliest next value, by the recurrent form, is that of the whole network."""
        loaded = image_sets.Images(LEVELS, 2, None, None, (some_images(), None))
        options = command.parse(["--conditional"])
        network = references.build("linear-attention", options, loaded, 4_000)
        images, labels = some_images(8), np.arange(8) % 2
        logits = network.predict_on_batch({"images": images, "labels": labels})
        likeliest, given = (x.reshape(8, -1) for x in (logits.argmax(axis=-1), images))
        next_ones = []
        for count in (3, 14, 23):
            drawn = models.generate(network, 8, labels, top_k=1, prefix=given[:, :count])
            next_ones += drawn.reshape(8, -1)[:, count].tolist()
            assert next_ones[-8:] == likeliest[:, count].tolist()
        assert len(set(next_ones)) > 2


class TestEvaluate:
    def test_bits_of_a_network(self):
        model = with_weights(small(num_classes=3))
        images, labels = some_images(5), np.array([0, 1, 2, 0, 1])
        bits = evaluate.network_bits(model, images, labels, True, batch_size=2)
        logits = model.predict_on_batch({"images": images, "labels": labels}).astype("float64")
        log_p = special.log_softmax(logits, axis=-1).reshape(5, -1, LEVELS)
        for b, image in enumerate(images):
            expected = -np.mean([log_p[b, t, v] for t, v in enumerate(image.ravel())]) / np.log(2)
            np.testing.assert_allclose(bits[b], expected, rtol=1e-5)
        metric = metrics.BitsPerDimension()
        for batch in (slice(3), slice(3, 5)):
            metric.update_state(images[batch], ops.convert_to_tensor(logits[batch]))
        np.testing.assert_allclose(float(metric.result()), bits.mean(), rtol=1e-5)
        metric = metrics.BitsPerDimension.from_config({**metric.get_config(), "from_logits": False})
        metric.update_state(images, special.softmax(logits, axis=-1))
        np.testing.assert_allclose(float(metric.result()), bits.mean(), rtol=1e-4)

    def test_a_network_that_knows_nothing(self):
        model = small()
        model.set_weights([0 * w for w in model.get_weights()])
        bits = evaluate.network_bits(model, some_images(), np.zeros(3, int), False)
        np.testing.assert_allclose(bits, np.log2(LEVELS), rtol=1e-6)

    @pytest.mark.parametrize("classes", [None, 2])
    def test_histogram(self, classes):
        seen, labels = some_images(6), np.array([0, 1, 0, 1, 1, 1])
        image, label = some_images(1, seed=9), np.array([1])
        bits = evaluate.histogram_bits((seen, labels), image, label, LEVELS, classes, 0.5)
        rows = seen if classes is None else seen[labels == 1]
        expected = [
            -np.log2(((rows[:, i, j, c] == image[0, i, j, c]).sum() + 0.5) / (len(rows) + 3.5))
            for i, j, c in np.ndindex(SHAPE)
        ]
        np.testing.assert_allclose(bits, [np.mean(expected)])

    @pytest.mark.parametrize("name", REFERENCES)
    def test_references_are_causal_and_of_the_size(self, name, folder):
        loaded = image_sets.load("digits", folder, 20)
        options = command.parse(["--conditional", "--hidden", "32"])
        size = networks.build(options, loaded).count_params()
        network = references.build(name, options, loaded, size)
        # The width of attention is a multiple of its heads.
        assert 0.7 * size < network.count_params() <= size
        images, labels = (array[:1] for array in loaded.test)
        inputs = data.inputs_of(images, labels, True)
        before = network.predict_on_batch(inputs).reshape(64, 17)
        other = images.copy()
        other[0, 4, 4, 0] = (other[0, 4, 4, 0] + 1) % 17
        after = network.predict_on_batch(data.inputs_of(other, labels, True)).reshape(64, 17)
        changed = np.abs(after - before).max(axis=1)
        assert (changed[:37] == 0).all() and changed[37] > 0 and changed[63] > 0


def test_the_network_that_is_shipped(folder):
    loaded = image_sets.load("digits", folder)
    network = models.load_pretrained("digits")
    bits = evaluate.network_bits(network, *loaded.test, True)
    assert bits.mean() == pytest.approx(1.673, abs=0.001)
    # Below what every pixel and class has on its own, image by image.
    gain = evaluate.histogram(loaded, True) - bits
    assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))
    labels = np.repeat(np.arange(10), 20)
    drawn = models.generate(network, len(labels), labels=labels, seed=0), labels
    others = drawn[0], (labels + 1) % 10
    rates = evaluate.recognised(loaded, {"drawn": drawn, "others": others, "real": loaded.test})
    assert rates["drawn"] >= 0.8 and rates["real"] > 0.95 and rates["others"] < 0.2


@pytest.mark.usefixtures("on_one_backend")
def test_the_classifier_of_many_images(folder, monkeypatch):
    monkeypatch.setattr(evaluate, "MOST_FOR_A_VECTOR_MACHINE", 100)
    loaded = image_sets.load("digits", folder)
    images, labels = loaded.test
    sets = {"real": loaded.test, "others": (images, (labels + 1) % 10)}
    rates = evaluate.recognised(loaded, sets)
    assert rates["real"] > 0.8 and rates["others"] < 0.1


def test_the_network_of_mnist():
    """The first test image of each class, in bits per dimension, with its class and another."""
    with np.load(pathlib.Path(__file__).parent / "data" / "mnist_test_images.npz") as data:
        images, labels = data["images"], data["labels"]
    network = models.load_pretrained("mnist")
    bits = evaluate.network_bits(network, images, labels, True, batch_size=10)
    assert bits.mean() == pytest.approx(0.7242, abs=0.0005)
    others = evaluate.network_bits(network, images, (labels + 1) % 10, True, batch_size=10)
    assert (others > bits).mean() >= 0.9


@contextlib.contextmanager
def mocked(name, monkeypatch):
    """TensorFlow Datasets with a dozen random images in the place of a data set."""
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(image_sets, "reachable", lambda address: True)
    shape = (28, 28, 1) if "mnist" in name else (32, 32, 3)
    rng = np.random.default_rng(0)
    examples = [
        {"image": rng.integers(0, 256, shape, dtype="uint8"), "label": i % 10} for i in range(12)
    ]
    with tfds.testing.mock_data(as_data_source_fn=lambda *args, **kwargs: examples):
        yield examples


def call(*arguments):
    command.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weight_decay(optimizer):
    options = ["--optimizer", optimizer, "--learning-rate", "0.1", "--weight-decay", "0.5"]
    weight = keras.Variable(np.ones((3, 4)), dtype="float32")
    optimizers.make_optimizer(command.parse(options)).apply([ops.zeros((3, 4))], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), 0.95, rtol=1e-6)


class TestCommand:
    def test_conditional_and_then_samples(self, folder, tmp_path, capsys, thorough):
        output = tmp_path / "run"
        trained = list(REFERENCES) if thorough else ["convolution"]
        options = ["--conditional", "--dropout", "0.1", "--accumulate", 2, "--data-dir", folder]
        options += ["--embedding-dropout", "0.1", "--distortion", "0.05"]
        options += ["--neighborhood", 1]
        if thorough:  # draw after every epoch, in the middle of the training
            options += ["--plot-interval", 1e-6]
        few = shortened("--epochs 1 --columns 1 --recognition-samples 1")
        call("--smoke", *options, *few, "--output", output, "--references", *trained)
        assert set(FILES) <= {path.name for path in output.iterdir()}
        report = json.loads((output / "scores.json").read_text())
        assert report["kind"] == "conditional"
        assert [score["bits"] > 0 for score in report["scores"]] == [True] * (3 + len(trained))
        own, convolution, *_, uniform = report["scores"]
        assert uniform["bits"] == pytest.approx(np.log2(17)) and uniform["error"] < 1e-6
        assert uniform["excess"] == pytest.approx(uniform["bits"] - own["bits"])
        # Against a constant the differences vary as the bits themselves.
        assert uniform["excess_error"] == pytest.approx(own["error"])
        assert own["images"] == (72 if thorough else 36)
        assert convolution["drawing_milliseconds"] is None and own["drawing_milliseconds"] > 0
        assert 0 <= report["recognised"]["samples"] <= 1
        printed = capsys.readouterr().out
        methods = [REFERENCES[name] for name in trained]
        for line in ("digits, conditional", *methods, "histogram", "uniform"):
            assert line in printed
        if not thorough:  # `test_colors` draws from its file, in this process
            return
        assert report["scores"][2]["drawing_milliseconds"] > 0  # that of linear attention
        # In a process that has not loaded the layers for anything else.
        arguments = ["--columns", "2", "--output", tmp_path / "drawn", "--seed", "5"]
        module = [sys.executable, "-m", "examples.image_transformer"]
        subprocess.run([*module, "--sample", output / "model.keras", *arguments], check=True)
        with np.load(tmp_path / "drawn" / "samples.npz") as arrays:
            assert arrays["images"].shape == (20, 8, 8, 1)
            assert arrays["rows"].tolist() == np.repeat(np.arange(10), 2).tolist()
        assert (tmp_path / "drawn" / "samples.png").stat().st_size > 0

    @pytest.mark.usefixtures("on_one_backend")
    def test_unconditional_goes_on_where_it_stopped(self, folder, tmp_path, capsys):
        options = ["--smoke", "--data-dir", folder, "--schedule", "constant", "--output"]
        options = ["--steps", 2, "--references", "convolution", *options]
        call(*options, tmp_path / "whole")
        call(*options, tmp_path / "parts", "--epochs", 1)
        call(*options, tmp_path / "parts", "--resume", "--epochs", 2)
        scores = [
            json.loads((tmp_path / name / "scores.json").read_text()) for name in ("whole", "parts")
        ]
        for report in scores:
            for score in report["scores"]:  # never twice the same
                del score["epoch_seconds"], score["drawing_milliseconds"]
        assert scores[0] == scores[1] and scores[0]["kind"] == "unconditional"
        assert "digits, unconditional" in capsys.readouterr().out

    @pytest.mark.usefixtures("no_rendering")
    @pytest.mark.usefixtures("on_one_backend")
    def test_images_seen_when_the_time_is_over(self, folder, tmp_path):
        output = tmp_path / "run"
        options = ["--smoke", "--data-dir", folder, "--output", output, "--references"]
        options += ["--schedule", "constant", "--time-budget", 1e-9]
        call(*options)
        # A batch of three.
        assert json.loads((output / "scores.json").read_text())["scores"][0]["images"] == 12
        call(*options, "--resume")
        assert json.loads((output / "scores.json").read_text())["scores"][0]["images"] == 12

    @pytest.mark.usefixtures("no_rendering")
    def test_colors(self, tmp_path, monkeypatch):
        """Three channels, classes and learned locations: trained, and drawn from a file."""
        output, drawn = tmp_path / "run", tmp_path / "drawn"
        options = ["--conditional", "--learned-locations", "--data-dir", tmp_path / "data"]
        options += ["--recognition-samples", 1, "--columns", 1, "--references"]
        with mocked("small", monkeypatch):
            call("--smoke", "--epochs", 1, *options, "--data-set", "small", "--output", output)
        own, _, uniform = json.loads((output / "scores.json").read_text())["scores"]
        assert uniform["bits"] == pytest.approx(8) and own["bits"] < 12
        with zipfile.ZipFile(output / "model.keras") as file:  # loads where only keras_sets is
            assert b"examples" not in file.read("config.json")
        call("--sample", output / "model.keras", "--columns", 1, "--output", drawn)
        with np.load(drawn / "samples.npz") as arrays:
            assert arrays["images"].shape == (10, 16, 16, 3)
            assert arrays["rows"].tolist() == list(range(10))

    def test_name(self, folder, capsys):
        name = "digits-12x2-3-conditional-learned-neighborhood2"
        call("--dry-run", "--name", name, "--data-dir", folder)
        assert f"{name}: " in capsys.readouterr().out
        options = command.parse(["--name", name])
        assert command.run_name(options) == name

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--data-set", "imagenet"], "choose from"),
            (["--hidden", "6"], "multiple of 4"),
            (["--accumulate", "5"], "not a multiple of 5"),
            (["--name", "imagenet-8x1-2"], "one of digits, mnist"),
            (["--name", "digits-8x1-2", "--layers", "2"], "--layers is given as well. Received: 2"),
            (["--prepare-from", "."], "expected --data-set mnist or fashion_mnist"),
            (["--prepare-from", "none", "--data-set", "mnist"], "Neither none/train-images"),
            (["--neighborhood", "-1"], "expected a non-negative integer"),
            (["--temperature", "0"], "expected a positive number"),
            (["--sample", "none.keras"], "none.keras cannot be used"),
            (["--sample", WEIGHTS / "clustering_2d.keras"], "holds no image transformer"),
        ],
    )
    def test_bad_input(self, folder, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--data-dir", folder, "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_no_network(self, tmp_path, capsys, monkeypatch):
        pytest.importorskip("tensorflow_datasets")
        monkeypatch.setattr(image_sets, "reachable", lambda address: False)
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--data-set", "mnist", "--data-dir", tmp_path)
        assert error.value.code == 2
        message = capsys.readouterr().err
        assert "--data-dir" in message and "--data-set digits" in message
        assert list(pathlib.Path(tmp_path).iterdir()) == []
