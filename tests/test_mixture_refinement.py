"""The layer that shares out points among slots."""

import keras
import numpy as np
import pytest

from keras_sets.layers.mixture_refinement import MixtureRefinement


def example(batch):
    """Slots, entities and points of some sets of nine."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(batch, *shape)).astype("float32") for shape in ((3, 4), (9, 5), (9, 2))
    )


def test_slots_know_their_statistics():
    """With keys of zero every slot gets an equal share of all points."""
    layer = MixtureRefinement(iterations=1, num_heads=2)
    slots, entities, points = example(1)
    present = np.arange(9)[None] < 7
    layer(slots, entities, points, present)
    layer.keys.kernel.assign(0 * layer.keys.kernel)
    output = keras.ops.convert_to_numpy(layer(slots, entities, points, present))
    real = points[0, :7]
    expected = [0, 0, *real.mean(axis=0), *np.log(real.std(axis=0)), np.log(1 / 3)]
    for slot in range(3):
        for head in range(2):
            start = 4 + 7 * head
            np.testing.assert_allclose(
                output[0, slot, start : start + 7], expected, rtol=1e-3, atol=1e-3
            )


def test_slots_follow_their_order():
    layer = MixtureRefinement(iterations=2, num_heads=2)
    slots, entities, points = example(2)
    present = np.ones((2, 9), bool)
    expected = keras.ops.convert_to_numpy(layer(slots, entities, points, present))
    received = layer(slots[:, [2, 0, 1]], entities, points, present)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(received), expected[:, [2, 0, 1]], atol=1e-5
    )


def test_absent_points_may_hold_anything():
    layer = MixtureRefinement(iterations=2, num_heads=2)
    slots, entities, points = example(2)
    present = np.broadcast_to(np.arange(9) < 6, (2, 9))
    expected = layer(slots, entities[:, :6], points[:, :6], present[:, :6])
    entities[:, 6:] = points[:, 6:] = np.nan
    received = layer(slots, entities, points, present)
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(t) for t in (received, expected)), atol=1e-5
    )


@pytest.mark.parametrize(
    "arguments, message",
    [((0, 2), "`iterations`"), ((2, 2.0), "`num_heads`"), ((2, 3), "must divide the units")],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        layer = MixtureRefinement(*arguments)
        layer(*(np.zeros(shape) for shape in [(1, 3, 4), (1, 9, 5), (1, 9, 2)]), np.ones((1, 9)))
