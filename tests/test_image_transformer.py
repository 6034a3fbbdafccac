"""The image transformer: its law, the images it draws, its data, its command."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special
from scipy import stats
from sklearn.datasets import load_digits

from examples.common import optimizers
from examples.image_transformer import __main__ as command
from examples.image_transformer import data
from examples.image_transformer import evaluate
from examples.image_transformer import model as networks
from examples.image_transformer.names import SOURCES
from keras_sets import layers
from keras_sets import models
from keras_sets.models import image_transformer
from keras_sets.models.neighborhood_pooling import CausalNeighborhoodPooling

WEIGHTS = pathlib.Path(models.__file__).parent / "weights"
SHAPE = (3, 4, 2)
LEVELS = 7


def small(**arguments):
    arguments = {"hidden_units": 8, "iterations": 2, "levels": LEVELS, **arguments}
    return models.swarm_image_transformer(SHAPE, **arguments)


def with_weights(model, scale=0.7):
    """The model with the same weights on every backend."""
    rng = np.random.default_rng(5)
    model.set_weights([scale * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def some_images(count=3, seed=0):
    return np.random.default_rng(seed).integers(0, LEVELS, (count, *SHAPE)).astype("uint8")


class TestModel:
    @pytest.mark.parametrize(
        "hidden, shape, classes, parameters",
        [(256, (28, 28, 1), 10, 986880), (512, (32, 32, 3), 10, 3547904)],
    )
    def test_sizes_of_the_original(self, hidden, shape, classes, parameters):
        model = models.swarm_image_transformer(
            shape, classes, hidden_units=hidden, iterations=10 if hidden == 256 else 2
        )
        assert model.count_params() == parameters
        assert model.output_shape == (None, *shape, 256)

    @pytest.mark.parametrize("neighborhood", [0, 1, 2])
    def test_embedding(self, neighborhood):
        layer = image_transformer.ImageEmbedding(8, LEVELS, classes=5, neighborhood=neighborhood)
        images, labels = some_images(), np.array([4, 0, 2])
        x = ops.convert_to_numpy(layer(images, labels)).reshape(3, -1, 8)
        values, channels, classes = (
            ops.convert_to_numpy(w) for w in (layer.values, layer.channels, layer.labels)
        )
        locations = image_transformer.location_features(*SHAPE[:2], 8)
        for b, image in enumerate(images):
            for t, (row, column, channel) in enumerate(np.ndindex(SHAPE)):
                expected = locations[row, column] + channels[channel] + classes[labels[b]]
                if t > 0:
                    expected = expected + values[image.ravel()[t - 1]]
                for i, (rows, columns, channels_) in enumerate(NEIGHBORS[neighborhood]):
                    near = row + rows, column + columns, channel + channels_
                    if min(near) >= 0 and all(np.less(near, SHAPE)):
                        neighbors = ops.convert_to_numpy(layer.neighbors)
                        expected = expected + neighbors[i, image[near]]
                np.testing.assert_allclose(x[b, t], expected, atol=1e-5)

    def test_files_from_before_there_were_neighborhoods(self):
        config = image_transformer.ImageEmbedding(8, neighborhood=2).get_config()
        assert image_transformer.ImageEmbedding.from_config(config).neighborhood == 2
        del config["neighborhood"]
        assert image_transformer.ImageEmbedding.from_config(config).neighborhood == 0

    def test_a_neighborhood_adds_embeddings_and_pooled_states_only(self):
        weights = [
            {w.path: w.shape for w in small(neighborhood=radius).weights} for radius in (0, 2)
        ]
        (path,) = weights[1].keys() - weights[0].keys()
        # Twelve pixels and the other channel.
        assert weights[1].pop(path) == (2 * 2 * 3 + 1, LEVELS, 8)
        (path,) = (path for path in weights[0] if path.endswith("pooled_kernel"))
        assert weights[0].pop(path) == (8, 32)
        assert weights[1].pop(path) == (8 * (1 + 13), 32)
        assert weights[0] == weights[1]

    @pytest.mark.parametrize("neighborhood", [0, 2])
    @pytest.mark.parametrize("layers", [1, 2])
    def test_logits_depend_on_what_came_before_only(self, layers, neighborhood):
        model = small(layers=layers, neighborhood=neighborhood)
        images = some_images(1)
        before = model.predict_on_batch(images).reshape(-1, LEVELS)
        for t in (0, 9, 22):
            other = images.copy()
            other.reshape(-1)[t] = (other.reshape(-1)[t] + 1) % LEVELS
            change = np.abs(model.predict_on_batch(other).reshape(-1, LEVELS) - before).max(axis=1)
            assert (change[: t + 1] == 0).all() and change[t + 1] > 0
        assert change[-1] > 0

    def test_learned_locations(self):
        sizes = [small(learned_locations=learned).count_params() for learned in (False, True)]
        assert sizes[1] - sizes[0] == 8 * 3 * 4
        assert small(learned_locations=True, hidden_units=6).output_shape[-1] == LEVELS

    def test_dropped_features_are_those_of_all_places(self):
        model = small(embedding_dropout=0.5)
        kept = keras.Model(model.inputs, model.layers[2].output)
        x = ops.convert_to_numpy(kept(some_images(8), training=True)).reshape(8, -1, 8)
        dropped = (x == 0).all(axis=1)
        assert 0 < dropped.sum() < dropped.size and (dropped[0] != dropped[1]).any()
        whole = ops.convert_to_numpy(model.layers[1](some_images(8))).reshape(8, -1, 8)
        np.testing.assert_allclose(x, np.where(dropped[:, None], 0, 2 * whole), rtol=1e-6)
        predicted = [model.predict_on_batch(some_images()) for _ in range(2)]
        np.testing.assert_array_equal(*predicted)

    def test_half_precision_has_logits_in_float32(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = small(classes=2)
        finally:
            keras.config.set_dtype_policy("float32")
        logits = model({"images": some_images(), "labels": np.array([0, 1, 1])})
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        assert models.generate(model, 2, labels=1, seed=0).max() < LEVELS

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"image_shape": (28, 28)}, "expected \\(height, width, channels\\)"),
            ({"image_shape": (28, 0, 1)}, "`image_shape`, expected a positive integer"),
            ({"hidden_units": 6}, "`hidden_units`, expected a multiple of 4"),
            ({"classes": 0}, "`classes`, expected a positive integer"),
            ({"layers": 1.5}, "`layers`, expected a positive integer"),
            ({"levels": -1}, "`levels`, expected a positive integer"),
            ({"neighborhood": -1}, "`neighborhood`, expected a non-negative integer"),
            ({"neighborhood": 0.5}, "`neighborhood`, expected a non-negative integer"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            models.swarm_image_transformer(**{"image_shape": SHAPE, **arguments})

    def test_bad_inputs(self):
        model = small(classes=3)
        with pytest.raises(ValueError, match="`images` to be integers from 0 to 6"):
            model({"images": some_images() + 1, "labels": np.array([0, 1, 2])})
        with pytest.raises(ValueError, match="`labels` to be integers from 0 to 2"):
            model({"images": some_images(), "labels": np.array([0, 1, 3])})
        with pytest.raises(ValueError, match="shape"):
            small()(np.zeros((2, 4, 3, 2), "int32"))


def teacher_forced(model, images, labels=None):
    """The logits of the streaming path when the values are those of the images."""
    stream = image_transformer._Stream(model)
    embedding = stream.embedding
    same = 0.0 if labels is None else embedding.of_labels(labels)
    states, logits = stream.start(len(images)), []
    values, places = ops.convert_to_numpy(embedding.flat(images)), embedding.of_places()
    tables = embedding.tables()
    for t, sources in enumerate(embedding.sources):
        # As in the loop, where what comes later is not there yet.
        known = np.where(np.arange(values.shape[1]) < t, values, -1)
        known[:, -1] = values[:, -1]
        earlier = embedding.of_earlier(ops.convert_to_tensor(known), sources, tables)
        y, states = stream.logits(earlier + places[t] + same, states)
        logits.append(ops.convert_to_numpy(y))
    return np.stack(logits, axis=1)


class TestNeighborhoodPooling:
    def test_means_and_neighbors(self, rng):
        x = rng.normal(size=(2, 3, 4, 2, 3)).astype("float32")
        mask = rng.random((2, 3, 4, 2)) < 0.7
        pooling = CausalNeighborhoodPooling(1, channels=2)
        pooled = ops.convert_to_numpy(pooling(x, mask=mask))
        assert pooled.shape == tuple(pooling.compute_output_shape(x.shape)) == (2, 3, 4, 2, 18)
        mean = ops.convert_to_numpy(layers.CausalMeanPooling()(x, mask=mask))
        np.testing.assert_allclose(pooled[..., :3], mean, atol=1e-6)
        offsets = [(-1, -1, 0), (-1, 0, 0), (-1, 1, 0), (0, -1, 0), (0, 0, -1)]
        for place in np.ndindex(2, 3, 4, 2):
            expected = np.zeros((5, 3))
            for i, offset in enumerate(offsets):
                near = tuple(np.add(place[1:], offset))
                inside = min(near) >= 0 and all(np.less(near, x.shape[1:-1]))
                if inside and mask[place] and mask[(place[0], *near)]:
                    expected[i] = x[(place[0], *near)]
            np.testing.assert_allclose(pooled[place][3:], expected.ravel(), atol=1e-6)

    def test_no_chunks_and_no_other_grids(self):
        pooling = CausalNeighborhoodPooling(1)
        with pytest.raises(ValueError, match="a known height and width"):
            pooling(np.zeros((1, 5, 3), "float32"))
        with pytest.raises(ValueError, match="a known height and width"):
            CausalNeighborhoodPooling(1)(np.zeros((1, 2, 2, 3, 4), "float32"))
        with pytest.raises(ValueError, match="radius"):
            CausalNeighborhoodPooling(0)
        with pytest.raises(NotImplementedError, match="chunks"):
            pooling.init(1, 3)

    def test_streams_know_their_grid(self):
        swarm = layers.Swarm(4, pooling=CausalNeighborhoodPooling(1))
        with pytest.raises(ValueError, match="size of the grid"):
            swarm.streaming_cell()

    def test_configuration(self):
        swarm = layers.Swarm(4, pooling=CausalNeighborhoodPooling(2, channels=3))
        pooling = layers.Swarm.from_config(swarm.get_config()).pooling
        assert (pooling.radius, pooling.channels) == (2, 3)


class TestGenerate:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"layers": 2, "classes": 3},
            {"learned_locations": True, "activation": "elu"},
            {"neighborhood": 1},
            {"neighborhood": 1, "iterations": 1},
            {"neighborhood": 2, "layers": 2, "classes": 3, "embedding_dropout": 0.5},
        ],
    )
    def test_streaming_equals_the_whole(self, options):
        model = with_weights(small(**{"iterations": 3, **options}))
        images = some_images()
        labels = np.array([2, 0, 1]) if "classes" in options else None
        inputs = images if labels is None else {"images": images, "labels": labels}
        whole = model.predict_on_batch(inputs).reshape(3, -1, LEVELS)
        assert np.abs(teacher_forced(model, images, labels) - whole).max() < 1e-5

    @pytest.mark.parametrize("layers", [1, 2])
    def test_the_seed_decides_on_every_backend(self, layers, tmp_path):
        model = with_weights(small(layers=layers))
        images = models.generate(model, 2, seed=3)
        assert images.shape == (2, *SHAPE) and images.dtype == np.uint8
        # Written down once: weights and uniform numbers come from NumPy.
        assert images[0].reshape(-1).tolist() == EXPECTED[layers]
        np.testing.assert_array_equal(images, models.generate(model, 2, seed=3))
        assert (images != models.generate(model, 2, seed=4)).any()
        assert (models.generate(model, 9) != models.generate(model, 9)).any()
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(images, models.generate(again, 2, seed=3))

    def test_weights_as_they_are_at_the_call(self):
        model = with_weights(small())
        first = models.generate(model, 4, seed=0)
        with_weights(model, scale=-0.5)
        assert (first != models.generate(model, 4, seed=0)).any()

    def test_a_second_call_compiles_nothing(self, monkeypatch):
        model, traced = small(), []
        draw = image_transformer._Stream.draw
        monkeypatch.setattr(
            image_transformer._Stream, "draw", lambda *a: (traced.append(0), draw(*a))[1]
        )
        models.generate(model, 2, seed=0)
        first = len(traced)
        models.generate(model, 2, temperature=0.5, seed=1, prefix=some_images(2)[:, :1])
        # torch compiles nothing and draws in Python each time.
        steps = len(traced) - first
        assert steps == (24 if keras.backend.backend() == "torch" else 0)

    def test_values_follow_the_probabilities(self):
        model = with_weights(small(), scale=0.4)
        prefix = np.tile(some_images(1), (4000, 1, 1, 1)).reshape(4000, -1)
        logits = model.predict_on_batch(prefix[:1].reshape(1, *SHAPE)).reshape(-1, LEVELS)
        logits = logits.astype("float64")
        for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 3)):
            drawn = models.generate(
                model, 4000, temperature=temperature, top_k=top_k, seed=0, prefix=prefix[:, :23]
            ).reshape(4000, -1)
            np.testing.assert_array_equal(drawn[:, :23], prefix[:, :23])
            p = special.softmax(logits[23] / temperature)
            if top_k is not None:
                p = np.where(p >= np.sort(p)[-top_k], p, 0.0)
                p = p / p.sum()
            counts = np.bincount(drawn[:, 23], minlength=LEVELS)
            assert (counts[p == 0] == 0).all()
            assert stats.chisquare(counts[p > 0], 4000 * p[p > 0]).pvalue > 1e-3
            if temperature == 2.0:
                assert stats.chisquare(counts[p > 0], None).pvalue < 1e-3  # a test that can fail

    @pytest.mark.parametrize("neighborhood", [0, 2])
    def test_the_likeliest_values(self, neighborhood):
        # What the loop draws is what all places at once find likeliest.
        model = with_weights(small(classes=2, neighborhood=neighborhood), scale=0.3)
        images = models.generate(model, 3, labels=[0, 1, 1], top_k=1)
        logits = model.predict_on_batch({"images": images, "labels": np.array([0, 1, 1])})
        np.testing.assert_array_equal(logits.argmax(axis=-1), images)
        np.testing.assert_array_equal(images[1], images[2])
        assert (images[0] != images[1]).any()

    @pytest.mark.parametrize("neighborhood", [0, 1])
    def test_completion(self, neighborhood):
        model, halves = small(neighborhood=neighborhood), some_images(2)[:, :2]
        images = models.generate(model, 2, seed=0, prefix=halves)
        np.testing.assert_array_equal(images[:, :2], halves)
        flat = models.generate(model, 2, seed=0, prefix=halves.reshape(2, -1))
        np.testing.assert_array_equal(images, flat)
        whole = some_images(2)
        np.testing.assert_array_equal(models.generate(model, 2, prefix=whole), whole)
        # Given its own first rows, an image is drawn again.
        first = models.generate(model, 2, seed=3)
        again = models.generate(model, 2, seed=3, prefix=first[:, :1])
        np.testing.assert_array_equal(first, again)

    def test_memory_does_not_grow_with_the_image(self):
        sizes = []
        for shape in ((2, 2, 1), (28, 28, 3)):
            model = models.swarm_image_transformer(shape, hidden_units=8, iterations=3, layers=2)
            stream = image_transformer._Stream(model)
            sizes.append([tuple(state.shape) for state in stream.start(5)])
        assert sizes[0] == sizes[1]

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"batch": 0}, "`batch`, expected a positive integer"),
            ({"labels": None}, "Expected `labels`"),
            ({"labels": [0, 1, 2]}, "one integer or as many as images, 2"),
            ({"labels": [0.0, 1.0]}, "one integer or as many as images, 2"),
            ({"labels": 3}, "`labels` to be integers from 0 to 2"),
            ({"temperature": 0}, "`temperature`, expected a positive number"),
            ({"top_k": 0}, "`top_k`, expected a positive integer"),
            ({"prefix": np.zeros((2, 4, 4, 2), int)}, "(2, up to 3, 4, 2)"),
            ({"prefix": np.zeros((2, 25), int)}, "(2, up to 24)"),
            ({"prefix": np.zeros((3, 5), int)}, "(2, up to 24)"),
            ({"prefix": np.zeros((2, 5))}, "Expected `prefix` to hold integers"),
            ({"prefix": np.full((2, 5), 7)}, "`prefix` to be integers from 0 to 6"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError) as error:
            models.generate(small(classes=3), **{"batch": 2, "labels": 1, **arguments})
        assert message in str(error.value)

    def test_other_models(self):
        with pytest.raises(ValueError, match="has no classes"):
            models.generate(small(), 2, labels=[0, 1])
        with pytest.raises(ValueError, match="swarm_image_transformer` has made"):
            models.generate(models.deep_sets(2, 3), 2)


# Rows, columns and channels to the earlier neighbors, in order.
NEIGHBORS = {
    0: [],
    1: [(-1, -1, 0), (-1, 0, 0), (-1, 1, 0), (0, -1, 0), (0, 0, -1)],
    2: [
        *[(-2, column, 0) for column in range(-2, 3)],
        *[(-1, column, 0) for column in range(-2, 3)],
        *[(0, -2, 0), (0, -1, 0), (0, 0, -1)],
    ],
}
EXPECTED = {
    1: [5, 1, 5, 1, 4, 6, 4, 1, 1, 1, 2, 3, 6, 2, 2, 1, 5, 5, 1, 4, 5, 4, 5, 4],
    2: [5, 3, 5, 5, 3, 6, 6, 6, 0, 0, 3, 5, 5, 5, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5],
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where TensorFlow Datasets keeps the digits."""
    pytest.importorskip("tensorflow_datasets")
    path = tmp_path_factory.mktemp("data")
    data.load("digits", path)
    return path


