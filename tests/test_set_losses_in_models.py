"""Losses between sets in training, in files, and when they are given what they cannot take."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import losses
from keras_sets import validation
from keras_sets.ops import matching
from tests.set_loss_cases import LOSSES
from tests.set_loss_cases import every_loss
from tests.set_loss_cases import example
from tests.set_loss_cases import expected
from tests.set_loss_cases import value_and_gradient

# --- In models ---------------------------------------------------------------------------


@every_loss
def test_fit(name, backend):
    """Masks of the predictions and weights of the true elements, in what is compiled."""
    y_true, y_pred, weights, mask = (np.asarray(t, "float32") for t in example(name))
    inputs = keras.Input(y_pred.shape[1:])
    y = keras.layers.Masking(0.0)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(y_pred.shape[-1])(y))
    # XLA, but for torch, whose compiler is experimental in Keras.
    model.compile(keras.optimizers.SGD(0.1), LOSSES[name](), jit_compile=backend != "torch")
    x = y_pred * mask[..., None]
    model.layers[-1].set_weights([np.eye(y_pred.shape[-1]), np.zeros(y_pred.shape[-1])])
    first = np.mean(expected(name, y_true, y_pred, weights, mask > 0))
    history = model.fit(
        x, y_true, sample_weight=weights, batch_size=3, epochs=3, verbose=0
    ).history["loss"]
    assert history[0] == pytest.approx(first, rel=1e-4)
    assert history[-1] < history[0]


def test_file(tmp_path):
    """A compiled model comes back with its loss, without XLA too."""
    y_true, y_pred, _, _ = example("matched")
    inputs = keras.Input(y_pred.shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile("sgd", LOSSES["matched"](), jit_compile=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == model.loss.get_config()
    values = [m.evaluate(y_pred, y_true, verbose=0) for m in (model, again)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@every_loss
def test_sizes_that_a_graph_does_not_know(name, backend):
    if backend != "tensorflow":
        pytest.skip("other backends compile one graph for each size")
    import tensorflow as tf

    loss = LOSSES[name](reduction=None)
    y_true, y_pred, _, _ = (np.asarray(t, "float32") for t in example(name, m=4, n=4))
    shapes = [tf.TensorSpec((None, None, y.shape[-1])) for y in (y_true, y_pred)]
    function = tf.function(lambda x, y: loss(x, y), input_signature=shapes)
    weights, mask = np.ones((3, 4)), np.ones((3, 4), bool)
    expected_values = expected(name, y_true, y_pred, weights, mask)
    np.testing.assert_allclose(function(y_true, y_pred), expected_values, rtol=1e-5)
    assert not function(y_true[:, :0], y_pred[:, :0]).numpy().any()


@every_loss
def test_config(name):
    loss = LOSSES[name](reduction="sum")
    config = keras.losses.serialize(loss)
    assert config["registered_name"] == f"keras_sets>{type(loss).__name__}"
    again = keras.losses.deserialize(config)
    assert again.get_config() == loss.get_config()
    y_true, y_pred, _, _ = example(name, m=4)
    assert float(again(y_true, y_pred)) == float(loss(y_true, y_pred))


def test_pairwise():
    """By name, as a loss, as a function; with features that differ in number."""
    y_true, y_pred, weights, mask = example("matched")
    received = [
        value_and_gradient(
            "matched", y_true, y_pred, weights, mask, losses.MatchedLoss(p, reduction=None)
        )
        for p in (
            "mean_absolute_error",
            keras.losses.MeanAbsoluteError(),
            keras.losses.MeanAbsoluteError,
        )
    ]
    for values, gradient in received[1:]:
        np.testing.assert_array_equal(values, received[0][0])
        np.testing.assert_array_equal(gradient, received[0][1])
    classes = losses.MatchedLoss(
        lambda y, p: keras.losses.sparse_categorical_crossentropy(y[..., 0], p, from_logits=True)
    )
    labels, logits = np.array([[[2], [0]]]), np.array([[[0, 9, 0], [9, 0, 0], [0, 0, 9.0]]])
    assert float(classes(labels, logits)) < 1e-3
    assert float(classes(labels, logits[:, :2])) > 1


# --- Bad input -----------------------------------------------------------------------------


@every_loss
def test_bad_input(name):
    y_true, y_pred, _, _ = example(name, m=4)
    loss = LOSSES[name]()
    for wrong in (y_true[0], y_true[..., None]):
        with pytest.raises(
            ValueError, match=r"`y_true` of shape `\(batch, n, features\)`.*Received"
        ):
            loss(wrong, y_pred)
        with pytest.raises(
            ValueError, match=r"`y_pred` of shape `\(batch, m, features\)`.*Received"
        ):
            loss(y_true, wrong)
    with pytest.raises(ValueError, match=r"same number of sets.*y_true\.shape=\(2, 4, 2\)"):
        loss(y_true[:2], y_pred)
    for shape in ((4,), (3, 1), (3, 5), (3, 4, 1)):
        with pytest.raises(ValueError, match=r"`sample_weight` of shape `\(batch, n\)` or\s+`\("):
            loss(y_true, y_pred, np.ones(shape))
    with pytest.raises(ValueError, match="finite `sample_weight` >= 0"):
        loss(y_true, y_pred, -np.ones((3, 4)))
    if name in ("chamfer", "sinkhorn", "earth_mover"):
        with pytest.raises(ValueError, match=r"of features.*y_pred\.shape=\(3, 4, 1\)"):
            loss(y_true, y_pred[..., :1])


def test_numbers_of_elements(monkeypatch):
    """An error where they can be seen, else NaN for the set in question alone."""
    y_true, y_pred, _, _ = example("matched", m=4)
    weights = np.ones((3, 4))
    weights[:2, 3] = 0
    mask = np.ones((3, 4), bool)
    mask[1, 1] = mask[0, :2] = False
    seen = np.where(mask[..., None], y_pred, 0)
    masked = keras.layers.Masking(0.0)(ops.convert_to_tensor(seen.astype("float32")))
    cases = {
        losses.EarthMover: "as many predicted as true elements.*3 in `y_true` and 2 in `y_pred`",
        lambda **options: losses.MatchedLoss("mse", **options): "at least as many predicted.*3 in",
    }
    for make, match in cases.items():
        with pytest.raises(ValueError, match=match):
            make()(y_true, masked, weights)
    with pytest.raises(ValueError, match="at least as many"):
        losses.MatchedLoss("mse")(y_true, y_pred[:, :3])
    with pytest.raises(ValueError, match="zeros and ones.*1 of 12 are others, the first is 2"):
        losses.EarthMover()(y_true, y_pred, np.where(np.arange(12).reshape(3, 4) == 5, 2.0, 1.0))
    monkeypatch.setattr(validation, "visible_array", lambda x: None)
    monkeypatch.setattr(matching, "_assign_on_host", lambda *arguments: None)
    for make in cases:
        values = ops.convert_to_numpy(make(reduction=None)(y_true, masked, weights))
        assert np.isnan(values).tolist() == [True, False, False]
        values = ops.convert_to_numpy(make(reduction=None)(y_true, y_pred[:, :3], weights))
        assert np.isnan(values).tolist() == [False, False, True]  # more than there are places
    for name, make in LOSSES.items():
        wrong = np.ones((3, 4))
        wrong[0, 0] = -1
        y_pred = example(name, m=4)[1]
        values = ops.convert_to_numpy(make(reduction=None)(y_true, y_pred, wrong))
        assert np.isnan(values).tolist() == [True, False, False], name


def test_bad_options():
    for epsilon in (0, -1.0, None):
        with pytest.raises(ValueError, match="`epsilon`, expected a positive number"):
            losses.SinkhornDivergence(epsilon)
    with pytest.raises(ValueError, match="`iterations`, expected a positive integer"):
        losses.SinkhornDivergence(iterations=0)
    with pytest.raises(ValueError, match="`no_object_weight`, expected"):
        losses.MatchedLoss("mse", -1)
    for wrong in (None, "no_such_loss"):
        with pytest.raises(ValueError):
            losses.MatchedLoss(wrong)
    y_true, y_pred, _, _ = example("matched")
    with pytest.raises(ValueError, match=r"one number for each pair.*shape \(3, 4, 6, 2\)"):
        losses.MatchedLoss(lambda y, p: y - p)(y_true, y_pred)
