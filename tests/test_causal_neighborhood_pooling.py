"""What the places of an image pool: a mean or attention, and their earlier neighbors."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets.layers.causal_neighborhood_pooling import CausalNeighborhoodPooling
from keras_sets.models.image_rows import RowCell


def test_means_and_neighbors(rng):
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


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_attention_and_neighbors(policy, rng):
    x = rng.normal(size=(2, 3, 4, 2, 6)).astype("float32")
    mask, weights = rng.random((2, 3, 4, 2)) < 0.7, rng.random((2, 3, 4, 2)).astype("float32")
    pooling = CausalNeighborhoodPooling(1, channels=2, num_heads=3, dtype=policy)
    pooled = ops.convert_to_numpy(ops.cast(pooling(x, mask=mask, weights=weights), "float32"))
    assert pooled.shape == tuple(pooling.compute_output_shape(x.shape)) == (2, 3, 4, 2, 36)
    beside = CausalNeighborhoodPooling(1, channels=2)(x, mask=mask, weights=weights)
    tolerance = 1e-5 if policy == "float32" else 0.03
    np.testing.assert_allclose(pooled[..., 6:], beside[..., 6:], atol=tolerance)
    parts = x.reshape(2, 24, 6) @ ops.convert_to_numpy(pooling.query_key_value)
    query, key, value = np.moveaxis(parts.reshape(2, 24, 3, 3, 2), 2, 0)
    query, key = (np.where(part > 0, part + 1, np.exp(part)) for part in (query, key))
    scores = np.einsum("bihf,bjhf,ij->bijh", query, key, np.tril(np.ones((24, 24))))
    scores = scores * (mask * weights).reshape(2, 1, 24, 1)
    expected = np.einsum("bijh,bjhf->bihf", scores, value)
    expected = expected / np.maximum(scores.sum(axis=2)[..., None], 1e-30)
    expected = expected.reshape(2, 3, 4, 2, 6) * mask[..., None]
    np.testing.assert_allclose(pooled[..., :6], expected, atol=tolerance)
    few = ops.cast(pooling(x, mask=mask, weights=1e-12 * weights), "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(few), pooled, atol=tolerance)


def test_attention_needs_features_of_every_head():
    with pytest.raises(
        ValueError, match="multiple of `num_heads`. Received: features=6, num_heads=4"
    ):
        CausalNeighborhoodPooling(1, num_heads=4)(np.zeros((1, 2, 2, 1, 6), "float32"))
    swarm = layers.Swarm(4, pooling=CausalNeighborhoodPooling(0, num_heads=2))
    swarm(np.zeros((1, 2, 2, 1, 6), "float32"))
    with pytest.raises(ValueError, match="with attention has no streaming cell"):
        swarm.streaming_cell()


def test_no_chunks_and_no_other_grids():
    pooling = CausalNeighborhoodPooling(1)
    with pytest.raises(ValueError, match="a known height and width"):
        pooling(np.zeros((1, 5, 3), "float32"))
    with pytest.raises(ValueError, match="a known height and width"):
        CausalNeighborhoodPooling(1)(np.zeros((1, 2, 2, 3, 4), "float32"))
    with pytest.raises(ValueError, match="radius"):
        CausalNeighborhoodPooling(0)
    with pytest.raises(NotImplementedError, match="chunks"):
        pooling.init(1, 3)


def test_streams_know_their_grid():
    swarm = layers.Swarm(4, pooling=CausalNeighborhoodPooling(1))
    with pytest.raises(ValueError, match="size of the grid"):
        swarm.streaming_cell()


def test_a_stream_of_places(rng):
    """The streaming cell alone, which keeps what it needs of the rows above."""
    swarm = layers.Swarm(4, iterations=3, pooling=CausalNeighborhoodPooling(1, channels=2))
    x = rng.normal(size=(2, 3, 3, 2, 5)).astype("float32")
    whole = ops.convert_to_numpy(swarm(x)).reshape(2, 18, 4)
    stream = keras.layers.RNN(swarm.streaming_cell(), return_sequences=True)
    received = ops.convert_to_numpy(stream(x.reshape(2, 18, 5)))
    np.testing.assert_allclose(received, whole, atol=1e-5)


@pytest.mark.parametrize("context", ["swarm", "static"])
@pytest.mark.parametrize(
    "policy, heads", [("float32", None), ("mixed_bfloat16", None), ("float32", 2)]
)
def test_a_stream_of_rows(context, policy, heads, rng):
    pooling = CausalNeighborhoodPooling(2, channels=2, num_heads=heads, dtype=policy)
    swarm = layers.Swarm(4, iterations=3, pooling=pooling, context=context, dtype=policy)
    x = rng.normal(size=(2, 3, 3, 2, 5)).astype("float32")
    whole = ops.convert_to_numpy(ops.cast(swarm(x), "float32")).reshape(2, 18, 4)
    cell = RowCell(swarm, x.shape[1:-1])
    states, kernels = cell.get_initial_state(2), cell.kernels()
    assert keras.backend.standardize_dtype(states[0].dtype) == "float32"  # in half precision too
    for place in range(18):
        column = place % 6
        if not column:
            states = cell.start_row(states)
        y, states = cell.call(x.reshape(2, 18, 5)[:, place], column, states, kernels)
        received = ops.convert_to_numpy(ops.cast(y, "float32"))
        tolerance = 1e-5 if policy == "float32" else 0.03
        np.testing.assert_allclose(received, whole[:, place], atol=tolerance)


def test_configuration():
    swarm = layers.Swarm(4, pooling=CausalNeighborhoodPooling(2, channels=3, num_heads=2))
    pooling = layers.Swarm.from_config(swarm.get_config()).pooling
    assert (pooling.radius, pooling.channels, pooling.num_heads) == (2, 3, 2)
