"""Masks that Keras carries from layer to layer."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from tests.cases import CASES
from tests.laws import assert_close
from tests.laws import functional
from tests.laws import outputs_of


@pytest.mark.parametrize(
    "case",
    # Keras' masks are for single vectors.
    [case for case in CASES if not case.elements],
    ids=lambda case: case.name,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_implicit_mask(case, weighted):
    x, mask, weights = case.inputs()
    x = np.where(mask[..., None], x, 0.0).astype("float32")
    layer = case.make()
    explicit = functional(case, layer, weighted=weighted)
    inputs = explicit.inputs[0]
    given = {"weights": explicit.inputs[-1]} if weighted else {}
    carried = keras.layers.Masking(0.0)(inputs)
    implicit = keras.Model([inputs, *given.values()], layer(carried, **given))
    extra = [weights] if weighted else []
    received = keras.tree.flatten(implicit.predict_on_batch([x, *extra]))
    expected = keras.tree.flatten(explicit.predict_on_batch([x, mask, *extra]))
    assert_close(received, expected)


def test_mask_of_an_embedding():
    tokens = np.array([[3, 1, 0, 0], [2, 2, 4, 0]])
    inputs = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(5, 3, mask_zero=True)
    pooling = layers.PermutationEquivariantDense(2)
    implicit = keras.Model(inputs, pooling(embedding(inputs)))
    received = implicit.predict_on_batch(tokens)
    x = ops.convert_to_numpy(embedding.embeddings)[tokens]
    case = next(case for case in CASES if case.name == "dense_mean")
    assert_close([received], outputs_of(case, pooling, x, tokens != 0))
    assert not received[tokens == 0].any()


def test_an_explicit_mask_wins():
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    x[:, 0] = 0.0
    mask = np.array([[True, True, False, False], [False, True, True, True]])
    inputs, given = keras.Input((4, 3)), keras.Input((4,), dtype="bool")
    pooling = layers.MeanPooling()
    model = keras.Model([inputs, given], pooling(keras.layers.Masking(0.0)(inputs), mask=given))
    case = CASES[0]
    assert_close([model.predict_on_batch([x, mask])], outputs_of(case, pooling, x, mask))


def stack():
    return [
        layers.PermutationEquivariantDense(4, activation="relu", bias_initializer="ones"),
        layers.Swarm(3, iterations=2),
        layers.MeanPooling(),
    ]


@pytest.mark.parametrize("top", ["masking", "explicit", "call"])
def test_one_mask_reaches_a_stack(top):
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    mask = np.array([[True] * 3 + [False] * 2, [True] * 5])
    x[~mask] = 0.0
    inputs, given = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
    chain = stack()
    y = inputs
    for layer in chain:
        y = layer(y, mask=given)
    expected = keras.Model([inputs, given], y).predict_on_batch([x, mask])
    if top == "masking":
        model = keras.Sequential([keras.layers.Masking(0.0), *chain])
        received = model.predict_on_batch(x)
    elif top == "explicit":
        y = chain[0](inputs, mask=given)
        for layer in chain[1:]:
            y = layer(y)
        received = keras.Model([inputs, given], y).predict_on_batch([x, mask])
    else:
        model = keras.Sequential([keras.Input((None, 3)), *chain])
        received = ops.convert_to_numpy(model(x, mask=ops.convert_to_tensor(mask)))
    assert_close([received], [expected])
