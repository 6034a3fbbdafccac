"""Deep sets of symmetric elements against the formula, and their second symmetry."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets.layers import DSS
from keras_sets.layers import CircularConv2D
from keras_sets.layers import DSSConv1D
from keras_sets.layers import DSSConv2D
from keras_sets.layers import DSSConv3D
from keras_sets.layers import DSSDense
from keras_sets.layers import MeanPooling
from keras_sets.layers import PermutationEquivariantDense
from keras_sets.layers import PoolingMaps
from keras_sets.testing import outputs_and_gradients


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


POOLS = {"sum": np.sum, "mean": np.mean, "max": np.max}


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolutions_agree_with_the_formula_element_by_element(pooling, padding):
    x = values(2, 3, 5, 6, 2)
    layer = DSSConv2D(4, 3, padding=padding, pooling=pooling, activation="relu")
    y = to_numpy(layer(x))
    pooled = to_numpy(layer.pooled_layer(POOLS[pooling](x, axis=1)))
    for i in range(3):
        wanted = np.maximum(to_numpy(layer.layer(x[:, i])) + pooled, 0)
        np.testing.assert_allclose(y[:, i], wanted, atol=1e-5)


def test_the_two_published_variants():
    x = values(2, 3, 5, 2)
    centered = DSSConv1D(4, 3, pooling="centered")
    y = to_numpy(centered(x))
    wanted = to_numpy(centered.layer(x[:, 1] - x.mean(axis=1)))
    np.testing.assert_allclose(y[:, 1], wanted, atol=1e-5)
    largest = DSSConv1D(4, 3, pooling="concat_max")
    y = to_numpy(largest(x))
    both = np.concatenate([x[:, 1], x.max(axis=1)], axis=-1)
    np.testing.assert_allclose(y[:, 1], to_numpy(largest.layer(both)), atol=1e-5)
    for layer in (centered, largest):
        assert layer.pooled_layer is None
        assert layer.compute_output_shape((2, 3, 5, 2)) == (2, 3, 3, 4)


@pytest.mark.parametrize("pooling", ["sum", "mean", "max", "centered", "concat_max"])
def test_masks_weights_and_dirty_padding(pooling):
    x = values(2, 4, 5, 2)
    counts = np.array([[1, 3, 0, 2], [0, 0, 0, 0]])
    layer = DSSConv1D(3, 3, padding="same", pooling=pooling)
    dirty = np.where(counts[..., None, None] > 0, x, np.nan)
    y = to_numpy(layer(dirty, weights=counts.astype("float32")))
    repeated = to_numpy(layer(np.repeat(x[:1], counts[0], axis=1)))[0]
    np.testing.assert_allclose(np.repeat(y[0], counts[0], axis=0), repeated, atol=1e-5)
    assert not y[counts == 0].any()
    mask = counts > 0
    _, dx, dw = outputs_and_gradients(layer, dirty, mask=mask)
    assert np.isfinite(dx).all()
    assert not dx[~mask].any()
    assert all(np.isfinite(g).all() for g in dw)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: DSSConv1D(2, 4, padding="circular"), (2, 3, 7, 2)),
        (lambda: DSSConv2D(2, (3, 2), padding="circular", dilation_rate=2), (2, 3, 5, 6, 2)),
        (lambda: DSSConv3D(2, 3, padding="circular"), (1, 2, 3, 4, 5, 1)),
    ],
)
def test_circular_padding_is_equivariant_to_shifts(make, shape):
    x = values(*shape)
    layer = make()
    y = to_numpy(layer(x))
    assert y.shape == layer.compute_output_shape(shape) == (*shape[:-1], 2)
    for axis in range(2, len(shape) - 1):
        shifted = to_numpy(layer(np.roll(x, 2, axis=axis)))
        np.testing.assert_allclose(shifted, np.roll(y, 2, axis=axis), atol=1e-5)
    inside = type(layer).from_config({**layer.get_config(), "padding": "same"})
    inside.build(shape)
    inside.set_weights(layer.get_weights())
    middle = tuple(slice(size // 2, size // 2 + 1) for size in shape[2:-1])
    if min(shape[2:-1]) >= 7:  # far from the edges both paddings are the same
        where = (slice(None), slice(None), *middle)
        np.testing.assert_allclose(to_numpy(inside(x))[where], y[where], atol=1e-5)


def test_strides_around_the_circle():
    layer = DSSConv1D(2, 3, strides=2, padding="circular")
    y = to_numpy(layer(values(2, 3, 7, 1)))
    assert y.shape == layer.compute_output_shape((2, 3, 7, 1)) == (2, 3, 4, 2)
    assert DSSConv1D(2, 8, padding="circular")(values(2, 3, 7, 1)).shape == (2, 3, 7, 2)
    with pytest.raises(ValueError, match="kernel of size 9"):
        DSSConv1D(2, 9, padding="circular")(values(2, 3, 7, 1))


def test_dense_elements_are_deep_sets():
    x = values(2, 5, 3)
    dss = DSSDense(4, pooling="mean", activation="tanh")
    dense = PermutationEquivariantDense(4, pooling="mean", activation="tanh")
    dss.build(x.shape)
    dense.build(x.shape)
    dense.kernel.assign(dss.layer.kernel)
    dense.pooled_kernel.assign(dss.pooled_layer.kernel)
    np.testing.assert_allclose(to_numpy(dss(x)), to_numpy(dense(x)), atol=1e-6)
    assert dss.count_params() == dense.count_params()


def test_any_layer_and_elements_that_are_sets():
    inner = PermutationEquivariantDense(4)
    layer = DSS(inner, pooling=MeanPooling(), activation="relu")
    x = values(2, 3, 5, 2)
    y = to_numpy(layer(x))
    order, points = [2, 0, 1], [4, 2, 0, 1, 3]
    permuted = to_numpy(layer(x[:, order][:, :, points]))
    np.testing.assert_allclose(permuted, y[:, order][:, :, points], atol=1e-5)
    network = keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    network.build((None, 3))
    assert DSS(network)(values(2, 4, 3)).shape == (2, 4, 2)


def test_the_clone_has_weights_of_its_own():
    seeded = keras.initializers.GlorotUniform(seed=1)
    layer = DSS(keras.layers.Dense(4, kernel_initializer=seeded))
    layer.build((None, None, 3))
    assert not np.allclose(to_numpy(layer.layer.kernel), to_numpy(layer.pooled_layer.kernel))
    conv = DSSConv1D(4, 3, kernel_initializer=seeded)
    conv.build((None, None, 7, 3))
    assert not np.allclose(to_numpy(conv.layer.kernel), to_numpy(conv.pooled_layer.kernel))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DSS(keras.layers.Conv2D(4, 3), keras.layers.Conv2D(4, 3), pooling="max"),
        lambda: DSS(keras.layers.Conv2D(4, 3), pooling="centered", activation="relu"),
        lambda: DSSConv2D(4, 3, padding="circular", kernel_regularizer="l2"),
        lambda: DSSConv2D(4, 3, strides=2, padding="same", pooling="concat_max"),
    ],
)
def test_configurations_and_files(make, tmp_path):
    layer = make()
    inputs = keras.Input((None, 6, 5, 2))
    model = keras.Model(inputs, layer(inputs))
    config = json.loads(json.dumps(layer.get_config()))
    copy = type(layer).from_config(config)
    assert json.loads(json.dumps(copy.get_config())) == config
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = values(2, 3, 6, 5, 2)
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(dtype):
    layer = DSSConv1D(3, 3, pooling="mean", dtype=dtype)
    y = layer(values(2, 3, 5, 2), weights=np.full((2, 3), 300.0, "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == dtype[6:]


def test_unknown_sizes_of_the_elements():
    inputs = keras.Input((None, None, None, 1))
    model = keras.Model(inputs, DSSConv2D(2, 3, padding="same")(inputs))
    assert model.output_shape == (None, None, None, None, 2)
    assert model.predict(values(2, 3, 5, 4, 1), verbose=0).shape == (2, 3, 5, 4, 2)


def test_errors():
    with pytest.raises(ValueError, match="`layer`, expected a Keras layer"):
        DSS("dense")
    with pytest.raises(ValueError, match="there is no pooled layer"):
        DSS(keras.layers.Dense(2), keras.layers.Dense(2), pooling="centered")
    with pytest.raises(ValueError, match="which is causal"):
        DSS(keras.layers.Dense(2), pooling="causal_mean")
    with pytest.raises(ValueError, match="which is equivariant"):
        DSS(keras.layers.Dense(2), pooling=PoolingMaps(1))
    with pytest.raises(ValueError, match=r"`mask` of shape `\(batch, n\)`"):
        DSSConv1D(2, 3)(values(2, 3, 5, 2), mask=np.ones((2, 3, 5), bool))
    with pytest.raises(ValueError, match="rank 3"):
        DSSDense(2)(values(2, 3))
    with pytest.raises(ValueError, match="padding='full'"):
        DSSConv1D(2, 3, padding="full")
    for name, wrong in (("padding", "same"), ("data_format", "channels_first")):
        with pytest.raises(ValueError, match=f"`{name}` is no argument.*{name}='{wrong}'"):
            CircularConv2D(2, 3, **{name: wrong})


class Spy(keras.layers.Layer):
    def call(self, x):
        self.seen = to_numpy(x)
        return 1.0 * x

    def compute_output_shape(self, input_shape):
        return input_shape


def test_absent_elements_of_variants():
    """Their layer sees zeros in their place; no maximum is theirs, and no activation."""
    x = -1 - np.random.default_rng(0).random((1, 3, 2)).astype("float32")
    mask, spy = np.array([[True, False, True]]), Spy()
    DSS(spy, pooling="centered")(x, mask=mask)
    there = x[0, mask[0]]
    np.testing.assert_allclose(spy.seen[mask[0]], there - there.mean(axis=0), atol=1e-6)
    assert not spy.seen[1].any()
    DSS(spy, pooling="concat_max")(x, mask=mask)
    np.testing.assert_allclose(spy.seen[:, 2:], np.tile(there.max(axis=0), (3, 1)))
    for pooling in ("sum", "centered"):
        y = DSSDense(2, pooling=pooling, activation="sigmoid")(x, mask=mask)
        assert (to_numpy(y)[0] > 0).tolist() == [[True] * 2, [False] * 2, [True] * 2]
