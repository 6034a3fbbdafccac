"""Poolings and networks computed chunk by chunk equal the whole."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import models
from tests.chunk_cases import CUTS
from tests.chunk_cases import FEATURES
from tests.chunk_cases import assert_close
from tests.chunk_cases import cut
from tests.chunk_cases import numpy
from tests.chunk_cases import sets
from tests.chunk_cases import whole_and_chunks

POOLINGS = ("mean", "sum", "max", "logsumexp", "causal", "pooling_maps")


def accumulate(pooling, chunks):
    entities = chunks[0][0]
    state = pooling.init(entities.shape[0], entities.shape[-1])
    for chunk in chunks:
        state = pooling.update(state, *chunk)
    return state


def read_all(pooling, state, chunks):
    """What the call gives, put together from the chunks."""
    finished = pooling.finish(state)
    parts = [numpy(pooling.read(finished, *chunk)) for chunk in chunks]
    if pooling.symmetry == "invariant":
        for part in parts:
            np.testing.assert_array_equal(part, parts[0])
        return parts[0]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("given", ["nothing", "mask", "both"])
@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_equals_the_whole(name, given):
    x, mask, weights = sets()
    if given == "nothing":
        x, mask = np.nan_to_num(x), None
    arrays = (x, mask, weights if given == "both" else None)
    pooling = layers.get_pooling(name)
    whole = numpy(pooling(x, mask=arrays[1], weights=arrays[2]))
    for cuts in (CUTS, (0, 15)):
        chunks = cut(arrays, cuts)
        if name == "causal":
            state, outputs = pooling.init(len(x), FEATURES), []
            for chunk in chunks:
                y, state = pooling.scan(state, *chunk)
                outputs.append(numpy(y))
            assert_close(np.concatenate(outputs, axis=1), whole)
            mean = layers.MeanPooling()(x, mask=arrays[1], weights=arrays[2])
            assert_close(numpy(pooling.finish(state)), numpy(mean))
            assert_close(numpy(pooling.finish(accumulate(pooling, chunks))), numpy(mean))
        else:
            assert_close(read_all(pooling, accumulate(pooling, chunks), chunks), whole)


@pytest.mark.parametrize("name", POOLINGS)
def test_merging_is_commutative_and_associative(name):
    chunks = cut(sets(), (0, 5, 10, 15))
    # A chunk without weights among others with them: every entity counts once.
    chunks[1] = (*chunks[1][:2], None)
    pooling = layers.get_pooling(name)
    a, b, c = (accumulate(pooling, [chunk]) for chunk in chunks)
    empty = pooling.init(3, FEATURES)
    wanted = numpy(pooling.finish(pooling.merge(pooling.merge(a, b), c)))
    assert np.isfinite(wanted).all() and np.abs(wanted[:2]).max() > 0 and not wanted[2].any()
    for state in (
        pooling.merge(a, pooling.merge(b, c)),
        pooling.merge(c, pooling.merge(b, a)),
        pooling.merge(pooling.merge(empty, b), pooling.merge(pooling.merge(c, empty), a)),
    ):
        assert_close(numpy(pooling.finish(state)), wanted)


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("sizes", [(1, FEATURES), (3, FEATURES + 1)])
def test_states_of_other_sets_are_not_merged(name, sizes):
    """One would be broadcast to the other."""
    pooling = layers.get_pooling(name)
    state, other = pooling.init(3, FEATURES), layers.get_pooling(name).init(*sizes)
    for pair in ((state, other), (other, state)):
        with pytest.raises(ValueError, match="Expected two states of the same sets"):
            pooling.merge(*pair)


@pytest.mark.parametrize("name", POOLINGS)
def test_empty_sets(name):
    pooling = layers.get_pooling(name)
    state = pooling.init(2, FEATURES)
    state = pooling.merge(state, pooling.init(2, FEATURES))
    state = pooling.update(
        state, np.full((2, 5, FEATURES), np.nan, "float32"), mask=np.zeros((2, 5), bool)
    )
    assert not numpy(pooling.finish(state)).any()


@pytest.mark.parametrize("name", ["max", "mean"])
def test_keepdims(name):
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 2)).astype("float32")
    pooling = layers.get_pooling(name, keepdims=True)
    finished = pooling.finish(accumulate(pooling, [(x[:, :2],), (x[:, 2:],)]))
    assert finished.shape == (2, 2)
    assert_close(numpy(pooling.read(finished, x)), numpy(pooling(x)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["mean", "sum", "causal"])
def test_a_million_entities(name, dtype):
    count, chunks = 1_000_000, 250
    values = 1.0 + np.random.default_rng(0).random((1, count // chunks, 1)).astype("float32")
    x = ops.cast(values, dtype)
    pooling = layers.get_pooling(name, dtype=dtype)
    state = pooling.init(1, 1)
    for _ in range(chunks):
        state = pooling.update(state, x)
    total = ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64").sum() * chunks
    for leaf in keras.tree.flatten(state):
        assert keras.backend.standardize_dtype(leaf.dtype) == "float32"
    expected = total if name == "sum" else total / count
    received = float(numpy(pooling.finish(state)).ravel()[0])
    # The sum of a chunk is the backend's; hundreds of them add no error of their own.
    assert abs(received / expected - 1) < {"float32": 1e-6, "bfloat16": 2**-8}[dtype]


def compiled(function):
    """XLA must not cancel what keeps the rounding errors."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


