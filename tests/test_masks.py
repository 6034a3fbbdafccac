"""Masks that Keras carries from layer to layer."""

import functools
import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import ops as set_ops
from keras_sets import prepared
from keras_sets import validation
from tests.cases import CASES
from tests.laws import answers
from tests.laws import assert_close
from tests.laws import outputs_of


@functools.lru_cache(maxsize=1)
def carried_and_explicit(case):
    """What a layer gives by each mask, without weights and with them: one model for all."""
    x, mask, weights = case.inputs()
    x = np.where(mask[..., None], x, 0.0).astype("float32")
    layer = case.make()
    sizes = (None,) * len(case.entities)
    inputs = [keras.Input((*sizes, 3)), keras.Input(sizes, dtype="bool"), keras.Input(sizes)]
    carried = keras.layers.Masking(0.0)(inputs[0])
    outputs = [
        keras.tree.flatten(layer(y, **masks, **given))
        for given in ({}, {"weights": inputs[2]})
        for y, masks in ((carried, {}), (inputs[0], {"mask": inputs[1]}))
    ]
    received = answers(keras.Model(inputs, outputs), [x, mask, weights])
    count = len(outputs[0])
    return [received[start : start + count] for start in range(0, 4 * count, count)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "case",
    # Keras' masks are for single vectors.
    [case for case in CASES if not case.elements],
    ids=lambda case: case.name,
)
def test_implicit_mask(case, weighted):
    carried, explicit = carried_and_explicit(case)[2 * weighted : 2 * weighted + 2]
    assert_close(carried, explicit)


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


def test_a_mask_in_a_list():
    x = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    for mask in ([[True, False], [True, True]], ((1, 0), (1, 1))):
        y = layers.CausalMeanPooling()(x, mask=mask)
        assert_close([ops.convert_to_numpy(y)], [np.array([[[1.0], [0.0]], [[3.0], [3.5]]])])
        # The mask has travelled.
        pooled = layers.MeanPooling()(y)
        assert_close([ops.convert_to_numpy(pooled)], [np.array([[1.0], [3.25]])])


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


@keras.saving.register_keras_serializable(package="tests")
class PoolsParts(layers.SetLayer):
    """Pools what it was given and what it makes of that: known by identity, and nothing else."""

    symmetry = "invariant"

    def compute(self, x, mask, weights, training):
        first = ops.logical_and(mask, ops.arange(mask.shape[1]) < 2)
        pairs = [(x, mask, weights), (x, first, weights), (x, mask, ops.square(weights))]
        pairs += [(x, mask, None), (x + 1.0, mask, None), (x, None, None)]
        # Other weights leave other entities out.
        light = ops.where(weights > 2, ops.zeros_like(weights), weights)
        largest = set_ops.set_max(x, mask, light)
        return ops.concatenate([set_ops.set_sum(*pair) for pair in pairs] + [largest], axis=-1)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_prepared_once(compiled):
    x = np.array([[[1.0], [np.nan], [10.0], [100.0]]], "float32")
    mask = np.array([[True, False, True, True]])
    weights = np.array([[2.0, -1.0, 3.0, 0.0]], "float32")
    layer = PoolsParts()
    if compiled:
        inputs = [keras.Input((4, 1)), keras.Input((4,), dtype="bool"), keras.Input((4,))]
        model = keras.Model(inputs, layer(inputs[0], mask=inputs[1], weights=inputs[2]))
        received = model.predict_on_batch([x, mask, weights])
    else:
        received = layer(x, mask=mask, weights=weights)
    expected = [2 + 30, 2, 4 + 90, 11, 13, 11, 1]
    np.testing.assert_allclose(ops.convert_to_numpy(received), [expected])
    # Beyond its call, the layer's tensors are prepared as any others.
    assert prepared._ACTIVE.set == (None, None, None)


def test_other_threads_know_of_nothing_prepared():
    mask, known = ops.ones((1, 2), "bool"), []
    with prepared.PreparedScope(ops.ones((1, 2, 3)), mask, None):
        thread = threading.Thread(target=lambda: known.append(prepared.are_ready(mask, None)))
        thread.start()
        thread.join()
        assert known == [False] and prepared.are_ready(mask, None)


class Fails(layers.SetLayer):
    def compute(self, x, mask, weights, training):
        raise NotImplementedError


def test_a_call_that_fails_leaves_nothing_prepared():
    with pytest.raises(NotImplementedError):
        Fails()(np.ones((1, 2, 3)), mask=np.ones((1, 2), bool))
    assert prepared._ACTIVE.set == (None, None, None)


def test_a_layer_looks_at_its_weights_once(monkeypatch):
    """On accelerators, an eager call waits for their values."""
    seen = []
    monkeypatch.setattr(validation, "check_weights", lambda *args: seen.append(args))
    layer = layers.Swarm(2, iterations=4)
    layer(np.ones((1, 3, 2)), mask=np.ones((1, 3), bool), weights=np.ones((1, 3)))  # builds it
    seen.clear()
    layer(np.ones((1, 3, 2)), mask=np.ones((1, 3), bool), weights=np.ones((1, 3)))
    assert len(seen) == 1
