"""Numbers at their limits: long sets, large offsets, infinities, extreme weights, nothing."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import losses
from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.ops import loops
from keras_sets.testing import outputs_and_gradients
from tests import reference
from tests.cases import CASES
from tests.laws import outputs_of

POOLINGS = {
    "mean": layers.MeanPooling,
    "sum": layers.SumPooling,
    "max": layers.MaxPooling,
    "logsumexp": layers.LogSumExpPooling,
    "causal": layers.CausalMeanPooling,
}
INFINITE = np.array([[[-np.inf], [-np.inf], [0]], [[-np.inf], [np.inf], [1]], [[7], [1], [2]]])
INFINITE = INFINITE.astype("float32")
PRESENT = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)


def to_numpy(x):
    return ops.convert_to_numpy(x)


# --- Sums over many entities ---------------------------------------------------------


@pytest.mark.parametrize("features", [1, 3])
def test_a_million_entities(features):
    """One float32 after the other would end at 0.10096."""
    x = np.full((1, 1_000_000, features), 0.1, "float32")
    mean = to_numpy(layers.MeanPooling()(x))
    np.testing.assert_allclose(mean, 0.1, rtol=3e-5)
    causal = to_numpy(layers.CausalMeanPooling()(x))
    np.testing.assert_allclose(causal, 0.1, rtol=3e-5)
    np.testing.assert_allclose(to_numpy(layers.SumPooling()(x)), 1e5, rtol=3e-5)


@pytest.mark.parametrize("n", [1, 32, 33, 1024, 1500])
def test_running_means(n, backend, monkeypatch):
    """In blocks and in blocks of blocks, as accelerators make them."""
    if backend == "jax":
        monkeypatch.setattr(loops, "jax_on_accelerator", lambda: True)
    x = np.random.default_rng(0).normal(size=(2, n, 3)).astype("float32")
    counts = np.arange(1, n + 1)[:, None]
    (y,), gradient, _ = outputs_and_gradients(layers.CausalMeanPooling(), x)
    np.testing.assert_allclose(y, np.cumsum(x, axis=1, dtype="float64") / counts, atol=1e-5)
    later = np.cumsum(1 / counts[::-1], axis=0)[::-1]
    np.testing.assert_allclose(gradient, np.broadcast_to(later, x.shape), rtol=1e-5)


@pytest.mark.parametrize("place", [0, 40])
def test_what_is_not_finite_reaches_nothing_before_it(place, backend, monkeypatch):
    if backend == "jax":
        monkeypatch.setattr(loops, "jax_on_accelerator", lambda: True)
    x = np.ones((1, 100, 1), "float32")
    x[0, place] = np.nan
    y = to_numpy(layers.CausalMeanPooling()(x))[0, :, 0]
    assert (y[:place] == 1).all() and np.isnan(y[place:]).all()


def test_a_million_entities_in_a_compiled_model():
    """XLA adds up one float32 after the other, on TensorFlow: 0.10096."""
    inputs = keras.Input((None, 1))
    poolings = [layers.MeanPooling(), layers.SoftmaxPooling(), layers.VariancePooling()]
    model = keras.Model(inputs, [pooling(inputs) for pooling in poolings])
    model.compile(jit_compile=keras.config.backend() != "torch")
    x = np.full((1, 1_000_000, 1), 0.1, "float32")
    mean, softmax, variance = model.predict(x, verbose=0)
    np.testing.assert_allclose([mean.item(), softmax.item()], 0.1, rtol=3e-5)
    assert abs(variance.item()) < 1e-9


@pytest.mark.parametrize("name", ["mean", "sum", "logsumexp", "causal"])
@pytest.mark.parametrize("size", [(1024,), (1025,), (3, 700)])
def test_sums_in_blocks(backend, name, size, rng):
    x = rng.normal(size=(2, *size, 2)).astype("float32")
    weights = rng.random((2, *size)).astype("float32") * (rng.random((2, *size)) < 0.7)
    flat = x.reshape(2, -1, 2).astype("float64"), weights.reshape(2, -1).astype("float64")
    if name == "causal":
        sums = np.cumsum(flat[0] * flat[1][..., None], axis=1)
        expected = sums / np.maximum(np.cumsum(flat[1], axis=1), 1e-9)[..., None]
        expected = np.where(flat[1][..., None] > 0, expected, 0).reshape(x.shape)
    else:
        expected = reference.pool(name, *flat)
    inputs, given = keras.Input((*(None,) * len(size), 2)), keras.Input((None,) * len(size))
    model = keras.Model([inputs, given], POOLINGS[name]()(inputs, weights=given))
    if backend == "tensorflow":  # leaves the third size open
        for n in (2, 3):
            few = (slice(None), *(slice(n),) * len(size))
            model.predict_on_batch([x[few], weights[few]])
    for received in (model([x, weights]), model.predict_on_batch([x, weights])):
        np.testing.assert_allclose(to_numpy(received), expected, rtol=2e-5, atol=2e-5)


# --- Normalisation far from 0 ----------------------------------------------------------


def standardized(x, epsilon=1e-5):
    x = x.astype("float64")
    deviation = x - x.mean(axis=(1, 2), keepdims=True)
    return deviation / np.sqrt(np.square(deviation).mean(axis=(1, 2), keepdims=True) + epsilon)


def test_normalization_far_from_zero(rng):
    normalize = layers.SetNormalization()
    constant = np.full((1, 1000, 3), 1234567.0, "float32")
    np.testing.assert_allclose(to_numpy(normalize(constant)), 0, atol=1e-6)
    noise = (1e6 + 0.1 * rng.normal(size=(1, 1000, 3))).astype("float32")
    np.testing.assert_allclose(to_numpy(normalize(noise)), standardized(noise), atol=1e-4)
    near = rng.normal(size=(1, 20, 3)).astype("float32")
    cotangents = [rng.normal(size=near.shape)]
    _, gradient, _ = outputs_and_gradients(layers.SetNormalization(), near, cotangents)
    step = 1e-3 * gradient / np.abs(gradient).max()
    change = (standardized(near + step) - standardized(near - step)) * cotangents[0]
    assert change.sum() == pytest.approx(2 * (step * gradient).sum(), rel=1e-3)


# --- float64 ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*POOLINGS, "normalization"])
def test_float64_is_float64(float64, name, rng):
    x = rng.normal(size=(2, 5, 3)) + 100
    layer = {**POOLINGS, "normalization": layers.SetNormalization}[name]()
    expected = standardized(x) if name == "normalization" else None
    if expected is None:
        expected = reference.pool(name, x, np.ones((2, 5)))
    y = layer(ops.convert_to_tensor(x, "float64"))
    assert keras.backend.standardize_dtype(y.dtype) == "float64"
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-11, atol=1e-11)
    if hasattr(layer, "merge"):
        parts = [layer.update(layer.init(2, 3), part) for part in (x[:, :2], x[:, 2:])]
        whole = to_numpy(layer.finish(layer.merge(*parts)))
        last = expected[:, -1] if name == "causal" else expected
        np.testing.assert_allclose(whole, last, rtol=1e-11)


def test_principal_axes_of_float64(float64, rng):
    """The mean of the variances of the axes is 1."""
    x = rng.normal(size=(9, 50, 3)) * [3, 2, 1]
    y = to_numpy(layers.PrincipalAxes(dtype="float64")(ops.convert_to_tensor(x, "float64")))
    np.testing.assert_allclose(np.square(y).mean(axis=(1, 2)), 1, rtol=5e-10)


def test_steps_of_float64(float64, rng):
    """Steps before the last one are half of the loss."""
    y_true, y_pred = rng.integers(0, 3, (1, 5)), rng.normal(size=(1, 4, 5, 3))
    loss = losses.MatchedCrossentropy(reduction=None)
    every = [to_numpy(loss(y_true, y_pred[:, [step, 3]]))[0] for step in range(3)]
    received = to_numpy(loss(y_true, y_pred))[0]
    assert received == pytest.approx(np.mean(every), rel=1e-12)


def test_small_weights_of_float64(float64):
    x, weights = np.array([[[1.0], [4.0]]]), np.array([[2e-50, 1e-50]])
    np.testing.assert_allclose(to_numpy(layers.MeanPooling()(x, weights=weights)), [[2.0]])
    both = np.concatenate([np.ones((1, 2)), weights])
    with pytest.raises(ValueError, match="float32 can hold.*1 of 2 sets.*2e-50"):
        layers.MeanPooling(dtype="float32")(np.ones((2, 2, 1)), weights=both)


# --- Infinities, and weights far apart ---------------------------------------------------


@pytest.mark.parametrize("name", ["max", "logsumexp"])
def test_infinite_entities(name):
    """The largest of minus infinity is minus infinity, that of nothing is 0."""
    expected = [-np.inf, np.inf, 0]
    pooling = POOLINGS[name]()
    assert to_numpy(pooling(INFINITE, mask=PRESENT)).ravel().tolist() == expected
    assert to_numpy(pooling(INFINITE[:2, :2])).ravel().tolist() == expected[:2]
    state = pooling.init(3, 1)
    for chunk in (slice(0, 1), slice(1, 3)):
        state = pooling.update(state, INFINITE[:, chunk], PRESENT[:, chunk])
    assert to_numpy(pooling.finish(state)).ravel().tolist() == expected
    _, gradient, _ = outputs_and_gradients(pooling, INFINITE[:1], mask=PRESENT[:1])
    assert np.isfinite(gradient).all()


def test_weights_far_apart():
    """What counts is the exponent with the logarithm of its weight: 120 - 69 against 69."""
    exponents, weights = np.array([[120.0, 0.0]], "float32"), np.array([[1e-30, 1e30]], "float32")
    ones, values = np.ones((1, 1, 1, 1), "float32"), np.array([1.0, 2.0], "float32")
    attended = set_ops.set_attention(
        *(ops.convert_to_tensor(t) for t in (ones, exponents[..., None, None])),
        ops.convert_to_tensor(values.reshape(1, 2, 1, 1)),
        weights=ops.convert_to_tensor(weights),
    )
    np.testing.assert_allclose(to_numpy(attended).ravel(), 2.0, rtol=1e-6)
    # Scores of which exponentials are infinite, of any size together.
    scores = np.array([1000.0, 999.0], "float32").reshape(1, 2, 1, 1)
    for offset in (0.0, -2000.0):
        query, key, value = (ops.convert_to_tensor(t) for t in (ones, scores + offset, scores))
        attended = to_numpy(set_ops.set_attention(query, key, value)).item()
        assert attended == pytest.approx(999 + 1 / (1 + np.exp(-1)), rel=1e-6)
    x = np.stack([values, exponents[0], [1, 1]], axis=-1)[None].astype("float32")
    maps = layers.PoolingMaps(1)
    np.testing.assert_allclose(to_numpy(maps(x, weights=weights)).ravel(), 2.0, rtol=1e-6)
    state = maps.init(1, 3)
    for i in range(2):
        state = maps.update(state, x[:, i : i + 1], weights=weights[:, i : i + 1])
    np.testing.assert_allclose(to_numpy(maps.finish(state)).ravel(), 2.0, rtol=1e-6)
    expected = np.logaddexp(120 + np.log(1e-30), np.log(1e30))
    pooled = layers.LogSumExpPooling()(exponents[..., None], weights=weights)
    np.testing.assert_allclose(to_numpy(pooled).ravel(), expected, rtol=1e-6)


def test_a_running_mean_of_small_weights():
    x, weights = np.array([[[1.0], [2.0], [6.0]]], "float32"), np.array([[1.0, 1.0, 2.0]])
    for factor in (1e-6, 1e-30):
        y = to_numpy(layers.CausalMeanPooling()(x, weights=factor * weights))
        np.testing.assert_allclose(y, [[[1.0], [1.5], [3.75]]], rtol=1e-6)


@pytest.mark.parametrize("weight", [1e38, 3e38])
def test_the_largest_weights(weight):
    x, weights = np.array([[[1.0], [4.0], [7.0]]], "float32"), np.full((1, 3), weight, "float32")
    for layer, expected in (
        (layers.MeanPooling(), 4),
        (layers.MedianPooling(), 4),
        (layers.VariancePooling(), 6),
    ):
        y = to_numpy(layer(x, weights=weights))
        np.testing.assert_allclose(y, [[expected]], rtol=1e-6)


# --- Weights that are no weights -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*POOLINGS, "median", "sort", "normalization", "attention", "maps"]
)
def test_weights_that_cannot_be_seen_make_nan(name, monkeypatch):
    """In compiled graphs no check sees them; only the set that holds them is hurt."""
    make = {
        **POOLINGS,
        "median": layers.MedianPooling,
        "sort": layers.SortPooling,
        "normalization": layers.SetNormalization,
        "attention": lambda: layers.PoolingByMultiheadAttention(2, 1),
        "maps": lambda: layers.PoolingMaps(1),
    }[name]
    layer = make()
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("float32")
    weights = np.ones((2, 3), "float32")
    expected = to_numpy(layer(x, weights=weights))
    mask = np.array([[True, True, True], [True, True, False]])
    for wrong, hidden in ((-1.0, "weights"), (np.nan, "weights"), (0.5, "mask"), (2.0, "mask")):
        weights[0, 0] = wrong
        if hidden == "mask":
            with pytest.raises(ValueError, match="bool `mask`.*`weights=`.*1 of 6 numbers"):
                layer(x, weights)
        with monkeypatch.context() as context:
            context.setattr(validation, "visible_array", lambda x: None)
            received = to_numpy(layer(x, **{hidden: weights}))
            assert np.isnan(received[0]).all()
            np.testing.assert_allclose(received[1], expected[1], rtol=1e-6)
            if hidden == "weights":
                weights[1, 2] = wrong  # masked, so that it does no harm
                assert np.isfinite(to_numpy(layer(x, mask=mask, weights=weights))[1]).all()
                weights[1, 2] = 1.0


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_masks_of_numbers(dtype):
    """Zeros and ones of any dtype are a mask."""
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("float32")
    mask = np.array([[1, 0, 1], [0, 0, 0]])
    for layer in (layers.MaxPooling(), layers.SetAttentionBlock(2, 1), layers.DSSDense(2)):
        expected = to_numpy(layer(x, mask=mask.astype(bool)))
        received = to_numpy(layer(x, mask=mask.astype(dtype)))
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_sets_that_are_no_tensor():
    ragged = [np.ones((3, 2)), np.ones((2, 2))]
    as_objects = np.empty(2, object)
    as_objects[:] = ragged
    for wrong in (ragged, tuple(ragged), {"x": ragged[0]}, [[[1.0], [2.0]]], as_objects):
        with pytest.raises(
            ValueError, match=r"one array or tensor.*`entities, mask = keras_sets.utils.pad_sets"
        ):
            layers.MeanPooling()(wrong)


# --- Nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*POOLINGS, "maps"])
def test_sets_that_turn_out_to_be_empty(name):
    inputs = keras.Input((None, 3))
    layer = {**POOLINGS, "maps": lambda: layers.PoolingMaps(1)}[name]()
    model = keras.Model(inputs, layer(inputs))
    for size in (2, 3, 0):  # after two sizes TensorFlow leaves the third one open
        received = model.predict_on_batch(np.ones((2, size, 3), "float32"))
    assert received.shape == layer.compute_output_shape((2, 0, 3))
    assert not received.any()


@pytest.mark.parametrize(
    "case",
    # Convolutions of the elements are the backend's own.
    list({type(case.make()): case for case in CASES if not case.elements}.values()),
    ids=lambda case: case.name,
)
def test_a_batch_of_no_sets(case):
    x, mask, weights = (array[:0] for array in case.inputs())
    layer = case.make()
    layer.build((None, *x.shape[1:]))
    expected = tuple(layer.compute_output_shape(x.shape))
    for given in [(mask, weights), *([()] if case.symmetry == "invariant" else [])]:
        (received,) = outputs_of(case, layer, x, *given)
        assert received.shape == expected


def test_numbers_of_numpy_are_options():
    """Saved as plain numbers."""
    layer = layers.Swarm(np.int64(2), dropout=np.float32(0.25), iterations=np.int32(2))
    assert layer.get_config()["dropout"] == 0.25
    normalization = layers.SetNormalization(epsilon=np.float32(0.5))
    assert type(normalization.get_config()["epsilon"]) is float
    for wrong in (np.float32(-1), np.bool_(True), np.float64("nan")):
        with pytest.raises(ValueError, match="`epsilon`, expected a positive number"):
            layers.SetNormalization(epsilon=wrong)