@pytest.mark.parametrize("compile", [True, False])
def test_sums_of_chunks_do_not_drift(compile):
    """One large chunk, then small ones that float32 would drop one by one."""
    pooling = layers.SumPooling()
    update = compiled(pooling.update) if compile else pooling.update
    state = pooling.init(1, 1)
    for value in [2.0**25] + 64 * [1.0]:
        state = update(state, ops.full((1, 1, 1), value, "float32"))
    assert numpy(pooling.finish(state)).item() == 2.0**25 + 64


def test_a_running_mean_keeps_what_rounding_takes():
    pooling = layers.CausalMeanPooling()
    state = pooling.init(1, 1)
    for value in [2.0**24] + 8 * [1.0] + [-(2.0**24)]:
        y, state = pooling.scan(state, ops.full((1, 1, 1), value, "float32"))
    assert numpy(y).item() == pytest.approx(0.8, rel=1e-6)


@pytest.mark.parametrize("name", ["mean", "pooling_maps"])
def test_weights_of_very_different_size(name):
    x, _, weights = sets()
    x = np.nan_to_num(x)
    pooling = layers.get_pooling(name)
    whole = pooling(x, weights=weights)
    for factor in (1e-30, 1e30):
        chunks = cut((x, None, factor * weights))
        received = read_all(pooling, accumulate(pooling, chunks), chunks)
        assert_close(received, numpy(whole))
    # A chunk whose weights are nothing beside the others, before and after them.
    light, heavy = (x[:, :5], None, 1e-38 + 0 * weights[:, :5]), (x[:, 5:], None, weights[:, 5:])
    heavy = (*heavy[:2], 1e30 * (1 + heavy[2]))
    wanted = pooling.finish(accumulate(pooling, [heavy]))
    for chunks in ([light, heavy], [heavy, light]):
        assert_close(numpy(pooling.finish(accumulate(pooling, chunks))), numpy(wanted))


def test_logsumexp_and_maps_of_large_values():
    x = np.array([[[-2000.0], [1000.0], [999.0], [-3000.0]]], "float32")
    pooling = layers.LogSumExpPooling()
    whole = numpy(pooling(x))
    assert_close(whole, np.array([[1000 + np.log1p(np.exp(-1))]]))
    for cuts in ((0, 1, 2, 3, 4), (0, 3, 4)):
        assert_close(numpy(pooling.finish(accumulate(pooling, cut((x,), cuts)))), whole)
    # Chunks without entities, before and after others, have no maximum that counts.
    for place, mask in ((0, [[True, False, False, False]]), (3, [[False, False, False, True]])):
        chunks = cut((x, np.array(mask)), (0, 1, 2, 3, 4))
        assert_close(numpy(pooling.finish(accumulate(pooling, chunks))), x[:, place])
    # One value, one key, one gate: the key takes part in the softmax only.
    x = np.stack([x[..., 0] / 1000, x[..., 0], np.ones((1, 4), "float32")], axis=-1)
    pooling = layers.PoolingMaps(1)
    chunks = cut((x, np.ones((1, 4), bool)), (0, 1, 2, 3, 4))
    assert_close(read_all(pooling, accumulate(pooling, chunks), chunks), numpy(pooling(x)))


