"""Layers that reduce the set on their way, computed chunk by chunk, equal the whole."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import models
from tests.chunk_cases import CUTS
from tests.chunk_cases import FEATURES
from tests.chunk_cases import assert_close
from tests.chunk_cases import cut
from tests.chunk_cases import numpy
from tests.chunk_cases import sets
from tests.chunk_cases import whole_and_chunks
from tests.chunk_cases import whole_of

REDUCING = {
    "set_normalization": lambda: layers.SetNormalization(),
    "principal_axes": lambda: layers.PrincipalAxes(),
    "slots": lambda: layers.SlotRefinement(4, units=5, iterations=2, em_steps=1),
    "steps": lambda: layers.SlotRefinement(4, 5, 2, return_iterations=True),
    "evidence": lambda: layers.SlotRefinement(4, 5, 2, num_starts=3),
    "icl": lambda: layers.SlotRefinement(4, 5, 2, num_starts=3, criterion="icl"),
    "pooling": lambda: layers.PermutationEquivariantDense(
        6, pooling=layers.SlotPooling(4, iterations=1)
    ),
}


@pytest.mark.parametrize("name", REDUCING)
def test_layers_that_reduce_the_set_on_their_way(name):
    """One pass over the chunks for each mean, moment or likelihood of the whole set."""
    x, mask, weights = sets(features=2, size=40)
    layer = REDUCING[name]()
    whole = whole_of(layer, x, mask, weights)
    chunks = cut((x, mask, weights), (0, 20, 40))
    outputs = list(models.predict_in_chunks(layer, chunks))
    assert_close(np.concatenate(outputs, axis=2 if name == "steps" else 1), whole, 1e-4)


# Whether there are weights beside the mask, and where the sets are cut.
EQUAL = ((True, (0, 5, 10, 15)),)
VARIED = ((True, CUTS), (False, (0, 15)))

ATTENTION = {
    "isab": lambda: layers.InducedSetAttentionBlock(6, 2, 3),
    "isab_clean": lambda: layers.InducedSetAttentionBlock(
        6, 2, 3, residual="clean", normalization="set", dropout=0.5, attention_dropout=0.5
    ),
    "isab_set": lambda: layers.InducedSetAttentionBlock(6, 2, 3, normalization="set"),
    "isab_projected": lambda: layers.InducedSetAttentionBlock(6, 2, 3, residual="projected"),
    "pma": lambda: layers.PoolingByMultiheadAttention(6, 2, 3, input_feed_forward_layers=1),
    "pma_clean": lambda: layers.PoolingByMultiheadAttention(
        6, 2, 3, residual="clean", normalization="set"
    ),
    "pma_projected": lambda: layers.PoolingByMultiheadAttention(6, 2, 3, residual="projected"),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_of_points_equals_the_whole(name):
    layer = ATTENTION[name]()
    for weighted, cuts in VARIED if name in ("isab", "pma") else EQUAL:
        whole, chunks = whole_and_chunks(layer, weighted, cuts)
        assert_close(chunks, whole, 1e-5)


def test_attention_of_far_scores():
    """Scores of a chunk that are nothing beside those of another, and the other way round."""
    layer = layers.PoolingByMultiheadAttention(4, 2, 2, residual="projected", normalization=None)
    x, mask, weights = sets()
    for scale in (1e-3, 1e3):
        x[:, :5] *= scale
        outputs = models.predict_in_chunks(layer, cut((x, mask, weights)))
        assert_close(outputs, numpy(layer(x, mask=mask, weights=weights)), 1e-5)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "centered", "concat_max", "multi"])
def test_symmetric_elements(name):
    multi = layers.MultiPooling(["mean", "max"])
    layer = layers.DSSDense(5, pooling=multi if name == "multi" else name, activation="tanh")
    for weighted, cuts in VARIED if name == "sum" else EQUAL:
        whole, chunks = whole_and_chunks(layer, weighted, cuts)
        assert_close(chunks, whole, 1e-5)


def test_images_as_elements():
    """Masks and weights are those of the elements, not of their places."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 4, 5, 3)).astype("float32")
    mask, weights = rng.random((2, 7)) < 0.7, rng.random((2, 7)).astype("float32")
    mask[1] = False
    x[~mask] = np.nan
    stack = [layers.DSSConv2D(4, 3, padding="same"), layers.DSSConv2D(2, 3, pooling="max")]
    whole = x
    for layer in stack:
        whole = layer(whole, mask=mask, weights=weights)
    chunks = cut((x, mask, weights), (0, 3, 7))
    outputs = list(models.predict_in_chunks(stack, chunks))
    assert_close(np.concatenate(outputs, axis=1), numpy(whole), 1e-5)
    inputs = {
        "entities": keras.Input((None, 4, 5, 3), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    y = stack[0](inputs["entities"], mask=inputs["mask"])
    model = keras.Model(inputs, stack[1](y, mask=inputs["mask"]))
    outputs = list(models.predict_in_chunks(model, cut((x, mask), (0, 3, 7))))
    whole = model({"entities": x, "mask": mask})
    assert_close(np.concatenate(outputs, axis=1), numpy(whole), 1e-5)
    x = np.nan_to_num(x)  # without a mask, the one or the other
    outputs = list(models.predict_in_chunks(model, cut((x,), (0, 3, 7))))
    whole = model({"entities": x, "mask": np.ones((2, 7), bool)})
    assert_close(np.concatenate(outputs, axis=1), numpy(whole), 1e-5)
    outputs = list(models.predict_in_chunks(stack[0], cut((x, None, weights), (0, 3, 7))))
    whole = stack[0](x, weights=weights)
    assert_close(np.concatenate(outputs, axis=1), numpy(whole), 1e-5)


@pytest.mark.parametrize("options", [{}, {"num_seeds": 3}, {"output_pooling": "attention"}])
def test_set_transformer(options):
    model = models.set_transformer(
        FEATURES, 4, 8, num_heads=2, num_inducing_points=3, num_layers=2, weighted=True, **options
    )
    whole, chunks = whole_and_chunks(model)
    assert_close(chunks, whole, 1e-5)


def test_layers_on_what_is_pooled_see_the_whole():
    """A sum over seeds is no sum over chunks; seeds may attend to each other."""

    def make(nested):
        pooling = layers.PoolingByMultiheadAttention(6, 2, 3)
        after = [layers.SetAttentionBlock(6, 2), layers.SumPooling(), keras.layers.Reshape((3, 2))]
        if nested:
            after = [keras.Sequential([keras.Input((3, 6)), *after])]
        inputs = y = keras.Input((None, FEATURES))
        for layer in (pooling, *after):
            y = layer(y)
        return keras.Model(inputs, y), [pooling, *after]

    (model, stack), (nested, _) = make(False), make(True)
    nested.set_weights(model.get_weights())
    x, mask, _ = sets()
    x = np.nan_to_num(x)
    whole = numpy(model(x, mask=mask))
    for network in (model, stack, nested):
        assert_close(models.predict_in_chunks(network, cut((x, mask))), whole, 1e-5)


def test_models_within_models():
    """They see the mask, and what follows a pooling in them sees the whole."""
    seeds = lambda: layers.PoolingByMultiheadAttention(6, 2, 3)  # noqa: E731
    stack = keras.Sequential(
        [
            keras.Sequential([layers.PermutationEquivariantDense(4), keras.layers.ReLU()]),
            seeds(),
            layers.SumPooling(),
        ]
    )
    inputs = keras.Input((None, FEATURES))
    encoder = keras.Model(inputs, layers.SumPooling()(seeds()(inputs)))
    attended = keras.Model(inputs, seeds()(inputs))
    x, mask, _ = sets()
    x = np.nan_to_num(x)
    networks = [
        stack,
        keras.Model(inputs, keras.layers.Dense(2)(encoder(inputs))),
        keras.Model(inputs, layers.SumPooling()(attended(inputs))),
        keras.Sequential([attended, layers.SumPooling()]),
    ]
    for network in networks:
        whole = numpy(network(ops.convert_to_tensor(x), mask=ops.convert_to_tensor(mask)))
        assert_close(models.predict_in_chunks(network, cut((x, mask))), whole, 1e-5)
    inputs = {
        "entities": keras.Input((None, FEATURES), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    network = keras.Model(inputs, encoder(inputs["entities"], mask=inputs["mask"]))
    whole = numpy(network({"entities": x, "mask": mask}))
    assert_close(models.predict_in_chunks(network, cut((x, mask))), whole, 1e-5)
    with pytest.raises(ValueError, match="chunks without weights"):
        models.predict_in_chunks(networks[-1], [(x, mask, np.ones_like(x[..., 0]))])


def test_layers_that_are_called_several_times():
    inputs = keras.Input((None, FEATURES))
    attention, pooling = layers.PoolingByMultiheadAttention(4, 2, 3), layers.SumPooling()
    pooling(attention(inputs))  # in a graph that another model may have
    block = layers.SetAttentionBlock(4, 2)
    model = keras.Model(inputs, pooling(block(block(attention(inputs)))))
    x = np.nan_to_num(sets()[0])
    whole = numpy(model(ops.convert_to_tensor(x)))
    assert_close(models.predict_in_chunks(model, cut((x,))), whole, 1e-5)
    shared = layers.SumPooling()
    seeds = layers.PoolingByMultiheadAttention(FEATURES, 1, 3)(inputs)
    both = keras.Model(inputs, [shared(inputs), shared(seeds)])
    with pytest.raises(ValueError, match="SumPooling, which is called on both"):
        models.predict_in_chunks(both, [x])


def test_layers_of_users_on_what_is_pooled_see_the_whole():
    class Head(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.pooling = layers.SumPooling()

        def call(self, x):
            return self.pooling(x)

    inputs = keras.Input((None, FEATURES))
    y = layers.PoolingByMultiheadAttention(4, 2, 3)(inputs)
    model = keras.Model(inputs, Head()(y))
    x = np.nan_to_num(sets()[0])
    whole = numpy(model(ops.convert_to_tensor(x)))
    assert_close(models.predict_in_chunks(model, cut((x,))), whole, 1e-5)


def test_clustering_in_chunks():
    x, mask, weights = sets(features=2, size=40)
    stack = [layers.PrincipalAxes(), layers.SlotRefinement(4, units=5, iterations=2, em_steps=1)]
    y = x
    for layer in stack:
        y = layer(y, mask=mask, weights=weights)
    outputs = models.predict_in_chunks(stack, cut((x, mask, weights), (0, 20, 40)))
    assert_close(np.concatenate(list(outputs), axis=1), numpy(y), 1e-4)
