"""The layers against plain NumPy, and against the Keras layers they extend."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import testing
from keras_sets.ops import loops
from tests import reference
from tests.cases import CASES

POOLINGS = ("mean", "sum", "max", "logsumexp", "causal")
GIVEN = ((), ("mask",), ("weights",), ("mask", "weights"))


def arrays(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def close(received, expected, tolerance=2e-5):
    assert received.shape == expected.shape
    scale = np.abs(expected).max(initial=0.0) or 1.0
    assert np.abs(received - expected).max(initial=0.0) / scale <= tolerance


def example(given=(), batch=3, size=6, features=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, size, features)).astype("float32")
    kinds = {
        "mask": rng.random((batch, size)) < 0.6,
        "weights": 2 * rng.random((batch, size)) * (rng.random((batch, size)) < 0.8),
    }
    kinds = {name: kinds[name] for name in given}
    counts = reference.multiplicities((batch, size), kinds.get("mask"), kinds.get("weights"))
    return x, kinds, counts


def outputs_of(layer, x, **given):
    return testing.outputs_and_gradients(layer, x, gradients=False, **given)[0]


def randomized(layer, shape):
    """Random values in all weights, biases too."""
    layer.build(shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape, scale=0.5) for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("given", GIVEN, ids="+".join)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling(pooling, given):
    x, kinds, counts = example(given)
    cls = {
        "mean": layers.MeanPooling,
        "sum": layers.SumPooling,
        "max": layers.MaxPooling,
        "logsumexp": layers.LogSumExpPooling,
        "causal": layers.CausalMeanPooling,
    }[pooling]
    expected = reference.pool(pooling, x.astype("float64"), counts)
    close(outputs_of(cls(), x, **kinds)[0], expected)
    if pooling != "causal":
        close(outputs_of(cls(keepdims=True), x, **kinds)[0], expected[:, None])


@pytest.mark.parametrize("given", GIVEN, ids="+".join)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_permutation_equivariant_dense(pooling, given):
    x, kinds, counts = example(given)
    layer = layers.PermutationEquivariantDense(3, activation="tanh", pooling=pooling)
    randomized(layer, x.shape)
    weights = [arrays(w) for w in (layer.kernel, layer.pooled_kernel, layer.bias)]
    expected = reference.permutation_equivariant_dense(x, counts, *weights, pooling, np.tanh)
    close(outputs_of(layer, x, **kinds)[0], expected)


@pytest.mark.parametrize("context", ["swarm", "static", "self"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_swarm(pooling, context):
    x, kinds, counts = example(("mask", "weights"))
    layer = layers.Swarm(
        3,
        hidden_units=4,
        iterations=4,
        pooling=pooling,
        context=context,
        return_iterations=True,
    )
    randomized(layer, x.shape)
    cell = layer.cell
    weights = [cell.kernel, cell.recurrent_kernel, cell.pooled_kernel, cell.bias]
    projection = [layer.projection.kernel, layer.projection.bias]
    expected = reference.swarm(
        x,
        counts,
        [arrays(w) for w in weights],
        [arrays(w) for w in projection],
        iterations=4,
        pooling=pooling,
        context=context,
    )
    for received, value in zip(outputs_of(layer, x, **kinds), expected, strict=True):
        close(received, value)


@pytest.mark.parametrize("context", ["swarm", "static", "self"])
@pytest.mark.parametrize("pooling", ["mean", "causal"])
def test_swarm_of_narrow_inputs(pooling, context):
    """Some backends multiply them in every iteration."""
    x, kinds, counts = example(("mask", "weights"))
    for use_bias in (True, False):
        layer = layers.Swarm(
            3, hidden_units=48, iterations=3, pooling=pooling, context=context, use_bias=use_bias
        )
        randomized(layer, x.shape)
        layer.set_weights([0.2 * w for w in layer.get_weights()])
        cell, projection = layer.cell, layer.projection
        weights = [cell.kernel, cell.recurrent_kernel, cell.pooled_kernel]
        weights = [arrays(w) for w in weights]
        weights.append(arrays(cell.bias) if use_bias else np.zeros(4 * 48))
        output = [arrays(projection.kernel), arrays(projection.bias) if use_bias else np.zeros(3)]
        options = {"iterations": 3, "pooling": pooling, "context": context}
        expected = reference.swarm(x, counts, weights, output, **options)
        close(outputs_of(layer, x, **kinds)[0], expected[0])
        testing.assert_padding_invariant(layer, x, **kinds)


def test_pooling_by_name_layer_and_callable():
    x, kinds, _ = example(("mask", "weights"))

    def twice_the_mean(x, mask=None, weights=None):
        return 2.0 * layers.MeanPooling()(x, mask=mask, weights=weights)

    outputs = []
    for pooling in ("mean", layers.MeanPooling(), layers.MeanPooling(keepdims=True)):
        layer = layers.PermutationEquivariantDense(3, pooling=pooling)
        outputs.append(outputs_of(randomized(layer, x.shape), x, **kinds)[0])
    close(outputs[1], outputs[0])
    close(outputs[2], outputs[0])
    layer = randomized(layers.PermutationEquivariantDense(3, pooling=twice_the_mean), x.shape)
    by_function = outputs_of(layer, x, **kinds)[0]
    layer = randomized(layers.PermutationEquivariantDense(3), x.shape)
    layer.pooled_kernel.assign(2.0 * layer.pooled_kernel)
    close(by_function, outputs_of(layer, x, **kinds)[0])
    assert layers.PermutationEquivariantDense(3, pooling="causal").symmetry == "causal"


# --- The cell ------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
def test_cell_is_an_lstm_cell(use_bias):
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    ours = keras.layers.RNN(
        layers.SwarmCell(4, use_bias=use_bias), return_sequences=True, return_state=True
    )
    theirs = keras.layers.RNN(
        keras.layers.LSTMCell(4, use_bias=use_bias), return_sequences=True, return_state=True
    )
    for layer in (ours, theirs):
        layer.build(x.shape)
    theirs.cell.bias is None or theirs.cell.bias.assign(np.linspace(-1, 1, 16))
    names = ("kernel", "recurrent_kernel") + (("bias",) if use_bias else ())
    for name in names:
        getattr(ours.cell, name).assign(getattr(theirs.cell, name))
    got, expected = (testing.outputs_and_gradients(layer, x) for layer in (ours, theirs))
    for new, old in zip(got[0], expected[0], strict=True):
        close(new, old)
    close(got[1], expected[1])
    order = [w.name for w in ours.trainable_variables]
    unused = got[2].pop(order.index("pooled_kernel"))
    assert not unused.any()
    for new, old in zip(got[2], expected[2], strict=True):
        close(new, old)


def test_cell_starts_like_an_lstm_cell():
    ours, theirs = layers.SwarmCell(4), keras.layers.LSTMCell(4)
    ours.build((2, 3))
    theirs.build((2, 3))
    close(arrays(ours.bias), arrays(theirs.bias), 0.0)
    assert ours.kernel.shape == theirs.kernel.shape == (3, 16)
    assert ours.recurrent_kernel.shape == theirs.recurrent_kernel.shape == (4, 16)
    assert ours.pooled_kernel.shape == (4, 16)
    assert ours.state_size == theirs.state_size and ours.output_size == theirs.output_size


def test_cell_in_stacked_cells():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    rnn = keras.layers.RNN([layers.SwarmCell(4), layers.SwarmCell(2)], return_sequences=True)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, rnn(inputs))
    stacked = model.predict_on_batch(x)
    assert stacked.shape == (2, 5, 2)
    y = x
    for cell in rnn.cell.cells:
        y = outputs_of(keras.layers.RNN(cell, return_sequences=True), y)[0]
    close(stacked, y)


def test_cell_takes_any_leading_axes():
    rng = np.random.default_rng(0)
    x, h, c = (rng.normal(size=(2, 3, 5, width)).astype("float32") for width in (3, 4, 4))
    pooled = rng.normal(size=(2, 1, 1, 2)).astype("float32")
    cell = randomized(layers.SwarmCell(4, pooled_units=2), x.shape)
    y, (new_h, new_c) = cell(x, [h, c], pooled=pooled)
    weights = [cell.kernel, cell.recurrent_kernel, cell.pooled_kernel, cell.bias]
    weights = [arrays(w) for w in weights]
    for place in np.ndindex(2, 3, 5):
        expected = reference.swarm_cell(
            x[place], h[place], c[place], pooled[place[0], 0, 0], *weights
        )
        close(arrays(new_h)[place], expected[0])
        close(arrays(new_c)[place], expected[1])
    close(arrays(y), arrays(new_h), 0.0)
    flat = [a.reshape(-1, a.shape[-1]) for a in (x, h, c)]
    pooled = np.repeat(pooled.reshape(2, 2), 15, axis=0)
    flat_y, _ = cell(flat[0], flat[1:], pooled=pooled)
    close(arrays(flat_y), arrays(y).reshape(-1, 4), 1e-6)


# --- Weights -------------------------------------------------------------------------


def count(layer, features):
    layer.build((None, None, features))
    return layer.count_params()


def test_numbers_of_weights():
    assert count(layers.Swarm(10, hidden_units=128), 2) == 135_178
    assert count(layers.Swarm(10, hidden_units=128, iterations=20), 2) == 135_178
    dense = layers.PermutationEquivariantDense(4)
    dense.build((None, 512, 2))
    assert dense.count_params() == 20
    contexts = {count(layers.Swarm(4, context=c), 3) for c in ("swarm", "static", "self")}
    assert len(contexts) == 1


@pytest.mark.parametrize("seed", [None, 7])
def test_kernels_of_one_layer_differ(seed):
    shared = keras.initializers.GlorotUniform(seed=seed)
    dense = layers.PermutationEquivariantDense(
        4, kernel_initializer=shared, pooled_initializer=shared
    )
    cell = layers.SwarmCell(
        4, kernel_initializer=shared, recurrent_initializer=shared, pooled_initializer=shared
    )
    for layer in (dense, cell):
        layer.build((None, None, 4))
        kernels = [arrays(w) for w in layer.weights if "kernel" in w.name]
        for i, one in enumerate(kernels):
            for other in kernels[:i]:
                assert np.abs(one - other).max() > 1e-3
    if seed is not None:
        again = layers.SwarmCell(
            4,
            kernel_initializer=shared,
            recurrent_initializer=shared,
            pooled_initializer=shared,
        )
        again.build((None, None, 4))
        for one, other in zip(cell.weights, again.weights, strict=True):
            close(arrays(one), arrays(other), 0.0)


def test_regularizers_and_constraints_are_used():
    layer = layers.PermutationEquivariantDense(
        4,
        kernel_regularizer="l2",
        pooled_regularizer="l2",
        pooled_constraint="non_neg",
        activity_regularizer="l2",
    )
    layer(np.ones((2, 5, 3), "float32"))
    assert len(layer.losses) == 3
    assert layer.pooled_kernel.constraint is not None


# --- Ways to run the same iterations ----------------------------------------------------

WAYS = {
    "unrolled": {},
    "kept": {"remat": False},
    "loop": {"unroll": False},
    "remat": {"remat": True},
    "loop_remat": {"unroll": False, "remat": True},
}


def make_way(way, **options):
    options = {"hidden_units": 4, "iterations": 4, "dropout": 0.3, "seed": 3, **options}
    return layers.Swarm(2, **options, **WAYS[way])


@pytest.mark.parametrize("pooling", ["mean", "causal"])
@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_ways_are_equal(way, pooling):
    x, kinds, _ = example(("mask", "weights"))
    base = randomized(make_way("unrolled", pooling=pooling), x.shape)
    other = make_way(way, pooling=pooling)
    other.build(x.shape)
    other.set_weights(base.get_weights())
    rng = np.random.default_rng(5)
    cotangents = [rng.normal(size=(3, 6, 2))]
    expected, received = (
        testing.outputs_and_gradients(layer, x, cotangents, training=True, **kinds)
        for layer in (base, other)
    )
    close(received[0][0], expected[0][0])
    close(received[1], expected[1])
    for new, old in zip(received[2], expected[2], strict=True):
        close(new, old)


# Five sets: in as many groups, and in two of which the second is filled.
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("pooling", ["mean", "causal", "logsumexp"])
def test_sets_at_a_time(backend, monkeypatch, pooling, size):
    x, kinds, _ = example(("mask", "weights"), batch=5)
    base = randomized(make_way("kept", pooling=pooling), x.shape)
    other = make_way("unrolled", pooling=pooling)
    other.build(x.shape)
    other.set_weights(base.get_weights())
    sizes = []
    in_groups = loops.in_groups
    monkeypatch.setattr(loops, "KEPT_BYTES", 0)
    monkeypatch.setattr(loops, "MIN_ROWS", size * 6)
    monkeypatch.setattr(loops, "MIN_GROUPS", 1)
    monkeypatch.setattr(loops, "in_groups", lambda *a: sizes.append(a[2]) or in_groups(*a))
    cotangents = [np.random.default_rng(5).normal(size=(5, 6, 2))]
    expected, received = (
        testing.outputs_and_gradients(layer, x, cotangents, training=True, **kinds)
        for layer in (base, other)
    )
    assert set(sizes) == ({size} if backend == "jax" else set())
    close(received[0][0], expected[0][0])
    close(received[1], expected[1])
    for new, old in zip(received[2], expected[2], strict=True):
        close(new, old)
    testing.outputs_and_gradients(other, x, cotangents, training=False, **kinds)
    assert len(sizes) == (backend == "jax")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"hidden_units": 256}, [3 * 7 * 256]),
        ({"hidden_units": 85, "pooling": "causal"}, [3 * 8 * 85]),
        ({"hidden_units": 257}, []),
        ({"hidden_units": 86, "pooling": "causal"}, []),
        ({"unroll": True}, []),
        ({"remat": False}, []),
        ({"return_iterations": True}, []),
        ({"pooling": lambda x, mask=None, weights=None: ops.mean(x, axis=1)}, []),
    ],
)
def test_sets_that_stay_together(monkeypatch, options, kept):
    calls = []
    monkeypatch.setattr(loops, "sets_at_a_time", lambda x, kept: calls.append(kept))
    layers.Swarm(2, iterations=3, **options)(example()[0], training=True)
    assert calls == kept


def test_sets_at_a_time_fill_few_groups(backend):
    if backend != "jax":
        pytest.skip("the other backends keep the memory of a step")
    import jax

    def size(batch, entities, kept):
        x = jax.ShapeDtypeStruct((batch, entities, 2), "float32")
        sizes = []
        jax.eval_shape(lambda x: sizes.append(loops.sets_at_a_time(x, kept)), x)
        return sizes[0]

    # 4 KiB an entity: 20 MiB are 5,120 entities, 51 sets of 100.
    batches = (0, 51, 52, 149, 151)
    assert [size(batch, 100, kept=2**10) for batch in batches] == [None, None, 26, 50, 38]
    # 64 KiB an entity: 2,000 entities in place of 320, and at least four groups.
    batches = (1, 2, 3, 8, 9, 10, 11)
    assert [size(batch, 1000, kept=2**14) for batch in batches] == [None, 1, 1, 2, 1, 2, 1]
    assert loops.sets_at_a_time(np.ones((151, 100, 2), "float32"), kept=2**10) is None


@pytest.mark.parametrize(("jit_compile", "returns"), [(False, False), (False, True), (True, True)])
def test_ways_are_equal_in_fit(backend, jit_compile, returns):
    if jit_compile and backend != "tensorflow":
        pytest.skip("JAX compiles anyway; torch's compiler is experimental in Keras")
    x, kinds, _ = example(("mask", "weights"), batch=4)
    inputs = keras.Input((6, 2))
    given = {"mask": keras.Input((6,), dtype="bool"), "weights": keras.Input((6,))}
    # One model trains them all: no gradient of one reaches another.
    swarms = {way: make_way(way, return_iterations=returns) for way in WAYS}
    outputs = []
    for layer in swarms.values():
        y = layer(inputs, **given)
        layer.set_weights(swarms["unrolled"].get_weights())
        if returns:
            y = keras.layers.Concatenate()([y[0], y[1][:, 1], y[2][:, 2]])
        outputs.append(layers.MeanPooling()(y, **given))
    first = swarms["unrolled"].get_weights()
    model = keras.Model([inputs, *given.values()], outputs)
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=jit_compile or "auto")
    for _ in range(2):
        target = [np.ones((4, y.shape[-1]), "float32") for y in outputs]
        model.train_on_batch([x, *kinds.values()], target)
    expected = swarms["unrolled"].get_weights()
    assert any(np.abs(new - old).max() > 1e-2 for new, old in zip(expected, first, strict=True))
    for layer in swarms.values():
        for new, old in zip(layer.get_weights(), expected, strict=True):
            close(new, old, 1e-4)


@pytest.mark.parametrize("name", ["swarm_mean", "swarm_causal", "max_pooling", "sort_pooling"])
def test_torch_compiles_a_layer_whole(backend, name):
    """Where the graph breaks, `jit_compile` has to leave its speed behind."""
    if backend != "torch":
        pytest.skip("the others always compile graphs as a whole")
    import torch

    case = next(case for case in CASES if case.name == name)
    layer, arguments = case.make(), [torch.tensor(array) for array in case.inputs()]
    call = lambda x, mask, weights: layer(x, mask=mask, weights=weights)  # noqa: E731
    expected = call(*arguments)
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), expected)


@pytest.mark.parametrize("way", WAYS)
def test_states_of_iterations(way):
    x, kinds, _ = example(("mask",))
    whole = make_way(way, return_iterations=True)
    randomized(whole, x.shape)
    y, h, c = outputs_of(whole, x, **kinds)
    assert h.shape == c.shape == (3, 4, 6, 4)
    for iterations in (1, 3):
        part = make_way(way, iterations=iterations, return_iterations=True)
        part.build(x.shape)
        part.set_weights(whole.get_weights()[: len(part.get_weights())])
        _, part_h, part_c = outputs_of(part, x, **kinds)
        close(part_h, h[:, :iterations])
        close(part_c, c[:, :iterations])
    # The output is the projection of the last states.
    kernel, bias = arrays(whole.projection.kernel), arrays(whole.projection.bias)
    expected = np.concatenate([h[:, -1], c[:, -1]], axis=-1) @ kernel + bias
    close(y, np.where(kinds["mask"][..., None], expected, 0.0))
    plain = make_way(way)
    plain.build(x.shape)
    plain.set_weights(whole.get_weights())
    close(outputs_of(plain, x, **kinds)[0], y)


def test_the_largest_share_a_gradient():
    x = np.array([[[2.0], [1.0], [2.0]]], "float32")
    _, gradient, _ = testing.outputs_and_gradients(layers.MaxPooling(), x)
    np.testing.assert_allclose(gradient, [[[0.5], [0.0], [0.5]]])


def seeds(count):
    return layers.PoolingByMultiheadAttention(4, num_heads=1, num_seeds=count)


@pytest.mark.parametrize(
    "make",
    [
        lambda pooling: layers.PermutationEquivariantDense(3, pooling=pooling),
        lambda pooling: layers.Swarm(3, hidden_units=4, iterations=2, pooling=pooling),
    ],
    ids=["dense", "swarm"],
)
def test_what_is_pooled_has_a_place_in_its_own_set(make):
    """Not at those of other sets or entities, where there are as many of them by chance."""
    x = np.random.default_rng(0).normal(size=(2, 2, 5, 4))
    testing.assert_permutation_equivariant(make(seeds(1)), x, gradients=False)
    with pytest.raises(ValueError, match=r"`pooling`, expected .* gives shape \(None, 5, 4\)"):
        make(seeds(5))(x[0])

    def over_one_axis(x, mask=None, weights=None):
        return ops.mean(x, axis=1)

    testing.assert_permutation_equivariant(make(over_one_axis), x[0], gradients=False)
    with pytest.raises(ValueError, match="`pooling`, expected .* gives shape"):
        make(over_one_axis)(x)


def test_dss_pools_to_one_element():
    with pytest.raises(ValueError, match=r"`pooling`, expected .* gives shape \(1, 2, 4\)"):
        layers.DSSDense(3, pooling=seeds(2))(np.ones((1, 5, 4)))


@pytest.mark.parametrize("shape", [(5, 4), (5, 1, 3), (5, 1, 8)])
def test_what_is_pooled_fits_the_cell(shape):
    """As many sets as entities: a vector of a set is not one of an entity."""
    x, state = np.ones((5, 5, 3), "float32"), np.zeros((5, 5, 4), "float32")
    with pytest.raises(ValueError, match=r"expects `pooled` of shape \(..., 4\).*Received: pooled"):
        layers.SwarmCell(4)(x, [state, state], pooled=np.ones(shape, "float32"))