@pytest.mark.parametrize("output_pooling", [None, "mean"])
@pytest.mark.parametrize("pooling", ["mean", "max", "causal", "pooling_maps"])
def test_deep_sets(pooling, output_pooling):
    model = models.deep_sets(
        FEATURES,
        4,
        hidden_units=10,
        pooling=pooling,
        weighted=True,
        dropout=0.3,
        output_pooling=output_pooling,
    )
    whole, chunks = whole_and_chunks(model)
    assert_close(chunks, whole)


SWARMS = [(pooling, {}) for pooling in POOLINGS] + [
    ("mean", {"context": "static"}),
    ("mean", {"context": "self"}),
    ("causal", {"context": "static"}),
    ("causal", {"context": "self"}),
    ("mean", {"num_layers": 2}),
    ("pooling_maps", {"output_pooling": "max"}),
    ("causal", {"output_pooling": "logsumexp"}),
    ("sum", {"unroll": False, "remat": True, "weighted": False}),
]


@pytest.mark.parametrize("pooling,options", SWARMS)
def test_swarm(pooling, options):
    options = {"weighted": True, **options}
    model = models.swarm(FEATURES, 4, 10, iterations=3, pooling=pooling, **options)
    whole, chunks = whole_and_chunks(model, options["weighted"])
    assert_close(chunks, whole, 1e-5)


@pytest.mark.parametrize("cuts", [(0, 15), (0, 0, 15), (0, 5, 10, 15, 15)])
def test_any_chunks(cuts):
    model = models.swarm(FEATURES, 4, 10, iterations=2, num_layers=2, weighted=True)
    whole, chunks = whole_and_chunks(model, cuts=cuts)
    assert_close(chunks, whole, 1e-5)


def test_list_of_layers():
    x, mask, weights = sets()
    stack = [
        keras.layers.Dense(6, activation="relu"),
        layers.PermutationEquivariantDense(5, pooling="max"),
        keras.layers.Activation("tanh"),
        keras.layers.Dropout(0.5),
        layers.Swarm(4, iterations=2, pooling="causal"),
        layers.MeanPooling(keepdims=True),
        keras.layers.Dense(3),
    ]
    y = np.nan_to_num(x)
    for layer in stack:
        set_layer = isinstance(layer, layers.SetLayer)
        y = layer(y, mask=mask, weights=weights) if set_layer else layer(y)
    received = models.predict_in_chunks(stack, cut((x, mask, weights)))
    assert received.shape == (3, 1, 3)
    assert_close(received, numpy(y), 1e-5)


def test_one_layer_on_images_and_its_states():
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype("float32")
    for pooling in ("mean", "causal"):
        swarm = layers.Swarm(3, iterations=2, pooling=pooling, return_iterations=True)
        whole = swarm(x)
        chunks = list(models.predict_in_chunks(swarm, [x[:, :2], x[:, 2:]]))
        for index, axis in ((0, 1), (1, 2), (2, 2)):
            received = np.concatenate([chunk[index] for chunk in chunks], axis=axis)
            assert_close(received, numpy(whole[index]))


def test_models_with_one_input():
    x, mask, _ = sets()
    x = np.nan_to_num(x)
    stack = [keras.Input((None, FEATURES)), layers.PermutationEquivariantDense(4, "relu")]
    sequential = keras.Sequential([*stack, keras.layers.Dense(2)])
    y = keras.layers.LayerNormalization()(stack[1](stack[0]))
    y = keras.layers.UnitNormalization()(keras.layers.RMSNormalization()(y))
    functional = keras.Model(stack[0], keras.layers.Dense(2)(y))
    for model in (sequential, functional):
        parts = models.predict_in_chunks(model, cut((x, mask)))
        whole = numpy(model(x, mask=mask))
        assert_close(np.concatenate(list(parts), axis=1)[mask], whole[mask])


@pytest.mark.parametrize("weighted", [False, True])
def test_tensors_of_the_backend_as_chunks(weighted):
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    weights = np.ones((2, 6), "float32") if weighted else None
    model = models.deep_sets(3, 2, hidden_units=4, output_pooling="mean", weighted=weighted)
    expected = models.predict_in_chunks(model, cut((x, None, weights), (0, 4, 6)))
    tensor = ops.convert_to_tensor(x)
    for mask in (None, np.ones((2, 6), bool)):
        chunks = cut((tensor, mask, weights), (0, 4, 6))
        assert_close(models.predict_in_chunks(model, chunks), expected)


