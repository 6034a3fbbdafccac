"""Layers inside of layers: what is set on them survives, and their dtypes agree."""

import gc
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import models
from tests.cases import CASES
from tests.conftest import once
from tests.laws import answers

# Half as many features as units, so that every part that can be there is there.
OWNERS = {
    "swarm": lambda **options: layers.Swarm(4, iterations=2, **options),
    "dense": lambda **options: layers.PermutationEquivariantDense(4, **options),
    "dss_dense": lambda **options: layers.DSSDense(4, **options),
    "dss_conv": lambda **options: layers.DSSConv1D(4, 2, padding="circular", **options),
    "dss": lambda **options: layers.DSS(keras.layers.Dense(4), **options),
    "sab": lambda **options: layers.SetAttentionBlock(4, 2, feed_forward_layers=1, **options),
    "isab": lambda **options: layers.InducedSetAttentionBlock(
        4, 2, 3, feed_forward_layers=1, normalization="set", **options
    ),
    "pma": lambda **options: layers.PoolingByMultiheadAttention(
        4, 2, feed_forward_layers=1, input_feed_forward_layers=1, residual="projected", **options
    ),
}
every_owner = pytest.mark.parametrize("name", OWNERS)


def model_around(name, **options):
    """The layer between two others, and an input of it."""
    layer = OWNERS[name](name="tested", **options)
    shape = (5, 7, 2) if name == "dss_conv" else (5, 2)
    inputs = keras.Input(shape)
    y = keras.layers.Dense(2, name="before")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="after")(layer(y)))
    return model, np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")