class TestData:
    def test_digits(self, folder):
        loaded = data.load("digits", folder)
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
        assert [len(p[0]) for p in (data.load("digits", folder, 20).training,)] == [18]

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

    @pytest.mark.parametrize("name", [name for name in SOURCES if name != "digits"])
    def test_the_others(self, name, tmp_path, monkeypatch):
        tfds = pytest.importorskip("tensorflow_datasets")
        monkeypatch.setattr(data, "reachable", lambda address: True)
        source = SOURCES[name]
        shape = (28, 28, 1) if "mnist" in name else (32, 32, 3)
        rng = np.random.default_rng(0)
        examples = [
            {"image": rng.integers(0, 256, shape, dtype="uint8"), "label": i % 10}
            for i in range(12)
        ]
        with tfds.testing.mock_data(as_data_source_fn=lambda *args, **kwargs: examples):
            loaded = data.load(name, tmp_path)
        original = np.stack([example["image"] for example in examples])
        expected = {
            None: original,
            "mean": np.rint(original.mean(axis=3, keepdims=True)),
            "center": original[:, 8:24, 8:24],
        }[source.change]
        np.testing.assert_array_equal(loaded.test[0], expected)
        assert loaded.levels == 256 and loaded.test[0].dtype == np.uint8
        assert loaded.classes == (100 if name == "cifar100" else 10)

    def test_no_network(self, tmp_path, monkeypatch):
        pytest.importorskip("tensorflow_datasets")
        monkeypatch.setattr(data, "reachable", lambda address: False)
        with pytest.raises(data.DataError) as error:
            data.load("mnist", tmp_path)
        assert "--data-dir" in str(error.value) and "--data-set digits" in str(error.value)

    def test_reachable(self):
        assert not data.reachable("http://127.0.0.1:9")

    def test_bad_values(self):
        images, labels = some_images(), np.array([0, 1, 2])
        data.check(images, labels, LEVELS, 3)
        with pytest.raises(data.DataError, match="images with values from 0 to 5"):
            data.check(images, labels, LEVELS - 1, 3)
        with pytest.raises(data.DataError, match="labels with values from 0 to 1"):
            data.check(images, labels, LEVELS, 2)
        with pytest.raises(data.DataError, match="images as integers"):
            data.check(images / 255.0, labels, LEVELS, 3)


