"""The masks that Keras carries along: what layers make of them, and what they hand on."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import losses
from keras_sets.testing import outputs_and_gradients
from tests.laws import answers
from tests.set_loss_cases import Masked
from tests.set_loss_cases import Traced


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def loss_of(model, data, target, jit_compile=False):
    model.compile(loss="mse", jit_compile=jit_compile)
    return model.test_on_batch(data, target)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("sizes", [(None, 4), (None, None)])
def test_a_loss_leaves_out_masked_elements(sizes, jit_compile, backend):
    """Where a batch has as many sets as these elements and these places, no axis is in doubt."""
    if jit_compile and backend == "torch":
        pytest.skip("torch's compiler is experimental in Keras")
    inputs, given = keras.Input((*sizes, 3)), keras.Input((None,), dtype="bool")
    options = {"padding": "same", "kernel_initializer": "zeros"}
    y = layers.DSSConv1D(2, 3, **options)(inputs, mask=given)
    y = layers.DSSConv1D(2, 3, **options)(y)
    mask = np.arange(4) < np.array([[4], [3], [2], [1]])
    target = np.where(mask, 1.0, 100.0)[..., None, None] * np.ones((4, 2))
    model = keras.Model([inputs, given], y)
    loss = loss_of(model, [values(4, 4, 4, 3), mask], target, jit_compile)
    assert loss == pytest.approx(1.0)


@pytest.mark.parametrize("n", [4, 6])
def test_a_mixture_leaves_out_masked_gaussians(n):
    """Their mask is none of the points, of which there may be as many."""
    points, mixture = values(3, n, 2), values(3, 4, 5, seed=1)
    mask = np.arange(4) < np.array([[3], [1], [0]])
    mixture[~mask] = np.nan
    loss = losses.GaussianMixtureLoss(reduction=None)
    layer = Masked(mask)
    function = Traced(lambda y: loss(points, layer(y)))
    outputs, gradient, _ = outputs_and_gradients(function, mixture, [np.ones((3, n))])
    expected = np.zeros((3, n))
    for i, count in enumerate([3, 1]):
        expected[i] = to_numpy(loss(points[i : i + 1], mixture[i : i + 1, :count]))
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5)
    assert (gradient[~mask] == 0).all()
    assert np.isfinite(gradient).all()
    assert gradient[0].any()


def test_states_of_iterations_have_no_mask():
    """They have an axis more: a mask of the entities would leave out iterations."""
    x, mask = values(3, 3, 2), np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    inputs, given = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    swarm = layers.Swarm(2, iterations=3, return_iterations=True)
    # Without much scatter a set of one entity magnifies rounding.
    options = {"units": 2, "iterations": 2, "em_steps": 1, "scatter": 3.0}
    slots = layers.SlotRefinement(2, **options, return_iterations=True)
    answering = layers.Swarm(2, iterations=3, return_iterations="outputs")
    for outputs in (
        swarm(inputs, mask=given)[1],
        *(f(inputs, mask=given) for f in (slots, answering)),
    ):
        model = keras.Model([inputs, given], outputs)
        (expected,) = answers(model, [x, mask])
        assert expected.shape == (3, 3, 3, 2)
        assert not np.swapaxes(expected, 1, 2)[~mask].any()
        loss = loss_of(model, [x, mask], np.zeros_like(expected))
        assert loss == pytest.approx(np.mean(expected**2), rel=1e-5)


def test_a_mask_of_places_is_one_of_elements():
    x, mask = values(2, 3, 4, 2), np.array([[1, 1, 0], [0, 1, 1]], bool)
    x[~mask] = 0.0
    layer = layers.DSSConv1D(2, 3, padding="same", bias_initializer="ones")
    expected = to_numpy(layer(x, mask=mask))
    masking = keras.layers.Masking(0.0)
    np.testing.assert_allclose(to_numpy(layer(masking(x))), expected, atol=1e-6)
    inputs = keras.Input((None, 4, 2))
    by_place = keras.Model(inputs, layer(masking(inputs), weights=ops.ones_like(inputs[..., 0, 0])))
    np.testing.assert_allclose(by_place.predict_on_batch(x), expected, atol=1e-6)
    # Layers of Keras take the axes of an element away and hand its mask on as it is.
    vectors = keras.layers.TimeDistributed(keras.layers.GlobalAveragePooling1D())
    inputs, given = keras.Input((None, 4, 2)), keras.Input((None,), dtype="bool")
    means = layers.MeanPooling()(vectors(layer(inputs, mask=given)))
    received = keras.Model([inputs, given], means).predict_on_batch([x, mask])
    vectors = expected.mean(axis=2)
    expected = [vectors[i, mask[i]].mean(axis=0) for i in range(2)]
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_an_element_is_there_if_any_of_its_places_is():
    x, mask = values(2, 3, 4, 2), np.array([[1, 1, 0], [0, 1, 1]], bool)
    layer = layers.DSSDense(2, bias_initializer="ones")
    received = to_numpy(layer(Masked(mask[..., None] & (np.arange(4) == 2))(x)))
    np.testing.assert_allclose(received, to_numpy(layer(x, mask=mask)), atol=1e-6)


def test_places_are_there_if_their_element_is():
    """Layers of Keras may add axes and hand the mask of the elements on."""
    x, mask = values(2, 3, 4, 2), np.array([[1, 1, 0], [0, 1, 1]], bool)
    received = to_numpy(layers.MeanPooling()(Masked(mask)(x)))
    expected = [x[i, mask[i]].mean(axis=(0, 1)) for i in range(2)]
    np.testing.assert_allclose(received, expected, atol=1e-6)
    hidden = layers.PermutationEquivariantDense(2)(Masked(mask)(x))
    np.testing.assert_array_equal(to_numpy(hidden._keras_mask), np.repeat(mask[..., None], 4, -1))


def test_a_carried_mask_of_other_entities():
    x = Masked(np.ones((2, 5), bool))(values(2, 4, 3))
    with pytest.raises(ValueError, match=r"`mask` of shape.*mask\.shape=\(2, 5\)"):
        layers.MeanPooling()(x)


@pytest.mark.parametrize("shape", [(0, 3, 5, 2), (2, 0, 5, 2)])
@pytest.mark.parametrize("pooling", ["sum", "centered", "concat_max"])
def test_no_elements(pooling, shape, backend):
    """An empty output, and gradients of zeros; in a graph for batches of any size as well."""
    layer = layers.DSSConv1D(4, 3, dilation_rate=2, pooling=pooling)
    layer.build((None, None, 5, 2))
    y, _, dw = outputs_and_gradients(layer, values(*shape))
    assert y[0].shape == (*shape[:2], 1, 4)
    assert all(
        np.shape(g) == w.shape and not np.any(g) for g, w in zip(dw, layer.weights, strict=True)
    )
    if backend == "tensorflow":
        import tensorflow as tf

        for sizes in ((None, None, 5, 2), (None, None, None, 2)):
            graph = tf.function(layer, input_signature=[tf.TensorSpec(sizes, "float32")])
            assert tuple(graph(tf.constant(values(*shape))).shape) == (*shape[:2], 1, 4)
            full = values(2, 3, 5, 2)
            np.testing.assert_allclose(graph(full), layer(full), atol=1e-5)


def test_a_mask_as_sample_weight():
    """Every real entity counts once in a weighted metric, however many its batch has."""
    inputs, given = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    entities = layers.PermutationEquivariantDense(1)(inputs, mask=given)
    model = keras.Model([inputs, given], entities)
    model.compile(loss="mse", weighted_metrics=["mae"])
    x, mask = values(3, 4, 2), np.arange(4) < np.array([[4], [1], [2]])
    (outputs,) = answers(model, [x, mask])
    target = values(3, 4, 1, seed=1)
    received = model.evaluate(
        [x, mask], target, sample_weight=mask, batch_size=1, verbose=0, return_dict=True
    )
    expected = np.abs(outputs - target)[mask].mean()
    assert received["mae"] == pytest.approx(expected, rel=1e-5)


def test_sets_of_sets_by_time_distributed():
    """Each inner set alone gives what all of them padded give, one of them empty, one absent."""
    inputs, mask = keras.Input((None, None, 3)), keras.Input((None, None), dtype="bool")
    dense, pooling = layers.PermutationEquivariantDense(4), layers.MeanPooling()
    x = keras.layers.TimeDistributed(dense)(inputs, mask=mask)
    model = keras.Model([inputs, mask], keras.layers.TimeDistributed(pooling)(x, mask=mask))
    sizes = np.array([[5, 2, 0], [1, 4, 3]])
    given, real = values(2, 3, 5, 3), np.arange(5) < sizes[..., None]
    padded = np.where(real[..., None], given, np.nan)
    received = to_numpy(model([padded, real]))
    for i, j in np.ndindex(2, 3):
        alone = pooling(dense(given[i, j, : sizes[i, j]][None]))
        np.testing.assert_allclose(received[i, j], to_numpy(alone)[0], atol=1e-6)
