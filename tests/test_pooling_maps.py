"""Pooling maps against NumPy, and what is particular to them."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets.layers import PermutationEquivariantDense
from keras_sets.layers import PoolingMaps
from keras_sets.layers import Swarm
from keras_sets.layers.pooling import get_pooling
from keras_sets.layers.pooling import serialize_pooling
from keras_sets.testing import outputs_and_gradients


def reference(x, num_maps, weights):
    """One set after the other, one map after the other."""
    values = x.shape[-1] - 2 * num_maps
    v, keys, gates = np.split(x, [values, values + num_maps], axis=-1)
    y = np.zeros_like(v)
    for b in range(len(x)):
        present = weights[b] > 0
        for s in range(num_maps):
            if present.any():
                p = weights[b][present] * np.exp(keys[b, present, s])
                pooled = (p / p.sum()) @ v[b, present]
                y[b, present] += gates[b, present, s, None] * pooled
    return y


def test_agrees_with_the_formula_for_masks_weights_and_empty_sets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 11)).astype("float32")
    weights = rng.uniform(0.5, 3, (4, 6)).astype("float32")
    mask = rng.uniform(size=(4, 6)) < 0.7
    mask[2] = False
    wanted = reference(x, 3, weights * mask)
    dirty = np.where(mask[..., None], x, np.nan)
    layer = PoolingMaps(3)
    y = ops.convert_to_numpy(layer(dirty, mask=mask, weights=weights))
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    # A common factor of the weights does not matter, however large.
    huge = ops.convert_to_numpy(layer(dirty, mask=mask, weights=weights * 1e30))
    np.testing.assert_allclose(huge, wanted, atol=1e-5)
    image = ops.convert_to_numpy(
        layer(dirty.reshape(4, 2, 3, 11), mask.reshape(4, 2, 3), weights.reshape(4, 2, 3))
    )
    np.testing.assert_allclose(image.reshape(4, 6, 5), wanted, atol=1e-5)
    infinite = np.where(np.arange(11) < 5, np.inf, dirty)
    assert not ops.convert_to_numpy(layer(infinite, mask=mask, weights=weights))[~mask].any()
    _, dx, _ = outputs_and_gradients(layer, dirty, mask=mask, weights=weights)
    assert np.isfinite(dx).all()
    assert not dx[~mask].any()


def test_large_keys_do_not_overflow():
    x = np.zeros((1, 3, 3), "float32")
    x[..., 0] = [[1.0, 2.0, 3.0]]
    x[..., 1] = [[0.0, 500.0, -500.0]]
    x[..., 2] = 1
    y = ops.convert_to_numpy(PoolingMaps(1)(x))
    np.testing.assert_allclose(y, np.full((1, 3, 1), 2.0), atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_sums_in_float32(dtype):
    x = np.zeros((1, 100_000, 3), "float32")
    x[..., 0] = 1.0
    x[..., 2] = 1.0
    y = ops.convert_to_numpy(ops.cast(PoolingMaps(1, dtype=dtype)(x)[0, :3], "float32"))
    np.testing.assert_allclose(y, 1.0, atol=1e-2)


def test_names_and_configurations():
    assert get_pooling("pooling_maps").num_maps == 4
    assert serialize_pooling(PoolingMaps(4)) == "pooling_maps"
    again = get_pooling(serialize_pooling(PoolingMaps(2)))
    assert again.num_maps == 2
    layer = PermutationEquivariantDense(5, pooling=PoolingMaps(2))
    copy = PermutationEquivariantDense.from_config(layer.get_config())
    assert copy.pooling.num_maps == 2
    assert layer(keras.Input((None, 7))).shape == (None, None, 5)
    assert tuple(layer.pooled_kernel.shape) == (3, 5)
    assert PoolingMaps(2)(np.zeros((2, 0, 7), "float32")).shape == (2, 0, 3)


def test_too_few_features():
    with pytest.raises(ValueError, match="more than 8 features. Received: 8"):
        PoolingMaps(4)(np.zeros((2, 3, 8), "float32"))
    with pytest.raises(ValueError, match="more than 8 features. Received: 6"):
        Swarm(5, hidden_units=6, pooling="pooling_maps")
    with pytest.raises(ValueError, match="num_maps=0"):
        PoolingMaps(0)
    with pytest.raises(ValueError, match="keepdims"):
        PoolingMaps(keepdims=True)