def test_models_of_a_fixed_set_size():
    """As many outputs as the chunks have entities, not those of the first chunk."""
    x = np.random.default_rng(0).normal(size=(1, 12, 2)).astype("float32")
    chunks = [x[:, :4], x[:, 4:8], x[:, 8:]]
    inputs = keras.Input((4, 2))
    y = layers.PermutationEquivariantDense(3)(inputs)
    pooled = layers.MeanPooling(keepdims=True)(y)
    for outputs in (y, keras.layers.Add()([y, pooled]), pooled, layers.MeanPooling()(y)):
        fixed = keras.Model(inputs, outputs)
        free = keras.models.clone_model(fixed, input_tensors=keras.Input((None, 2)))
        free.set_weights(fixed.get_weights())
        received = models.predict_in_chunks(fixed, chunks)
        if not isinstance(received, np.ndarray):
            received = np.concatenate(list(received), axis=1)
        assert_close(received, numpy(free(x)))


def test_outputs_of_entities_and_of_sets():
    """The one that comes first decides nothing."""
    x = np.random.default_rng(0).normal(size=(2, 9, 2)).astype("float32")
    inputs = keras.Input((None, 2))
    pooled, doubled = layers.MeanPooling()(inputs), keras.layers.Rescaling(2.0)(inputs)
    for outputs in ([pooled, doubled], {"a": pooled, "b": doubled}):
        model = keras.Model(inputs, outputs)
        parts = list(models.predict_in_chunks(model, [x[:, :4], x[:, 4:]]))
        means, twice = zip(*(keras.tree.flatten(part) for part in parts), strict=True)
        assert_close(np.concatenate(twice, axis=1), 2 * x)
        for mean in means:
            assert_close(mean, x.mean(axis=1))


def test_features_that_are_normalized():
    x = np.arange(12, dtype="float32").reshape(1, 6, 2)
    normalization = keras.layers.Normalization(mean=[5.0, 6.0], variance=[4.0, 9.0])
    network = keras.Sequential([keras.Input((None, 2)), normalization, layers.SumPooling()])
    pooled = models.predict_in_chunks(network, [x[:, :4], x[:, 4:]])
    assert_close(pooled, np.array([[0.0, 0.0]], "float32"))
    pooled = models.predict_in_chunks(network, [x[:, :4], x[:, 4:5]])
    assert_close(pooled, np.array([[-2.5, -5 / 3]], "float32"))


def test_half_precision():
    """Every chunk is computed in the layer's own dtype, as the whole is."""
    x, mask, weights = sets()
    swarm = layers.Swarm(4, iterations=3, dtype="mixed_bfloat16")
    whole = numpy(swarm(x, mask=mask, weights=weights))
    outputs = list(models.predict_in_chunks(swarm, cut((x, mask, weights))))
    outputs = np.concatenate([y.astype("float32") for y in outputs], axis=1)
    assert_close(outputs, whole, 0.02)


class RootMeanSquare:
    """A user's pooling with the methods that are needed, and no more."""

    def __call__(self, inputs, mask=None, weights=None):
        return ops.sqrt(layers.MeanPooling()(inputs**2, mask=mask, weights=weights))

    def init(self, batch_size, features):
        return layers.MeanPooling().init(batch_size, features)

    def update(self, state, inputs, mask=None, weights=None):
        return layers.MeanPooling().update(state, inputs**2, mask, weights)

    def finish(self, state):
        return ops.sqrt(layers.MeanPooling().finish(state))


def test_poolings_of_users():
    x, mask, weights = sets()
    layer = layers.PermutationEquivariantDense(4, pooling=RootMeanSquare())
    outputs = models.predict_in_chunks(layer, cut((x, mask, weights)))
    whole = numpy(layer(x, mask=mask, weights=weights))
    assert_close(np.concatenate(list(outputs), axis=1), whole)


class Median(layers.Pooling):
    def pool(self, x, mask, weights, keepdims):
        return ops.median(x, axis=1)


def unchunkable():
    inputs = keras.Input((None, 3))
    averaged = keras.Model(inputs, inputs - ops.mean(inputs, axis=1, keepdims=True))
    pooling = lambda x, mask=None, weights=None: x[:, 0]  # noqa: E731
    return {
        "function": (layers.Swarm(3, pooling=pooling), "methods init, update, finish"),
        "pooling layer": (Median(), "methods chunk_state, merge, finish"),
        "attention": (layers.SetAttentionBlock(4, 2), "SetAttentionBlock"),
        "recurrent": ([keras.layers.LSTM(4, return_sequences=True)], "LSTM"),
        "operation": (averaged, "Mean, a function of `keras.ops`"),
        "wrong axis": ([keras.layers.Softmax(axis=1)], "Softmax"),
        "places": ([keras.layers.Normalization(axis=(1, 2))], "Normalization"),
        "no network": ("swarm", "network='swarm'"),
        "no layers": ([], r"network=\[\]"),
    }