def loaded(model, folder):
    model.save(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras")
    tested = [json.dumps(m.get_layer("tested").get_config()) for m in (model, again)]
    assert tested[0] == tested[1]
    return again


def names(weights):
    return [weight.path for weight in weights]


@every_owner
def test_a_frozen_layer_stays_frozen(name, tmp_path):
    for set_in_the_constructor in (True, False):
        model, _ = model_around(name, trainable=not set_in_the_constructor)
        model.get_layer("tested").trainable = False
        assert names(model.trainable_weights) == [
            f"{layer}/{weight}" for layer in ("before", "after") for weight in ("kernel", "bias")
        ]
        assert names(loaded(model, tmp_path).trainable_weights) == names(model.trainable_weights)
    model, _ = model_around(name, trainable=False)
    assert len(model.trainable_weights) == 4


PARTS = {
    "swarm": lambda layer: layer.cell,
    "dss_dense": lambda layer: layer.pooled_layer,
    "dss": lambda layer: layer.layer,
    "sab": lambda layer: layer.input_projection,
    "isab": lambda layer: layer.block.attention.query_dense,
    "pma": lambda layer: layer.input_feed_forward[0],
}


@pytest.mark.parametrize("name", PARTS)
def test_a_frozen_part_stays_frozen(name, tmp_path):
    model, _ = model_around(name)
    count = len(model.trainable_weights)
    part = PARTS[name](model.get_layer("tested"))
    part.trainable = False
    assert len(model.trainable_weights) == count - len(part.weights)
    again = loaded(model, tmp_path)
    assert names(again.trainable_weights) == names(model.trainable_weights)
    # What was changed after loading is not set back.
    PARTS[name](again.get_layer("tested")).trainable = True
    assert names(loaded(again, tmp_path).trainable_weights) != names(model.trainable_weights)


@pytest.mark.parametrize("name", ["swarm", "dss_dense", "isab"])
def test_a_part_keeps_its_dtype_policy(name, tmp_path):
    model, x = model_around(name, dtype="mixed_bfloat16")
    PARTS[name](model.get_layer("tested")).dtype_policy = "float32"
    again = loaded(model, tmp_path)
    assert PARTS[name](again.get_layer("tested")).dtype_policy.name == "float32"
    received, expected = (ops.convert_to_numpy(ops.cast(m(x), "float32")) for m in (again, model))
    np.testing.assert_array_equal(received, expected)


@once
@pytest.mark.parametrize("name", ["swarm", "dss_dense", "isab", "principal_axes"])
def test_a_map_of_dtype_policies_is_kept(name, tmp_path):
    owners = {**OWNERS, "principal_axes": layers.PrincipalAxes}
    policy = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policy[".*/(projection|layer|second|attention/query)"] = "mixed_bfloat16"
    inputs = keras.Input((5, 2))
    model = keras.Model(inputs, owners[name](dtype=policy, name="tested")(inputs))
    again = loaded(model, tmp_path)
    dtypes = [[p.compute_dtype for p in m._flatten_layers()] for m in (model, again)]
    assert dtypes[0] == dtypes[1] and ("bfloat16" in dtypes[0]) == (name != "principal_axes")
    assert "part_options" not in model.get_layer("tested").get_config()


@pytest.fixture
def little_garbage():
    """Keras collects garbage for every layer that it quantises, which takes a second each."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("name", ["swarm", "dss_dense", "dss", "isab"])
def test_a_quantised_model_is_loaded(name, tmp_path):
    model, x = model_around(name)
    (before,) = answers(model, x)
    model.quantize("int8")
    (expected,) = answers(model, x)
    assert 0 < np.abs(expected - before).max() < 0.2
    np.testing.assert_array_equal(answers(loaded(model, tmp_path), x)[0], expected)


# --- Dtypes --------------------------------------------------------------------------


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def symbolic_and_eager(layer, x):
    """The dtypes that the layer says it gives and that it does give."""
    spec = layer(keras.KerasTensor(x.shape, dtype_of(x)))
    return dtype_of(spec), dtype_of(layer(x))


def first(x, mask=None, weights=None):
    """A pooling that is no layer, in float32."""
    return ops.cast(x[:, 0], "float32")


MADE_ELSEWHERE = {
    "pooling": lambda dtype: layers.PermutationEquivariantDense(
        3, pooling=layers.MeanPooling(), dtype=dtype
    ),
    "function": lambda dtype: layers.PermutationEquivariantDense(3, pooling=first, dtype=dtype),
    "swarm": lambda dtype: layers.Swarm(3, pooling=layers.MaxPooling(), dtype=dtype),
    "dss": lambda dtype: layers.DSS(keras.layers.Dense(3), dtype=dtype),
    "centered": lambda dtype: layers.DSS(keras.layers.Dense(3), pooling="centered", dtype=dtype),
    "half": lambda dtype: layers.DSS(keras.layers.Dense(3, dtype=dtype), dtype="float32"),
}


@pytest.mark.parametrize("name", MADE_ELSEWHERE)
def test_parts_that_were_made_elsewhere(name):
    layer = MADE_ELSEWHERE[name]("mixed_float16")
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32"))
    assert symbolic_and_eager(layer, x) == (layer.compute_dtype,) * 2


def test_a_pooling_keeps_its_dtype_policy():
    layer = layers.PermutationEquivariantDense(
        3, pooling=layers.MeanPooling(dtype="float32"), dtype="mixed_bfloat16"
    )
    again = layers.PermutationEquivariantDense.from_config(layer.get_config())
    assert again.pooling.dtype_policy.name == "float32"
    layer = layers.PermutationEquivariantDense(3, dtype="mixed_bfloat16")
    assert layer.get_config()["pooling"] == "mean"


@pytest.mark.parametrize("pooling", ["max", "concat_max"])
def test_identifiers_are_not_rounded(pooling):
    """257 is no number of bfloat16."""
    embedding = keras.layers.Embedding(300, 3)
    layer = layers.DSS(embedding, pooling=pooling, dtype="mixed_bfloat16")
    tokens = np.array([[[257, 3], [299, 1]]])
    layer(tokens)
    rows = np.zeros((300, 3), "float32")
    rows[[257, 299]] = [[1.0], [2.0]]
    embedding.embeddings.assign(rows)
    if layer.pooled_layer is not None:
        layer.pooled_layer.embeddings.assign(0 * rows)
    y = ops.convert_to_numpy(ops.cast(layer(tokens), "float32"))
    assert y[0, :, 0, 0].tolist() == [1.0, 2.0]


# --- Numbers of features -------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case.slow], ids=lambda case: case.name)
def test_another_number_of_features_is_an_error(case):
    layer = case.make()
    x, _, _ = case.inputs()
    layer.build(x.shape)
    if layer.weights:  # which poolings have none of
        with pytest.raises(ValueError, match="axis -1 of input shape to have value 3"):
            layer(x[..., :2])


@pytest.mark.parametrize("name", ["clustering_2d", "mixture_of_gaussians"])
def test_another_number_of_features_in_pretrained_models(name):
    model = models.load_pretrained(name)
    inputs = {"entities": np.ones((2, 5, 3), "float32"), "mask": np.ones((2, 5), bool)}
    with pytest.raises(ValueError, match=r"entities.*\(None, None, 2\).*\(2, 5, 3\)"):
        model(inputs)
    with pytest.raises(ValueError, match=r"(\(None, None, 2\)|axis -1).*3\)"):
        model.predict(inputs, verbose=0)


def test_another_number_of_features_in_cells():
    x = np.ones((2, 5, 3), "float32")
    cell = layers.SwarmCell(4)
    stream = layers.Swarm(4, pooling="causal").streaming_cell()
    for rnn in (keras.layers.RNN(cell), keras.layers.RNN(stream)):
        rnn(x)
        with pytest.raises(ValueError, match="axis -1 of input shape to have value 3"):
            rnn(x[..., :2])


# --- Layers that cannot be made twice ------------------------------------------------


class WithoutConfiguration(keras.layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def call(self, x):
        return self.width * x


def test_a_layer_that_cannot_be_cloned():
    with pytest.raises(ValueError, match="`pooled_layer=` to be given"):
        layers.DSS(WithoutConfiguration(2))
    x = np.ones((1, 3, 2), "float32")
    try:
        y = layers.DSS(keras.layers.Lambda(lambda x: 2 * x))(x)
    except ValueError as error:
        assert "`pooled_layer=` to be given" in str(error)
    else:  # Keras makes it again before 3.15.
        np.testing.assert_array_equal(ops.convert_to_numpy(y), np.full((1, 3, 2), 8.0))
    around = layers.DSS(WithoutConfiguration(2), pooled_layer=WithoutConfiguration(1))
    np.testing.assert_array_equal(ops.convert_to_numpy(around(x)), np.full((1, 3, 2), 5.0))
