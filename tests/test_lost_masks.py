"""Masks that Keras loses without a word: where a layer can know of it, it warns."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers

MASK = np.arange(4) < np.array([[4], [2]])
POINTS = np.random.default_rng(0).normal(size=(2, 4, 2)).astype("float32")


def values_and_warnings(between, explicit=False, weighted=False):
    """Means of `between(entities, inputs)` at two values of the padding, and what was warned."""
    inputs, mask = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entities = layers.PermutationEquivariantDense(2, bias_initializer="ones")(inputs, mask=mask)
        given = {"mask": mask} if explicit else {}
        if weighted:
            given["weights"] = ops.cast(mask, "float32")
        pooled = layers.MeanPooling(name="mean")(between(entities, inputs), **given)
    model = keras.Model([inputs, mask], pooled)
    padded = (np.where(MASK[..., None], POINTS, fill).astype("float32") for fill in (3, -5))
    answers = [ops.convert_to_numpy(model([points, MASK])) for points in padded]
    return answers, [str(w.message) for w in caught if "Padding changes" in str(w.message)]


def dense(**kwargs):
    return keras.layers.Dense(2, bias_initializer="ones", **kwargs)


def relus(x, count):
    for _ in range(count):
        x = ops.relu(x)
    return x


class Unmasked(keras.layers.Layer):
    def call(self, x):
        return 1.0 * x


class Ended(Unmasked):
    """Ends the mask on purpose."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def compute_mask(self, x, mask=None):
        return None


def nested(x):
    inputs = keras.Input((None, 2))
    return keras.Model(inputs, dense()(inputs))(x)


Add, Concatenate = keras.layers.Add, keras.layers.Concatenate
LOST = {
    "add": (lambda h, x: Add(name="skip")([h, x]), "'skip' (of type Add) drops"),
    "add_projected": (lambda h, x: Add(name="skip")([dense()(x), dense()(h)]), "'skip'"),
    "multiply": (
        lambda h, x: keras.layers.Multiply(name="gate")(
            [h, layers.MeanPooling(keepdims=True)(h)],
        ),
        "'gate' (of type Multiply) drops",
    ),
    "concatenate": (
        lambda h, x: dense()(Concatenate(name="skip")([h, x])),
        "'skip' (of type Concatenate) makes a mask that is True everywhere",
    ),
    "last_axis": (
        lambda h, x: dense()(Concatenate(axis=2, name="skip")([h, x])),
        "'skip' (of type Concatenate) makes a mask that is True everywhere",
    ),
    "ended": (lambda h, x: Add(name="skip")([h, Ended()(h)]), "'skip' (of type Add) drops"),
    "arithmetic": (lambda h, x: dense()(h + 1.0), "(of type Add) drops"),
    "far_back": (lambda h, x: relus(h + 1.0, 30), "(of type Add) drops"),
    "function": (lambda h, x: ops.relu(h), "(of type Relu) drops"),
    "part": (lambda h, x: h[..., :1], "(of type GetItem) drops"),
    "group": (
        lambda h, x: keras.layers.GroupNormalization(1, name="norm")(dense()(h)),
        "SetNormalization",
    ),
}
KEPT = {
    "add": lambda h, x: Add()([h, dense()(h)]),
    "concatenate": lambda h, x: Concatenate()([h, dense()(h)]),
    "more_entities": lambda h, x: Concatenate(axis=1)([h, x[:, :1]]),
    "normalization": lambda h, x: keras.layers.LayerNormalization()(h),
    "attention": lambda h, x: keras.layers.MultiHeadAttention(1, 2)(h, h),
    # Models inside hand their masks on when they run.
    "models": lambda h, x: Add()([h, dense()(nested(h))]),
    "models_joined": lambda h, x: Add()([h, dense()(Concatenate()([nested(h), nested(h)]))]),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_mask(name):
    between, expected = LOST[name]
    _, warned = values_and_warnings(between)
    assert len(warned) == 1 and expected in warned[0] and "'mean'" in warned[0]


@pytest.mark.parametrize("name", KEPT)
def test_a_mask_that_is_kept(name):
    (a, b), warned = values_and_warnings(KEPT[name])
    assert not warned
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("given", ["explicit", "weighted"])
@pytest.mark.parametrize("name", ["add", "concatenate", "arithmetic"])
def test_a_mask_that_is_given_again(name, given):
    (a, b), warned = values_and_warnings(LOST[name][0], **{given: True})
    assert not warned
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    "between",
    [
        # Keras itself has warned.
        lambda h, x: Add()([h, Unmasked()(h)]),
        # These have the entities of `x`, which never had a mask.
        lambda h, x: x + ops.max(h, axis=1, keepdims=True),
        lambda h, x: ops.matmul(ops.softmax(ops.matmul(x, ops.transpose(h, (0, 2, 1)))), h),
    ],
)
def test_where_no_layer_has_lost_a_mask(between):
    assert not values_and_warnings(between)[1]