@pytest.mark.parametrize("case", unchunkable())
def test_networks_that_cannot_be_computed_in_chunks(case):
    network, message = unchunkable()[case]
    with pytest.raises(ValueError, match=message):
        models.predict_in_chunks(network, [np.ones((1, 2, 3), "float32")])


def test_protocol_errors():
    pooling = layers.MeanPooling()
    with pytest.raises(ValueError, match="features"):
        pooling.init(2, 0)
    with pytest.raises(ValueError, match="mask"):
        pooling.update(pooling.init(2, 3), np.ones((2, 4, 3)), mask=np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="state"):
        pooling.update(pooling.init(2, 3), np.ones((2, 4, 1)))
    causal = layers.CausalMeanPooling()
    with pytest.raises(ValueError, match="state"):
        causal.scan(causal.init(1, 3), np.ones((2, 4, 3)))
    with pytest.raises(NotImplementedError, match="chunk_state"):
        Median().init(2, 3)


def test_chunks_that_can_be_read_once():
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    layer = layers.PermutationEquivariantDense(4)
    with pytest.raises(ValueError, match="several passes"):
        models.predict_in_chunks(layer, (x[:, i : i + 2] for i in (0, 2, 4)))
    used = iter([x[:, :2], x[:, 2:]])
    with pytest.raises(ValueError, match="fresh iterator"):
        models.predict_in_chunks(layer, lambda: used)
    # Causal layers need one pass: a stream without end is fine.
    causal = layers.PermutationEquivariantDense(4, pooling="causal")
    stream = (x[:, i : i + 2] for i in (0, 2, 4))
    outputs = np.concatenate(list(models.predict_in_chunks(causal, stream)), axis=1)
    assert_close(outputs, numpy(causal(x)))


def test_bad_chunks():
    x = np.ones((2, 4, 3), "float32")
    layer = layers.PermutationEquivariantDense(4)
    model = models.deep_sets(3, 2, hidden_units=4, num_layers=1)
    event = keras.Input((1,), name="event")
    pooled = layers.MeanPooling()(model.output)
    outputs = keras.layers.Concatenate()([pooled, event])
    beside = keras.Model({**model.input, "event": event}, outputs)
    counts = iter([3, 2])
    cases = [
        (layer, [], "at least one chunk"),
        (layer, 5, "chunks=5"),
        (layer, lambda: 5, "int"),
        (layer, lambda: [x] * next(counts), "3 chunks"),
        (layer, [x, x[:1]], "same sets"),
        (layer, [(x, None, None, None)], "4 parts"),
        (layer, [{"entities": x}], "Received: a dict"),
        (layer, x, r"`chunk\[None\]`. Received: a chunk of shape \(4, 3\)"),
        (layer, [(x, np.ones((2, 3), bool))], "mask"),
        (model, [(x, None, np.ones((2, 4)))], "'weights'"),
        (beside, [x], "no other inputs .*with the inputs event"),
        (layer, [(x, None, -np.ones((2, 4)))], "weights"),
    ]
    for network, chunks, message in cases:
        with pytest.raises(ValueError, match=message):
            list(models.predict_in_chunks(network, chunks))


class Chunk(np.ndarray):
    """An array that can be referred to weakly, and so be counted."""


def test_memory_does_not_grow():
    """Few chunks are alive at a time: the current one, and those in cycles that calls of Keras
    models leave to the garbage collector."""
    made, alive = [], []

    def chunks():
        for seed in range(40):
            x = np.random.default_rng(seed).normal(size=(1, 5, FEATURES)).astype("float32")
            x = x.view(Chunk)
            made.append(weakref.ref(x))
            alive.append(sum(reference() is not None for reference in made))
            yield x
            del x

    model = models.swarm(FEATURES, 4, 10, iterations=3)
    rarely = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # as Python has it
    for outputs in models.predict_in_chunks(model, chunks):
        assert outputs.shape == (1, 5, 4)
    gc.set_threshold(*rarely)
    assert len(made) == 3 * 40
    assert max(alive) <= 8, max(alive)
