"""The image transformer: its law, and the images it draws."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special
from scipy import stats

from keras_sets import layers
from keras_sets import models
from keras_sets.layers import image_embedding
from keras_sets.layers.swarm_block import SwarmBlock
from keras_sets.models import image_stream
from keras_sets.ops import loops
from keras_sets.testing import outputs_and_gradients
from tests.image_cases import LEVELS
from tests.image_cases import SHAPE
from tests.image_cases import small
from tests.image_cases import some_images
from tests.image_cases import with_weights
from tests.laws import answers

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

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
    def test_gradients_of_an_embedding(self, policy, backend, monkeypatch):
        """Every place adds its gradient to the row of its value, on an accelerator too."""
        if backend == "jax":
            monkeypatch.setattr(loops, "jax_on_accelerator", lambda: True)
        layer = image_embedding.ImageEmbedding(8, LEVELS, dtype=policy)
        images = some_images()
        x = layer(images)
        # Sixteenths: no precision rounds them.
        cotangents = np.random.default_rng(0).integers(-16, 16, x.shape) / 16
        gradients = outputs_and_gradients(layer, images, [cotangents])[2]
        found = dict(zip((w.name for w in layer.trainable_weights), gradients, strict=True))
        expected = np.zeros((LEVELS, 8))
        for image, rows in zip(images, cotangents.reshape(3, -1, 8), strict=True):
            np.add.at(expected, image.ravel()[:-1], rows[1:])
        # In half precision processors round after every place, and accelerators once.
        half = 0.1 if backend == "jax" else 0.3
        tolerance = 1e-5 if policy == "float32" else half
        np.testing.assert_allclose(found["values"], expected, rtol=0, atol=tolerance)

    @pytest.mark.parametrize("neighborhood", [0, 1, 2])
    def test_embedding(self, neighborhood):
        layer = image_embedding.ImageEmbedding(8, LEVELS, classes=5, neighborhood=neighborhood)
        images, labels = some_images(), np.array([4, 0, 2])
        x = ops.convert_to_numpy(layer(images, labels)).reshape(3, -1, 8)
        values, channels, classes = (
            ops.convert_to_numpy(w) for w in (layer.values, layer.channels, layer.labels)
        )
        locations = image_embedding.location_features(*SHAPE[:2], 8)
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
        config = image_embedding.ImageEmbedding(8, neighborhood=2).get_config()
        assert image_embedding.ImageEmbedding.from_config(config).neighborhood == 2
        del config["neighborhood"]
        assert image_embedding.ImageEmbedding.from_config(config).neighborhood == 0

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

    @pytest.mark.parametrize(
        "layers, neighborhood, feed_forward",
        [(1, 0, None), (1, 2, None), (2, 0, None), (2, 2, None), (2, 1, 5)],
    )
    def test_logits_depend_on_what_came_before_only(self, layers, neighborhood, feed_forward):
        model = small(num_layers=layers, neighborhood=neighborhood, feed_forward_units=feed_forward)
        images = some_images(1)
        before = answers(model, images)[0].reshape(-1, LEVELS)
        for t in (0, 9, 22):
            other = images.copy()
            other.reshape(-1)[t] = (other.reshape(-1)[t] + 1) % LEVELS
            change = np.abs(answers(model, other)[0].reshape(-1, LEVELS) - before).max(axis=1)
            assert (change[: t + 1] == 0).all() and change[t + 1] > 0
        assert change[-1] > 0

    def test_blocks_are_their_formula(self, rng):
        swarm = layers.Swarm(4, hidden_units=3, iterations=2, pooling="causal_mean")
        block = SwarmBlock(swarm, 6, "tanh")
        x = rng.normal(size=(2, 5, 4)).astype("float32")
        received = ops.convert_to_numpy(block(x))
        for w in block.weights:
            w.assign(w + rng.normal(size=w.shape))
        before, received = received, ops.convert_to_numpy(block(x))
        assert np.abs(received - before).max() > 0.1
        scales = [ops.convert_to_numpy(w) for norm in block.norms for w in norm.weights]
        kernels = [ops.convert_to_numpy(w) for w in (*block.inner.weights, *block.outer.weights)]

        def norm(x, gamma, beta):
            x = x - x.mean(axis=-1, keepdims=True)
            return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-3) * gamma + beta

        h = x + ops.convert_to_numpy(swarm(norm(x, *scales[:2]).astype("float32")))
        inner = np.tanh(norm(h, *scales[2:]) @ kernels[0] + kernels[1])
        np.testing.assert_allclose(received, h + inner @ kernels[2] + kernels[3], atol=1e-4)

    def test_blocks_in_a_file(self, tmp_path):
        model = with_weights(small(num_layers=2, feed_forward_units=5, activation="elu"))
        model.get_layer("block_1").inner.trainable = False
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        for network in (model, loaded):
            block = network.get_layer("block_1")
            assert block.inner.units == 5 and block.inner.activation is keras.activations.elu
            assert not block.inner.trainable and block.outer.trainable
        images = some_images()
        np.testing.assert_array_equal(answers(loaded, images)[0], answers(model, images)[0])

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

    @pytest.mark.parametrize(
        "options", [{"embedding_dropout": 0.5}, {"feed_forward_units": 5, "num_heads": 2}]
    )
    def test_half_precision_has_logits_in_float32(self, options):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = small(num_classes=2, **options)
            # The uniform numbers are not rounded.
            drawn = models.generate(model, 50, labels=1, seed=0)
        finally:
            keras.config.set_dtype_policy("float32")
        logits = model({"images": some_images(), "labels": np.array([0, 1, 1])})
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        assert drawn.max() < LEVELS
        image_stream._STREAMS.clear()
        np.testing.assert_array_equal(drawn, models.generate(model, 50, labels=1, seed=0))

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"image_shape": (28, 28)}, "expected \\(height, width, channels\\)"),
            ({"image_shape": (28, 0, 1)}, "`image_shape`, expected a positive integer"),
            ({"hidden_units": 6}, "`hidden_units`, expected a multiple of 4"),
            ({"num_classes": 0}, "`num_classes`, expected a positive integer"),
            ({"num_layers": 1.5}, "`num_layers`, expected a positive integer"),
            ({"num_levels": -1}, "`num_levels`, expected a positive integer"),
            ({"neighborhood": -1}, "`neighborhood`, expected a non-negative integer"),
            ({"neighborhood": 0.5}, "`neighborhood`, expected a non-negative integer"),
            ({"feed_forward_units": 0}, "`feed_forward_units`, expected a positive integer"),
            ({"num_heads": 0}, "`num_heads`, expected a positive integer"),
            ({"num_heads": 3}, "multiple of `num_heads`. Received: hidden_units=256, num_heads=3"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            models.swarm_image_transformer(**{"image_shape": SHAPE, **arguments})

    def test_bad_inputs(self):
        model = small(num_classes=3)
        with pytest.raises(ValueError, match="`images` to be integers from 0 to 6"):
            model({"images": some_images() + 1, "labels": np.array([0, 1, 2])})
        with pytest.raises(ValueError, match="`labels` to be integers from 0 to 2"):
            model({"images": some_images(), "labels": np.array([0, 1, 3])})
        with pytest.raises(ValueError, match="shape"):
            small()(np.zeros((2, 4, 3, 2), "int32"))


def teacher_forced(model, images, labels=None):
    """The logits of the streaming path when the values are those of the images."""
    stream = image_stream._Stream(model)
    embedding = stream.embedding
    same = 0.0 if labels is None else embedding.of_labels(labels)
    states, constants, logits = stream.start(len(images)), stream.constants(), []
    values, places = ops.convert_to_numpy(embedding.flat(images)), embedding.of_places()
    tables = embedding.tables()
    width = np.prod(embedding.image_shape[1:])
    for t, sources in enumerate(embedding.sources):
        column = t % int(width)
        if not column:
            states = stream.start_row(states)
        # As in the loop, where what comes later is not there yet.
        known = np.where(np.arange(values.shape[1]) < t, values, -1)
        known[:, -1] = values[:, -1]
        earlier = embedding.of_earlier(ops.convert_to_tensor(known), sources, tables)
        y, states = stream.logits(earlier + places[t] + same, column, states, constants)
        logits.append(ops.convert_to_numpy(y))
    return np.stack(logits, axis=1)


class TestGenerate:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"num_layers": 2, "num_classes": 3},
            {"learned_locations": True, "activation": "elu"},
            {"neighborhood": 1},
            {"neighborhood": 1, "iterations": 1},
            {"neighborhood": 2, "num_layers": 2, "num_classes": 3, "embedding_dropout": 0.5},
            {"feed_forward_units": 5},
            {"feed_forward_units": 5, "neighborhood": 1, "num_layers": 2, "num_classes": 3},
            {"num_heads": 2, "iterations": 1},
            {"num_heads": 4, "neighborhood": 2, "num_layers": 2},
            {"num_heads": 2, "feed_forward_units": 5, "num_classes": 3},
        ],
    )
    def test_streaming_equals_the_whole(self, options):
        model = with_weights(small(**{"iterations": 3, **options}))
        images = some_images()
        labels = np.array([2, 0, 1]) if "num_classes" in options else None
        inputs = images if labels is None else {"images": images, "labels": labels}
        whole = answers(model, inputs)[0].reshape(3, -1, LEVELS)
        assert np.abs(teacher_forced(model, images, labels) - whole).max() < 1e-5

    @pytest.mark.usefixtures("float64")
    @pytest.mark.parametrize("options", [{"neighborhood": 1}, {"num_heads": 2}])
    def test_float64(self, options, backend):
        model = with_weights(small(iterations=3, feed_forward_units=5, **options))
        images = models.generate(model, 2, seed=3)
        whole = answers(model, images.astype("int32"))[0].reshape(2, -1, LEVELS)
        # Keras' own dense layers round to float32 on torch.
        tolerance = 1e-5 if backend == "torch" else 1e-12
        assert np.abs(teacher_forced(model, images, None) - whole).max() < tolerance
        below = np.cumsum(special.softmax(whole, axis=-1), axis=-1)
        uniforms = 0.999999 * np.random.default_rng(3).random(below.shape[:2], "float32")
        expected = np.sum(below <= uniforms[..., None], axis=-1)
        np.testing.assert_array_equal(images.reshape(2, -1), expected)

    @pytest.mark.parametrize("layers", [1, 2])
    def test_the_seed_decides_on_every_backend(self, layers, tmp_path):
        model = with_weights(small(num_layers=layers))
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

    @pytest.mark.parametrize("neighborhood", [0, 1])
    def test_weights_as_they_are_at_the_call(self, neighborhood):
        model = with_weights(small(neighborhood=neighborhood))
        first = models.generate(model, 4, seed=0)
        swarm = model.layers[-2]
        swarm.set_weights([-w for w in swarm.get_weights()])
        second = models.generate(model, 4, seed=0)
        assert (first != second).any()
        # What is compiled anew has the new weights.
        np.testing.assert_array_equal(second, models.generate(model, 4, seed=0, top_k=LEVELS + 9))

    def test_a_second_call_compiles_nothing(self, monkeypatch):
        model, traced = small(), []
        draw = image_stream._Stream.draw
        monkeypatch.setattr(
            image_stream._Stream, "draw", lambda *a: (traced.append(0), draw(*a))[1]
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
        logits = answers(model, prefix[:1].reshape(1, *SHAPE))[0].reshape(-1, LEVELS)
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

    @pytest.mark.parametrize("n", [1, 2, 5, 16, 23])
    def test_the_first_value_beyond_a_share(self, n, rng):
        """In blocks, as JAX draws on a processor, equal to one running sum."""
        parts = rng.integers(0, 3, (200, n)).astype("float32")  # whose sums are exact
        parts[np.arange(200), rng.integers(0, n, 200)] += 1
        below = np.cumsum(parts, axis=1)
        shares = (np.floor(rng.random((200, 1)) * below[:, -1:]) + 0.5) / below[:, -1:]
        shares = shares.astype("float32")
        expected = (below <= shares * below[:, -1:]).sum(axis=1)
        received = image_stream._first_beyond(*map(ops.convert_to_tensor, (parts, shares)))
        np.testing.assert_array_equal(ops.convert_to_numpy(received), expected)
        assert parts[np.arange(200), expected].all()
        # Rounding must not lead to what has no part: shares of nearly all, 0 at the end.
        parts = rng.random((200, n)).astype("float32")
        parts[:, max(1, n // 2) :] = 0
        shares = np.full((200, 1), 1, "float32")
        received = image_stream._first_beyond(
            *map(ops.convert_to_tensor, (parts, 0.999999 * shares))
        )
        assert parts[np.arange(200), ops.convert_to_numpy(received)].all()

    @pytest.mark.parametrize(
        "scale, options",
        [(0.3, {}), (0.3, {"neighborhood": 2}), (1.0, {"feed_forward_units": 9, "num_heads": 2})],
    )
    def test_the_likeliest_values(self, scale, options):
        # What the loop draws is what all places at once find likeliest.
        model = with_weights(small(num_classes=2, **options), scale)
        images = models.generate(model, 3, labels=[0, 1, 1], top_k=1)
        (logits,) = answers(model, {"images": images, "labels": np.array([0, 1, 1])})
        np.testing.assert_array_equal(logits.argmax(axis=-1), images)
        np.testing.assert_array_equal(images[1], images[2])
        assert (images[0] != images[1]).any()
        for temperature in (1e-9, 1e-30, 1e-50):  # in float32 the last one is 0
            drawn = models.generate(model, 3, labels=[0, 1, 1], temperature=temperature)
            np.testing.assert_array_equal(drawn, images)

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
            model = models.swarm_image_transformer(
                shape, hidden_units=8, iterations=3, num_layers=2
            )
            stream = image_stream._Stream(model)
            sizes.append([tuple(s.shape) for s in keras.tree.flatten(stream.start(5))])
        assert sizes[0] == sizes[1]

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"num_images": 0}, "`num_images`, expected a positive integer"),
            ({"labels": None}, "Expected `labels`"),
            ({"labels": [0, 1, 2]}, "one integer or as many as images, 2"),
            ({"labels": [0.0, 1.0]}, "one integer or as many as images, 2"),
            ({"labels": 3}, "`labels` to be integers from 0 to 2"),
            ({"temperature": 0}, "`temperature`, expected a positive number"),
            ({"seed": 1.5}, "`seed`, expected a non-negative integer"),
            ({"top_k": 0}, "`top_k`, expected a positive integer"),
            ({"prefix": np.zeros((2, 4, 4, 2), int)}, "(2, up to 3, 4, 2)"),
            ({"prefix": np.zeros((2, 1, 2, 2), int)}, "(2, up to 3, 4, 2)"),
            ({"prefix": np.zeros((2, 25), int)}, "(2, up to 24)"),
            ({"prefix": np.zeros((3, 5), int)}, "(2, up to 24)"),
            ({"prefix": np.zeros((2, 5))}, "Expected `prefix` to hold integers"),
            ({"prefix": np.full((2, 5), 7)}, "`prefix` to be integers from 0 to 6"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError) as error:
            models.generate(small(num_classes=3), **{"num_images": 2, "labels": 1, **arguments})
        assert message in str(error.value)

    def test_more_levels_than_bytes_have(self):
        model = models.swarm_image_transformer(
            (1, 1, 1), hidden_units=4, iterations=1, num_levels=257
        )
        drawn = models.generate(model, 2000, seed=0)
        assert drawn.dtype == np.int32 and drawn.max() == 256

    def test_other_models(self):
        with pytest.raises(ValueError, match="has no classes"):
            models.generate(small(), 2, labels=[0, 1])
        with pytest.raises(ValueError, match="swarm_image_transformer` has made"):
            models.generate(models.deep_sets(2, 3), 2)