class TestEvaluate:
    def test_bits_of_a_network(self):
        model = with_weights(small(classes=3))
        images, labels = some_images(5), np.array([0, 1, 2, 0, 1])
        bits = evaluate.network_bits(model, images, labels, True, batch_size=2)
        logits = model.predict_on_batch({"images": images, "labels": labels}).astype("float64")
        log_p = special.log_softmax(logits, axis=-1).reshape(5, -1, LEVELS)
        for b, image in enumerate(images):
            expected = -np.mean([log_p[b, t, v] for t, v in enumerate(image.ravel())]) / np.log(2)
            np.testing.assert_allclose(bits[b], expected, rtol=1e-5)
        metric = networks.bits_per_dimension(images, ops.convert_to_tensor(logits))
        np.testing.assert_allclose(float(metric), bits.mean(), rtol=1e-5)

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

    def test_the_reference_is_causal_and_of_the_size(self, folder):
        loaded = data.load("digits", folder, 20)
        options = command.parse(["--conditional", "--hidden", "16"])
        size = networks.build(options, loaded).count_params()
        network = networks.build_convolution(options, loaded, size)
        assert 0.8 * size < network.count_params() <= size
        images, labels = (array[:1] for array in loaded.test)
        inputs = data.inputs_of(images, labels, True)
        before = network.predict_on_batch(inputs).reshape(64, 17)
        other = images.copy()
        other[0, 4, 4, 0] = (other[0, 4, 4, 0] + 1) % 17
        after = network.predict_on_batch(data.inputs_of(other, labels, True)).reshape(64, 17)
        changed = np.abs(after - before).max(axis=1)
        assert (changed[:37] == 0).all() and changed[37] > 0 and changed[63] > 0


