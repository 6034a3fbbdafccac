"""Graph layers against explicit sums, the ranks of theory, and the laws for nodes."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets.layers import GraphEquivariantDense
from keras_sets.layers.graph_equivariant_dense import BASES
from keras_sets.testing import outputs_and_gradients
from tests.laws import answers


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def basis(x, name, order, output_order, w):
    """One operation on one graph, `(n, n, f)` or `(n, f)` or `(f,)`, by its definition."""
    n = len(w)
    share = w / w.sum()
    eye = np.eye(n)[..., None]
    if order == 2:
        diagonal = x[np.arange(n), np.arange(n)]
        parts = {
            "diagonal": diagonal,
            "row means": np.einsum("j,ijf->if", share, x),
            "column means": np.einsum("i,ijf->jf", share, x),
            "trace": share @ diagonal,
            "total": np.einsum("i,j,ijf->f", share, share, x),
            "identity": x,
            "transpose": x.transpose(1, 0, 2),
        }
    elif order == 1:
        parts = {"identity": x, "mean": share @ x}
    else:
        parts = {"identity": x, "broadcast": x}
    source, _, target = name.partition(" to ")
    if order < 2 and name in ("rows", "columns", "diagonal"):
        source, target = ("identity", name)
    part = parts[source]
    if output_order == 0:
        return part
    if output_order == 1:
        return part if part.ndim == 2 else np.tile(part, (n, 1))
    if part.ndim == 3:
        return part
    if part.ndim == 1:
        full = np.tile(part, (n, n, 1))
        return full * eye if target == "diagonal" else full
    rows = np.repeat(part[:, None], n, axis=1)
    return {"rows": rows, "columns": rows.transpose(1, 0, 2), "diagonal": rows * eye}[target]


def inputs(order, batch, n, features, seed=0):
    return values(batch, *(n,) * order, features, seed=seed)


def test_numbers_of_operations():
    counts = {key: len(names) for key, names in BASES.items()}
    assert counts[2, 2] == 15
    assert counts[2, 1] == counts[1, 2] == 5
    assert counts[1, 1] == counts[2, 0] == 2
    assert counts[1, 0] == 1
    layer = GraphEquivariantDense(4, 2, 2)
    layer.build((None, None, None, 3))
    assert layer.count_params() == 15 * 3 * 4 + 2 * 4


@pytest.mark.parametrize("orders", BASES)
def test_agrees_with_the_definitions(orders):
    n, present = 4, 3
    x = inputs(orders[0], 2, n, 3)
    weights = np.array([[1.0, 0.5, 0.0, 2.0], [0.0, 1.0, 1.0, 1.0]], "float32")
    layer = GraphEquivariantDense(2, *orders)
    layer.build(x.shape)
    for bias in (layer.bias, layer.diagonal_bias):
        if bias is not None:
            bias.assign(values(2, seed=3))
    y = to_numpy(layer(x, weights=weights))
    kernel = to_numpy(layer.kernel)
    for b in range(2):
        real = weights[b] > 0
        assert real.sum() == present
        index = (np.ix_(*[np.flatnonzero(real)] * orders[0])) if orders[0] else ...
        graph = x[b][index]
        wanted = sum(
            basis(graph, name, *orders, weights[b][real]) @ kernel[k]
            for k, name in enumerate(BASES[orders])
        )
        wanted = wanted + to_numpy(layer.bias)
        if orders[1] == 2:
            wanted = wanted + np.eye(present)[..., None] * to_numpy(layer.diagonal_bias)
        index = (np.ix_(*[np.flatnonzero(real)] * orders[1])) if orders[1] else ...
        np.testing.assert_allclose(y[b][index], wanted, atol=1e-5)
        rest = y[b].copy()
        if orders[1]:
            rest[index] = 0
            assert not rest.any()


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (2, 8), (3, 14), (4, 15)])
def test_rank_of_the_basis(n, rank):
    layer = GraphEquivariantDense(15, 2, 2, use_bias=False)
    layer.build((None, n, n, 1))
    layer.kernel.assign(np.eye(15)[:, None, :])
    units = np.eye(n * n, dtype="float32").reshape(n * n, n, n, 1)
    (operations,), _, _ = outputs_and_gradients(layer, units, gradients=False)
    operations = operations.reshape(-1, 15)
    assert np.linalg.matrix_rank(operations, tol=1e-4) == rank


@pytest.mark.parametrize("orders", [o for o in BASES if o[0] > 0])
def test_order_of_the_nodes_and_dirty_padding(orders):
    n, order = 4, [2, 0, 3, 1]
    x = inputs(orders[0], 4, n, 3)
    layer = GraphEquivariantDense(2, *orders, activation="tanh")
    y = to_numpy(layer(x))
    permuted = x
    wanted = y
    for axis in range(1, 1 + orders[0]):
        permuted = np.take(permuted, order, axis=axis)
    for axis in range(1, 1 + orders[1]):
        wanted = np.take(wanted, order, axis=axis)
    np.testing.assert_allclose(to_numpy(layer(permuted)), wanted, atol=1e-5)

    padded = np.full((4, *(n + 2,) * orders[0], 3), np.nan, "float32")
    padded[(slice(None), *(slice(n),) * orders[0])] = x
    mask = np.arange(n + 2) < np.array([n, n, n, 0])[:, None]
    z = to_numpy(layer(padded, mask=mask))
    where = (slice(3), *(slice(n),) * orders[1])
    np.testing.assert_allclose(z[where], y[:3], atol=1e-5)
    assert np.isfinite(z).all()
    _, dx, dw = outputs_and_gradients(layer, padded, mask=mask)
    assert np.isfinite(dx).all()
    assert not dx[3].any()
    assert not dx[:, n:].any()
    assert all(np.isfinite(g).all() for g in dw)


@pytest.mark.parametrize("orders", [o for o in BASES if o[0] > 0])
def test_weights_are_repetitions_of_nodes(orders):
    counts = np.array([1, 3, 2])
    x = inputs(orders[0], 1, 3, 2)
    repeated, expected = x, None
    for axis in range(1, 1 + orders[0]):
        repeated = np.repeat(repeated, counts, axis=axis)
    layer = GraphEquivariantDense(2, *orders)
    expected = to_numpy(layer(x, weights=counts[None].astype("float32")))
    for axis in range(1, 1 + orders[1]):
        expected = np.repeat(expected, counts, axis=axis)
    y = to_numpy(layer(repeated))
    if orders[1] == 2:  # copies of one node have edges between them, which one node has not
        node = np.repeat(np.arange(3), counts)
        between = (node[:, None] == node[None, :]) & ~np.eye(6, dtype=bool)
        expected, y = expected[:, ~between], y[:, ~between]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    weights = counts[None].astype("float32")
    huge = to_numpy(layer(x, weights=1e38 * weights))  # their sum is infinite
    np.testing.assert_allclose(huge, to_numpy(layer(x, weights=weights)), atol=1e-5)


@pytest.mark.parametrize("orders", BASES)
def test_files_symbolic_shapes_and_configurations(orders, tmp_path):
    layer = GraphEquivariantDense(2, *orders, activation="relu", bias_regularizer="l2")
    x, mask = keras.Input((*(None,) * orders[0], 3)), keras.Input((None,), dtype="bool")
    model = keras.Model([x, mask], layer(x, mask=mask))
    assert model.output_shape == (None, *(None,) * orders[1], 2)
    config = json.loads(json.dumps(layer.get_config()))
    assert GraphEquivariantDense.from_config(config).get_config() == layer.get_config()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    data = [inputs(orders[0], 2, 4, 3), np.array([[1, 1, 1, 0], [0, 1, 0, 0]], bool)]
    (y,) = answers(model, data)
    assert y.shape == (2, *(4,) * orders[1], 2)
    np.testing.assert_array_equal(answers(again, data)[0], y)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(dtype):
    layer = GraphEquivariantDense(2, 2, 2, dtype=dtype)
    y = layer(values(2, 4, 4, 3), weights=np.full((2, 4), 300.0, "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == dtype[6:]
    big = np.ones((1, 3000, 1), "float32")
    mean = GraphEquivariantDense(1, 1, 0, dtype=dtype, kernel_initializer="ones")(big)
    np.testing.assert_allclose(to_numpy(ops.cast(mean, "float32")), 1, atol=1e-2)


def test_errors():
    with pytest.raises(ValueError, match="`output_order`, expected one of 0, 1, 2"):
        GraphEquivariantDense(2, 1, 3)
    with pytest.raises(ValueError, match=r"shape `\(batch, n, n, features\)`"):
        GraphEquivariantDense(2, 2, 1)(values(2, 3, 4, 5))
    with pytest.raises(ValueError, match="for the number of nodes"):
        GraphEquivariantDense(2, 0, 1)(values(2, 3))
    with pytest.raises(ValueError, match=r"`mask` of shape `\(batch, n\)`"):
        GraphEquivariantDense(2, 2, 1)(values(2, 4, 4, 5), mask=np.ones((2, 4, 4), bool))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_loss_leaves_out_masked_edges(backend, jit_compile):
    """Where the batch is as large as the graph, a mask of nodes would fit edges as well."""
    if jit_compile and backend == "torch":
        pytest.skip("torch's compiler is experimental in Keras")
    n = batch = 4
    nodes, given = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
    pairs = GraphEquivariantDense(2, 1, 2, kernel_initializer="zeros")(nodes, mask=given)
    pairs = GraphEquivariantDense(2, 2, 2, kernel_initializer="zeros")(pairs)
    model = keras.Model([nodes, given], pairs)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    mask = np.arange(n) < np.array([[4], [3], [2], [1]])
    there = mask[:, :, None] & mask[:, None, :]
    target = np.where(there, 1.0, 100.0)[..., None] * np.ones(2)
    data = [values(batch, n, 3), mask]
    assert model.test_on_batch(data, target) == pytest.approx(1.0)


def test_masks_of_edges_that_keras_carries():
    x = values(2, 4, 4, 3)
    mask = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], bool)
    x[~(mask[:, :, None] & mask[:, None, :])] = 0
    x[0, 0, 1] = 0  # an edge that is not there, between nodes that are
    for order in (0, 1, 2):
        layer = GraphEquivariantDense(2, 2, order, bias_initializer="ones")
        y = layer(keras.layers.Masking(0.0)(x))
        np.testing.assert_allclose(to_numpy(y), to_numpy(layer(x, mask=mask)), atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_node_with_edges_one_way_is_there(order):
    """Node 0 has edges from it alone, node 2 edges to it, node 3 none."""
    x = values(1, 4, 4, 3)
    edges = np.zeros((4, 4), bool)
    edges[[0, 0, 1], [1, 2, 2]] = True
    x[:, ~edges] = 0
    layer = GraphEquivariantDense(2, 2, order, bias_initializer="ones")
    received = layer(keras.layers.Masking(0.0)(x))
    expected = layer(x, mask=np.array([[True, True, True, False]]))
    np.testing.assert_allclose(to_numpy(received), to_numpy(expected), atol=1e-6)
    # What a layer between writes to edges that are not there does not count.
    between = keras.layers.Dense(3, bias_initializer="ones")
    received = layer(between(keras.layers.Masking(0.0)(x)))
    expected = layer(to_numpy(between(x)) * edges[..., None], mask=np.array([[1, 1, 1, 0]], bool))
    np.testing.assert_allclose(to_numpy(received), to_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("output_order", [1, 2])
def test_symbolic_shapes_of_graphs_without_nodes(output_order):
    layer = GraphEquivariantDense(2, 0, output_order)
    expected = (2, *(5,) * output_order, 2)
    mask = np.ones((2, 5))
    assert tuple(layer(values(2, 3), mask=mask.astype(bool)).shape) == expected
    inputs = keras.KerasTensor((2, 3))
    assert layer(inputs, mask=keras.KerasTensor((2, 5), "bool")).shape == expected
    assert layer(inputs, weights=keras.KerasTensor((2, 5))).shape == expected