def test_one_warning_for_each_loss():
    """The layers behind the one that has warned have no other mask to wait for."""

    def between(h, x):
        h = h + 1.0
        for _ in range(3):
            h = layers.PermutationEquivariantDense(2)(dense()(h))
        return h

    _, warned = values_and_warnings(between)
    assert len(warned) == 1 and "'permutation_equivariant_dense" in warned[0]


def test_layers_inside_a_model_mask_its_output():
    """Keras knows of no such mask when a model is built, and hands it on when it runs."""
    (a, b), warned = values_and_warnings(lambda h, x: Add()([h, nested(h)]))
    assert not warned
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_no_mask_at_all():
    """In a graph that is deeper than Python's stack as well."""
    inputs = keras.Input((None, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = layers.PermutationEquivariantDense(2)(inputs)
        x = layers.SetAttentionBlock(2, 1)(Concatenate()([x + 1.0, inputs]))
        layers.MeanPooling()(Add()([x, dense()(inputs)]))
        x = relus(inputs, 400)
        layers.MeanPooling()(x)
        layers.MeanPooling()(x, mask=keras.Input((None,), dtype="bool"))


def attention(x, **kwargs):
    return keras.layers.MultiHeadAttention(1, 2, name="before")(x, x, **kwargs)


def batch_normalization(x, **kwargs):
    return keras.layers.BatchNormalization(name="before")(x, **kwargs)


def equivariant(x, **kwargs):
    return layers.PermutationEquivariantDense(2, name="before")(x, **kwargs)


@pytest.mark.parametrize("before", [attention, batch_normalization, equivariant])
@pytest.mark.parametrize("given", [False, True])
def test_a_mask_for_the_last_layer_alone(before, given):
    """Of the layers that mix the entities, every one needs the mask."""
    inputs, mask = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    masks = {"attention_mask": mask[:, None]} if before is attention else {"mask": mask}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hidden = dense()(before(dense()(inputs), **masks if given else {}))
        pooled = layers.MeanPooling()(hidden, mask=mask)
    expected = [] if given else ["that 'before' (of type"]
    texts = [str(w.message) for w in caught if "padding counts" in str(w.message)]
    assert len(texts) == len(expected) and all(e in t for e, t in zip(expected, texts, strict=True))
    model = keras.Model([inputs, mask], pooled)
    padded = (np.where(MASK[..., None], POINTS, fill).astype("float32") for fill in (3, -5))
    # Batch normalisation counts the entities of a batch in training alone.
    a, b = (ops.convert_to_numpy(model([points, MASK], training=True)) for points in padded)
    assert np.allclose(a, b, atol=1e-5) == given


def test_masks_of_several_layers():
    inputs, mask = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    weights = keras.Input((None,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = layers.PermutationEquivariantDense(2)(dense()(inputs), mask=mask)
        layers.MeanPooling()(batch_normalization(x), mask=mask)
        # What is attended to has a mask.
        attended = keras.layers.MultiHeadAttention(1, 2)(dense()(inputs), x)
        layers.MeanPooling()(attended, mask=mask)
        x = layers.PermutationEquivariantDense(2)(inputs, weights=weights)
        layers.MeanPooling()(x, mask=mask, weights=weights)
        # A set that a model makes of one vector is no set that had padding.
        x = keras.layers.RepeatVector(4)(batch_normalization(layers.MeanPooling()(x)))
        layers.MeanPooling()(x, mask=mask)