def test_the_network_that_is_shipped(folder):
    loaded = data.load("digits", folder)
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


def call(*arguments):
    command.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weight_decay(optimizer):
    options = ["--optimizer", optimizer, "--learning-rate", "0.1", "--weight-decay", "0.5"]
    weight = keras.Variable(np.ones((3, 4)), dtype="float32")
    optimizers.make_optimizer(command.parse(options)).apply([ops.zeros((3, 4))], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), 0.95, rtol=1e-6)


FILES = (
    "completions.png config.json learning_curves.png metrics.csv model.keras samples.png "
    "scores.json table.txt weight_traces.png"
).split()


class TestCommand:
    def test_conditional_and_then_samples(self, folder, tmp_path, capsys):
        output = tmp_path / "run"
        options = ["--conditional", "--dropout", "0.1", "--accumulate", 2, "--data-dir", folder]
        options += ["--embedding-dropout", "0.1", "--distortion", "0.05"]
        options += ["--neighborhood", 1]
        # Draws after every epoch, in the middle of the training.
        call("--smoke", *options, "--output", output, "--plot-interval", 1e-6)
        assert set(FILES) <= {path.name for path in output.iterdir()}
        report = json.loads((output / "scores.json").read_text())
        assert report["kind"] == "conditional"
        assert [score["bits"] > 0 for score in report["scores"]] == [True] * 4
        own, *_, uniform = report["scores"]
        assert uniform["bits"] == pytest.approx(np.log2(17)) and uniform["error"] < 1e-6
        assert uniform["excess"] == pytest.approx(uniform["bits"] - own["bits"])
        # Against a constant the differences vary as the bits themselves.
        assert uniform["excess_error"] == pytest.approx(own["error"])
        assert 0 <= report["recognised"]["samples"] <= 1
        printed = capsys.readouterr().out
        for line in ("digits, conditional", "causal convolution", "histogram", "uniform"):
            assert line in printed
        # In a process that has not loaded the layers for anything else.
        arguments = ["--columns", "2", "--output", tmp_path / "drawn", "--seed", "5"]
        module = [sys.executable, "-m", "examples.image_transformer"]
        subprocess.run([*module, "--sample", output / "model.keras", *arguments], check=True)
        with np.load(tmp_path / "drawn" / "samples.npz") as arrays:
            assert arrays["images"].shape == (20, 8, 8, 1)
            assert arrays["rows"].tolist() == np.repeat(np.arange(10), 2).tolist()
        assert (tmp_path / "drawn" / "samples.png").stat().st_size > 0

    def test_unconditional_goes_on_where_it_stopped(self, folder, tmp_path, capsys):
        options = ["--smoke", "--data-dir", folder, "--schedule", "constant", "--output"]
        call(*options, tmp_path / "whole")
        call(*options, tmp_path / "parts", "--epochs", 1)
        call(*options, tmp_path / "parts", "--resume", "--epochs", 2)
        scores = [
            json.loads((tmp_path / name / "scores.json").read_text()) for name in ("whole", "parts")
        ]
        assert scores[0] == scores[1] and scores[0]["kind"] == "unconditional"
        assert "digits, unconditional" in capsys.readouterr().out

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
        monkeypatch.setattr(data, "reachable", lambda address: False)
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--data-set", "mnist", "--data-dir", tmp_path)
        assert error.value.code == 2
        message = capsys.readouterr().err
        assert "--data-dir" in message and "--data-set digits" in message
        assert list(pathlib.Path(tmp_path).iterdir()) == []
