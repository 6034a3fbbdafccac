"""Order: permutations of the entities, and what comes after an entity."""

import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import testing
from tests.cases import CASES
from tests.laws import every_case

ORDER = {
    "group": testing.assert_permutation_equivariant,
    "equivariant": testing.assert_permutation_equivariant,
    "invariant": testing.assert_permutation_invariant,
    "causal": testing.assert_causal,
}


def test_every_layer_is_in_the_registry():
    """Those on sets; cells and layers on single elements have tests of their own."""
    others = {"Pooling", "SetLayer", "get_pooling", "SwarmCell", "SwarmStreamingCell"}
    others |= {"CircularConv1D", "CircularConv2D", "CircularConv3D"}
    tested = {type(case.make()).__name__ for case in CASES if case.slow}
    assert set(layers.__all__) - tested == others


@every_case
def test_order(case, thorough):
    assert case.make().symmetry == case.symmetry
    x, mask, weights = case.inputs()
    check = ORDER[case.symmetry]
    layer = case.function()
    options = {"training": case.training, "num_entity_axes": len(case.entities)}
    if case.group is not None:
        options["group"] = case.group
    if case.symmetry != "causal" and not thorough:
        options["permutations"] = 1
    if case.slow and case.bare:
        check(layer, x, gradients=thorough, **options)
    gradients = thorough or case.slow
    check(layer, x, mask=mask, weights=weights, gradients=gradients, **options)


def test_dropout_drops_at_training_only():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer = layers.Swarm(4, dropout=0.5, seed=1)
    one, two = (
        testing.outputs_and_gradients(layer, x, training=training, gradients=False)[0][0]
        for training in (True, False)
    )
    assert np.abs(one - two).max() > 1e-3


@pytest.mark.parametrize("context", ["swarm", "static", "self"])
def test_what_is_dropped(context):
    """Features of h after every iteration, others each time, the same for all entities."""
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    layer = layers.Swarm(3, hidden_units=8, iterations=3, dropout=0.5, context=context)
    layer.build(x.shape)
    masks = layer._dropout_masks(ops.convert_to_tensor(x))
    seen = ops.convert_to_numpy(masks)
    assert seen.shape == (2, 3, 1, 8) and set(seen.ravel()) == {0.0, 2.0}
    assert (seen[0] != seen[1]).any() and (seen[:, 0] != seen[:, 1]).any()
    layer._dropout_masks = lambda x: masks
    h = c = ops.zeros((2, 5, 8))
    pooled = None
    for iteration in range(3):
        h, (_, c) = layer.cell(x, [h, c], pooled=pooled)
        h = h * masks[:, iteration]
        if context != "static" or pooled is None:
            pooled = h if context == "self" else ops.mean(h, axis=1, keepdims=True)
    expected = layer.projection(ops.concatenate([h, c], axis=-1))
    received = ops.convert_to_numpy(layer(x, training=True))
    np.testing.assert_allclose(received, ops.convert_to_numpy(expected), atol=1e-6)
