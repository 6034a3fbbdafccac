"""Orbits of permutation groups, and the linear layers that share parameters over them."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import groups
from keras_sets.layers import PermutationGroupDense
from keras_sets.testing import outputs_and_gradients


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def elements(group):
    """All permutations of a small group."""
    found = {tuple(range(group.degree))}
    queue = list(found)
    while queue:
        g = queue.pop()
        for h in group.generators:
            product = tuple(h[i] for i in g)
            if product not in found:
                found.add(product)
                queue.append(product)
    return found


GROUPS = {
    "symmetric": groups.symmetric(4),
    "cyclic": groups.cyclic(5),
    "trivial": groups.trivial(3),
    "product": groups.direct_product(groups.symmetric(3), groups.cyclic(2)),
    "dihedral": groups.from_generators([[1, 2, 3, 4, 0], [4, 3, 2, 1, 0]]),
    "two_orbits": groups.from_generators([[1, 0, 2, 3, 4], [0, 1, 3, 4, 2]]),
}


def test_orbit_counts():
    for n in range(1, 7):
        assert groups.symmetric(n).num_pair_orbits == min(n, 2)
        assert groups.cyclic(n).num_pair_orbits == n
        assert groups.trivial(n).num_pair_orbits == n * n
        assert len(elements(groups.symmetric(n))) == math.factorial(n)
        assert len(elements(groups.cyclic(n))) == n
    group = groups.direct_product(groups.symmetric(5), groups.cyclic(4))
    assert (group.degree, group.num_pair_orbits, group.num_point_orbits) == (20, 8, 1)
    assert groups.trivial(6).num_point_orbits == 6
    # Edges of a graph: the symmetric group on pairs (i, j) has the 15 of the graph layers.
    n = 4
    pairs = np.arange(n * n).reshape(n, n)
    on_pairs = [pairs[np.ix_(g, g)].reshape(-1) for g in groups.symmetric(n).generators]
    group = groups.from_generators(on_pairs)
    assert (group.num_pair_orbits, group.num_point_orbits) == (15, 2)


@pytest.mark.parametrize("name", GROUPS)
def test_orbits_are_those_of_all_elements(name):
    group = GROUPS[name]
    n = group.degree
    orbits = group.pair_orbits
    members = elements(group)
    for i in range(n):
        for j in range(n):
            orbit = {(g[i], g[j]) for g in members}
            same = {(k, m) for k in range(n) for m in range(n) if orbits[k, m] == orbits[i, j]}
            assert orbit == same
        assert {g[i] for g in members} == set(
            np.flatnonzero(group.point_orbits == group.point_orbits[i]).tolist()
        )
    # Numbered in order of the first pair.
    firsts = [np.flatnonzero(orbits.reshape(-1) == k)[0] for k in range(orbits.max() + 1)]
    assert firsts == sorted(firsts)


def test_thousands_of_points():
    group = groups.direct_product(groups.symmetric(30), groups.cyclic(40))
    assert group.degree == 1200
    assert group.num_pair_orbits == 80


def test_groups_are_serialisable_values():
    group = GROUPS["product"]
    copy = groups.PermutationGroup.from_config(json.loads(json.dumps(group.get_config())))
    assert copy == group
    assert hash(copy) == hash(group)
    assert copy != groups.cyclic(6)
    assert repr(groups.cyclic(6)) == "<PermutationGroup degree=6 generators=1>"


@pytest.mark.parametrize("name", GROUPS)
def test_the_layer_agrees_with_the_formula_and_is_equivariant(name):
    group = GROUPS[name]
    n = group.degree
    x = values(2, n, 3)
    y = None
    for sums_first in (False, True):
        layer = PermutationGroupDense(
            4, group, kernel_initializer=keras.initializers.RandomNormal(seed=1)
        )
        layer.build(x.shape)
        layer.bias.assign(values(*layer.bias.shape, seed=2))
        layer._sums_first = sums_first
        kernel, bias = to_numpy(layer.kernel), to_numpy(layer.bias)
        assert kernel.shape == (group.num_pair_orbits, 3, 4)
        wanted = np.einsum("ijfu,bjf->biu", kernel[group.pair_orbits], x)
        wanted = wanted + bias[group.point_orbits]
        y = to_numpy(layer(x))
        np.testing.assert_allclose(y, wanted, atol=1e-5)
    for g in group.generators:
        np.testing.assert_allclose(to_numpy(layer(x[:, g])), y[:, g], atol=1e-5)


def test_no_other_permutation_commutes():
    layer = PermutationGroupDense(4, groups.cyclic(5))
    x = values(2, 5, 3)
    y = to_numpy(layer(x))
    swap = [1, 0, 2, 3, 4]
    assert np.abs(to_numpy(layer(x[:, swap])) - y[:, swap]).max() > 1e-2
    assert layer.symmetry == "group"
    assert PermutationGroupDense(4, groups.symmetric(5)).symmetry == "equivariant"


@pytest.mark.parametrize("group", [groups.symmetric(4), groups.cyclic(4)])
def test_masks_and_weights(group):
    x = values(2, 4, 3)
    mask = np.array([[True, False, True, True], [False, False, False, False]])
    dirty = np.where(mask[..., None], x, np.nan)
    layer = PermutationGroupDense(2, group)
    y = to_numpy(layer(dirty, mask=mask))
    wanted = to_numpy(layer(np.where(mask[..., None], x, 0))) * mask[..., None]
    np.testing.assert_allclose(y, wanted, atol=1e-6)
    weights = np.array([[2.0, 0.0, 0.5, 1.0], [1.0, 1.0, 1.0, 3.0]], "float32")
    y = to_numpy(layer(x, weights=weights))
    wanted = to_numpy(layer(x * weights[..., None])) * (weights > 0)[..., None]
    np.testing.assert_allclose(y, wanted, atol=1e-6)
    _, dx, dw = outputs_and_gradients(layer, dirty, mask=mask)
    assert np.isfinite(dx).all()
    assert not dx[~mask].any()
    assert all(np.isfinite(g).all() for g in dw)


def test_trivial_group_starts_like_a_dense_layer():
    layer = PermutationGroupDense(32, groups.trivial(20), use_bias=False)
    layer.build((None, 20, 32))
    limit = math.sqrt(6 / (20 * 32 * 2))
    assert 0.9 * limit < np.abs(to_numpy(layer.kernel)).max() <= limit * (1 + 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_files_and_half_precision(dtype, tmp_path):
    inputs = keras.Input((None, 2))
    layer = PermutationGroupDense(3, GROUPS["product"], activation="relu", dtype=dtype)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 6, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = values(2, 6, 2)
    y = model(x)
    np.testing.assert_array_equal(
        to_numpy(ops.cast(again(x), "float32")), to_numpy(ops.cast(y, "float32"))
    )
    assert keras.backend.standardize_dtype(y.dtype) == dtype.removeprefix("mixed_")


def test_weights_beyond_half_precision():
    """What the first point gets of the others is 257 - 256."""
    layer = PermutationGroupDense(
        1, groups.symmetric(3), use_bias=False, kernel_initializer="ones", dtype="bfloat16"
    )
    x, weights = np.array([[[0.0], [1.0], [-1.0]]]), np.array([[1.0, 257.0, 256.0]])
    assert to_numpy(ops.cast(layer(x, weights=weights), "float32"))[0, 0, 0] == 1


def test_drawing():
    pytest.importorskip("matplotlib").use("Agg")
    ax = groups.draw(groups.direct_product(groups.symmetric(5), groups.cyclic(4)))
    assert ax.get_title() == "20 points, 8 parameters"
    assert ax.images[0].get_array().shape == (20, 20)


def test_errors():
    with pytest.raises(ValueError, match="each of 0..2 once"):
        groups.from_generators([[0, 0, 1]])
    with pytest.raises(ValueError, match="each of 0..2 once"):
        groups.from_generators([[2, 0, 1], [1, 0]])
    with pytest.raises(ValueError, match="expected permutations"):
        groups.from_generators([2, 0, 1])
    with pytest.raises(ValueError, match="needs a `degree`"):
        groups.from_generators([])
    with pytest.raises(ValueError, match="n=0"):
        groups.cyclic(0)
    with pytest.raises(ValueError, match="`b`, expected a PermutationGroup"):
        groups.direct_product(groups.cyclic(2), 3)
    with pytest.raises(ValueError, match="`group`, expected a group"):
        PermutationGroupDense(3, "cyclic")
    with pytest.raises(ValueError, match="n=5"):
        PermutationGroupDense(3, groups.cyclic(5))(values(2, 4, 3))
