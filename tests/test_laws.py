"""One test per law of layers on sets, over all rows of the registry."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import groups
from keras_sets import layers
from keras_sets import testing
from tests.cases import CASES
from tests.cases import POOLINGS

POLICIES = ("mixed_float16", "mixed_bfloat16")

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
slow_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if case.slow], ids=lambda case: case.name
)
# Appending entities makes no sense where there are exactly so many places.
any_size_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if case.group is None], ids=lambda case: case.name
)
scale_invariant_cases = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.scale_invariant and case.copies == "all"],
    ids=lambda case: case.name,
)
ORDER = {
    "group": testing.assert_permutation_equivariant,
    "equivariant": testing.assert_permutation_equivariant,
    "invariant": testing.assert_permutation_invariant,
    "causal": testing.assert_causal,
}


def outputs_of(case, layer, x, mask=None, weights=None):
    outputs, _, _ = testing.outputs_and_gradients(
        case.function(layer), x, mask=mask, weights=weights, gradients=False
    )
    return outputs


def assert_close(received, expected, tolerance=2e-5):
    for new, old in zip(received, expected, strict=True):
        assert new.shape == old.shape
        assert np.isfinite(new).all()
        scale = np.abs(old).max(initial=0.0) or 1.0
        assert np.abs(new - old).max(initial=0.0) / scale <= tolerance


def functional(case, layer=None, masked=True, weighted=True):
    """A model with inputs of any size: x, and a mask and weights."""
    layer = layer or case.make()
    sizes = (None,) * len(case.entities)
    inputs = [keras.Input((*sizes, *case.elements, 3), name="x")]
    given = {}
    if masked:
        inputs.append(keras.Input(sizes, dtype="bool", name="mask"))
        given["mask"] = inputs[-1]
    if weighted:
        inputs.append(keras.Input(sizes, name="weights"))
        given["weights"] = inputs[-1]
    return keras.Model(inputs, layer(inputs[0], **given))


def test_no_gradients_where_none_are_asked_for():
    x = np.ones((2, 3, 3), "float32")
    layer = layers.PermutationEquivariantDense(4)
    _, inputs_gradient, weight_gradients = testing.outputs_and_gradients(layer, x, gradients=False)
    assert inputs_gradient is None and weight_gradients == []
    mask = np.array([[True, True, False]] * 2)
    testing.assert_padding_invariant(layer, x, mask=mask, gradients=False)


def test_every_layer_is_in_the_registry():
    """Those on sets; cells and layers on single elements have tests of their own."""
    others = {"Pooling", "SetLayer", "get_pooling", "SwarmCell", "SwarmStreamingCell"}
    others |= {"CircularConv1D", "CircularConv2D", "CircularConv3D"}
    tested = {type(case.make()).__name__ for case in CASES if case.slow}
    assert set(layers.__all__) - tested == others


# --- Order ---------------------------------------------------------------------------


@every_case
def test_order(case):
    assert case.make().symmetry == case.symmetry
    x, mask, weights = case.inputs()
    check = ORDER[case.symmetry]
    layer = case.function()
    options = {"training": case.training, "num_entity_axes": len(case.entities)}
    if case.group is not None:
        options["group"] = case.group
    if case.slow and case.bare:
        check(layer, x, **options)
    check(layer, x, mask=mask, weights=weights, **options)


class Positional(keras.layers.Layer):
    """Breaks every symmetry: entities count by their place."""

    def call(self, x, mask=None, weights=None):
        places = ops.cast(ops.arange(ops.shape(x)[1]), x.dtype)
        return x * ops.reshape(places, (1, -1, 1))


class LeaksGradients(keras.layers.Layer):
    """Causal in its values only."""

    def call(self, x, mask=None, weights=None):
        total = ops.sum(x, axis=1, keepdims=True)
        return x + total - ops.stop_gradient(total)


def test_order_is_broken():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    around = layers.PermutationGroupDense(3, groups.cyclic(5))
    with pytest.raises(AssertionError, match="not permutation equivariant: outputs under exch"):
        testing.assert_permutation_equivariant(around, x)
    with pytest.raises(AssertionError, match="under generator 0 of the group"):
        testing.assert_permutation_equivariant(around, x, group=groups.symmetric(5))
    with pytest.raises(AssertionError, match="under generator 0 of the group"):
        testing.assert_permutation_invariant(around, x, group=groups.cyclic(5))
    with pytest.raises(ValueError, match="`group` acts on 4 entities, expected the 5"):
        testing.assert_permutation_equivariant(around, x, group=groups.cyclic(4))
    with pytest.raises(AssertionError, match="not permutation equivariant: outputs"):
        testing.assert_permutation_equivariant(Positional(), x)
    with pytest.raises(AssertionError, match="not permutation invariant: outputs"):
        testing.assert_permutation_invariant(keras.layers.Flatten(), x)
    with pytest.raises(AssertionError, match="expected outputs of shape"):
        testing.assert_permutation_equivariant(layers.MeanPooling(), x)
    with pytest.raises(AssertionError, match="later entities change"):
        testing.assert_causal(layers.PermutationEquivariantDense(3), x, gradients=False)
    with pytest.raises(AssertionError, match="gradient of output 0 towards later"):
        testing.assert_causal(LeaksGradients(), x)
    testing.assert_causal(LeaksGradients(), x, gradients=False)


def test_dropout_of_single_entities_breaks_order():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    dropout = keras.layers.Dropout(0.5, seed=1)
    with pytest.raises(AssertionError, match="not permutation equivariant"):
        testing.assert_permutation_equivariant(dropout, x, training=True)


def test_dropout_drops_at_training_only():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer = layers.Swarm(4, dropout=0.5, seed=1)
    one, two = (
        testing.outputs_and_gradients(layer, x, training=training, gradients=False)[0][0]
        for training in (True, False)
    )
    assert np.abs(one - two).max() > 1e-3


# --- Padding -------------------------------------------------------------------------


def padding_of(case):
    return 2 if case.group is None else 0


@every_case
def test_padding(case):
    x, mask, weights = case.inputs()
    layer = case.function()
    options = {"training": case.training, "num_entity_axes": len(case.entities)}
    options["padding"] = padding_of(case)
    if case.slow and case.bare:
        testing.assert_padding_invariant(layer, x, **options)
    testing.assert_padding_invariant(layer, x, mask=mask, weights=weights, **options)


class LeaksNotANumber(keras.layers.Layer):
    """Masks by a product, which keeps NaN."""

    def call(self, x, mask=None):
        if mask is not None:
            x = x * ops.cast(ops.expand_dims(mask, -1), x.dtype)
        return ops.sum(x, axis=1)


class CountsPadding(keras.layers.Layer):
    """Divides by the padded size."""

    def call(self, x, mask=None):
        if mask is not None:
            x = ops.where(ops.expand_dims(mask, -1), x, 0.0)
        return ops.mean(x, axis=1)


class LeaksNotANumberInGradients(keras.layers.Layer):
    """Right in its values; `where` after the fact does not stop a NaN gradient."""

    def call(self, x, mask=None):
        y = ops.sqrt(ops.square(x))
        if mask is not None:
            y = ops.where(ops.expand_dims(mask, -1), y, 0.0)
        return ops.sum(y, axis=1)


class KeepsPadding(keras.layers.Layer):
    """Entity by entity, but not 0 where there is none."""

    def call(self, x, mask=None):
        return x if mask is None else ops.where(ops.expand_dims(mask, -1), x, 1.0)


def test_padding_is_broken():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    with pytest.raises(AssertionError, match="NaN and infinities.*not finite"):
        testing.assert_padding_invariant(LeaksNotANumber(), x)
    with pytest.raises(AssertionError, match="not padding invariant: with large numbers"):
        testing.assert_padding_invariant(CountsPadding(), x)
    with pytest.raises(AssertionError, match="gradient towards the padding"):
        testing.assert_padding_invariant(LeaksNotANumberInGradients(), x)
    with pytest.raises(AssertionError, match="at padded places"):
        testing.assert_padding_invariant(KeepsPadding(), x)
    mask = np.array([[True] * 5, [True, False, True, False, True]])
    with pytest.raises(AssertionError, match="NaN and infinities.*not finite"):
        testing.assert_padding_invariant(LeaksNotANumber(), x, mask=mask, padding=0)
    testing.assert_padding_invariant(KeepsPadding(), x, mask=mask, zero_outputs=False)
    testing.assert_padding_invariant(KeepsPadding(), x, zero_outputs=False)


@slow_cases
def test_padding_in_fit(case):
    """Training steps with NaN in the padding are those without padding."""
    x, mask, weights = case.inputs(batch=4)

    def trained(x, mask, weights):
        keras.utils.set_random_seed(1)
        sizes = mask.shape[1:]
        inputs = keras.Input(x.shape[1:])
        given = {
            "mask": keras.Input(sizes, dtype="bool"),
            "weights": keras.Input(sizes),
        }
        layer = case.make()
        layer.build((None, *inputs.shape[1:]))
        y = inputs
        if not layer.trainable_variables:
            # Something to train before a pooling.
            y = layers.PermutationEquivariantDense(3, activation="tanh")(y, **given)
        y = layer(y, **given)
        if case.symmetry != "invariant":
            if case.elements:
                y = keras.layers.Reshape((*sizes, -1))(y)
            # Not the sum itself, which is 0 for a layer that centres its outputs.
            y = layers.SumPooling()(keras.layers.Activation("softsign")(y), **given)
        model = keras.Model([inputs, *given.values()], y)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        target = np.zeros((4, *y.shape[1:]), "float32")
        history = model.fit([x, mask, weights], target, epochs=2, batch_size=4, verbose=0)
        return model.get_weights(), history.history["loss"]

    padding = [(0, 0), *((0, padding_of(case)) for _ in case.entities)]
    padded_mask = inside = np.pad(mask, padding)
    features = x.ndim - mask.ndim
    padded_x = np.pad(x, [*padding, *[(0, 0)] * features])
    fill = np.resize(np.array([np.nan, np.inf, -np.inf, 1e30], "float32"), padded_x.shape)
    inside = np.reshape(inside, (*inside.shape, *[1] * features))
    padded_x = np.where(inside, padded_x, fill)
    expected, expected_loss = trained(x, mask, weights)
    received, loss = trained(padded_x, padded_mask, np.pad(weights, padding))
    assert_close(received, expected, 1e-4)
    assert np.allclose(loss, expected_loss, rtol=1e-4)


# --- Multiplicity --------------------------------------------------------------------


@every_case
def test_multiplicity(case):
    x, mask, weights = case.inputs()
    options = {
        "training": case.training,
        "num_entity_axes": len(case.entities),
        "scale_invariant": case.scale_invariant,
        "copies": case.copies,
    }
    layer = case.function()
    if case.slow and case.bare:
        testing.assert_multiplicity(layer, x, **options)
    testing.assert_multiplicity(layer, x, mask=mask, weights=weights, **options)


@scale_invariant_cases
def test_fractions_are_counts(case):
    """A third, a half and a sixth of three entities are two, three and one of them."""
    x, _, _ = case.inputs(entities=(3,))
    layer = case.make()
    shares = np.tile(np.array([1 / 3, 1 / 2, 1 / 6], "float32"), (2, 1))
    repetition = [2, 3, 1]
    weighted = outputs_of(case, layer, x, weights=shares)
    repeated = outputs_of(case, layer, np.repeat(x, repetition, axis=1))
    for index, output in enumerate(weighted):
        if case.symmetry != "invariant":
            weighted[index] = np.repeat(output, repetition, axis=1)
    assert_close(weighted, repeated)


class IgnoresWeights(keras.layers.Layer):
    def call(self, x, mask=None, weights=None):
        return layers.MeanPooling()(x, mask=mask)


class ZeroIsNotAbsent(keras.layers.Layer):
    """Weighs right, but keeps what has no weight."""

    def call(self, x, mask=None, weights=None):
        return layers.MeanPooling(keepdims=True)(x, mask=mask, weights=weights) + x


def test_multiplicity_is_broken():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    with pytest.raises(AssertionError, match="weights are not multiplicities"):
        testing.assert_multiplicity(IgnoresWeights(), x)
    with pytest.raises(AssertionError, match=r"weight 0 \(expected 0\)"):
        testing.assert_multiplicity(ZeroIsNotAbsent(), x)
    testing.assert_multiplicity(layers.SumPooling(), x)
    with pytest.raises(AssertionError, match="common factor"):
        testing.assert_multiplicity(layers.SumPooling(), x, scale_invariant=True)
    with pytest.raises(AssertionError, match="integer weights against repetition"):
        testing.assert_multiplicity(layers.CausalMeanPooling(), x, copies="all")
    with pytest.raises(ValueError, match="copies"):
        testing.assert_multiplicity(layers.SumPooling(), x, copies="first")


# --- Empty ---------------------------------------------------------------------------


def assert_empty_is_finite(layer, x, first, zero, **given):
    outputs, towards_x, towards_weights = testing.outputs_and_gradients(layer, x, **given)
    for array in (*outputs, towards_x, *towards_weights):
        assert np.isfinite(array).all(), "not finite for a set without entities"
    assert not towards_x[first].any()
    for output in outputs:
        if zero or output.shape[1:-1] == x.shape[1:-1]:
            assert not output[first].any(), "not 0 for a set without entities"


@every_case
def test_empty(case):
    x, mask, weights = case.inputs()
    x[0] = np.nan
    layer = case.function()
    options = {"zero": case.empty == "zero", "training": case.training, "first": slice(0, 1)}
    mask[0] = False
    assert_empty_is_finite(layer, x, mask=mask, **options)
    weights[0] = 0.0
    assert_empty_is_finite(layer, x, weights=weights, **options)


@any_size_cases
def test_no_places(case):
    """Sets of size 0, not even padding."""
    x, mask, weights = case.inputs(entities=(0,) * len(case.entities))
    for given in ({}, {"mask": mask, "weights": weights}):
        outputs = outputs_of(case, case.make(), x, **given)
        assert all(np.isfinite(output).all() for output in outputs)


def test_empty_is_broken():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    mask = np.array([[False] * 5, [True] * 5])
    with pytest.raises(AssertionError, match="not finite"):
        layer = keras.layers.GlobalAveragePooling1D()
        assert_empty_is_finite(layer, x, slice(0, 1), True, mask=mask)


# --- Size ----------------------------------------------------------------------------


def assert_any_size(case, layer):
    """Every size gives what the same entities give as a masked part of a larger set."""
    x, _, _ = case.inputs(batch=2)
    reference = None
    for size in (1, 2):
        part = (slice(None), *(slice(size) for _ in case.entities))
        mask = np.zeros((2, *case.entities), bool)
        mask[part] = True
        received = outputs_of(case, layer, x[part])
        reference = outputs_of(case, layer, x, mask)
        if case.symmetry != "invariant":
            reference = [output[part] for output in reference]
        assert_close(received, reference)


@every_case
def test_size(case):
    layer = case.make()
    if case.group is None:
        assert_any_size(case, layer)
    # Sets of a batch do not see each other.
    x, mask, weights = case.inputs(batch=case.entities[0])
    together = outputs_of(case, layer, x, mask, weights)
    alone = outputs_of(case, layer, x[:1], mask[:1], weights[:1])
    assert_close([output[:1] for output in together], alone)


@any_size_cases
def test_symbolic_size(case):
    layer = case.make()
    model = functional(case, layer)
    sizes = (None,) * len(case.entities)
    expected = layer.compute_output_shape((None, *sizes, *case.elements, 3))
    received = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), model.output)
    assert keras.tree.flatten(received) == keras.tree.flatten(expected)
    weights = layer.count_params()
    entities = tuple(size + 1 for size in case.entities)
    x, mask, given = case.inputs(batch=3, entities=entities)
    outputs = keras.tree.flatten(model.predict_on_batch([x, mask, given]))
    assert layer.count_params() == weights
    if case.returns_states:
        assert outputs[1].shape == (3, layer.iterations, *entities, layer.hidden_units)
    else:
        assert outputs[0].shape == layer.compute_output_shape(x.shape)
        assert_close(outputs, outputs_of(case, layer, x, mask, given))


class NeedsFiveEntities(keras.layers.Layer):
    """Weighs the entities of a set of five, wherever they are."""

    symmetry = "equivariant"

    def call(self, x, mask=None, weights=None):
        return x * ops.cast(ops.shape(x)[1], x.dtype)


def test_size_is_broken():
    case = next(case for case in CASES if case.name == "dense_mean")
    with pytest.raises(AssertionError):
        assert_any_size(case, NeedsFiveEntities())


# --- Precision -----------------------------------------------------------------------

MANY = 100_000


def rounded_to_bfloat16(x):
    """To the nearest number with 8 significant bits."""
    mantissa, exponent = np.frexp(np.asarray(x, "float64"))
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def assert_exact_mean(layer, x, **given):
    outputs, _, _ = testing.outputs_and_gradients(layer, x, gradients=False, **given)
    expected = rounded_to_bfloat16(x).mean(axis=1)
    last = outputs[0][:, -1] if outputs[0].ndim == 3 else outputs[0]
    assert np.abs(last / expected - 1).max() <= 2.0**-8, "rounded in the reduction"


@pytest.mark.parametrize("pooling", [layers.MeanPooling, layers.CausalMeanPooling])
@pytest.mark.parametrize("given", ["", "mask", "weights"])
def test_precision_of_many_entities(pooling, given):
    x = (1.0 + np.random.default_rng(0).random((1, MANY, 2))).astype("float32")
    kinds = {"": {}, "mask": np.ones((1, MANY), bool), "weights": np.full((1, MANY), 3.0)}
    given = {given: kinds[given]} if given else {}
    assert_exact_mean(pooling(dtype="mixed_bfloat16"), x, **given)


def test_precision_of_other_poolings():
    x = (1.0 + np.random.default_rng(0).random((1, MANY, 2))).astype("float32")
    exact = rounded_to_bfloat16(x)
    expected = {
        layers.SumPooling: exact.sum(axis=1),
        layers.LogSumExpPooling: np.log(np.exp(exact).sum(axis=1)),
        layers.MaxPooling: exact.max(axis=1),
    }
    for pooling, value in expected.items():
        layer = pooling(dtype="mixed_bfloat16")
        outputs, _, _ = testing.outputs_and_gradients(layer, x, gradients=False)
        assert np.abs(outputs[0] / value - 1).max() <= 2.0**-8


def test_precision_of_counts():
    """Weights above 256 are not rounded to bfloat16."""
    x = np.array([[[1.0], [0.0]]], "float32")
    layer = layers.SumPooling(dtype="mixed_bfloat16")
    weights = np.array([[257.0, 1.0]])
    outputs, _, _ = testing.outputs_and_gradients(layer, x, weights=weights, gradients=False)
    assert abs(outputs[0][0, 0] - 257) <= 1
    mean = layers.MeanPooling(dtype="mixed_bfloat16")
    outputs, _, _ = testing.outputs_and_gradients(
        mean, x, weights=np.array([[257.0, 257.0 * 255]]), gradients=False
    )
    assert outputs[0][0, 0] == 2.0**-8


class AddsInBfloat16(keras.layers.Layer):
    """A running sum in the compute dtype, as a loop over chunks of entities."""

    def call(self, x, mask=None, weights=None):
        total = ops.zeros_like(x[:, 0])
        for chunk in range(1000):
            total = total + ops.sum(x[:, chunk * 100 : chunk * 100 + 100], axis=1)
        return total / MANY


def test_precision_is_broken():
    x = (1.0 + np.random.default_rng(0).random((1, MANY, 2))).astype("float32")
    layer = AddsInBfloat16(dtype="bfloat16")
    broken = np.asarray(ops.convert_to_numpy(ops.cast(layer(x), "float32")))

    class Broken(keras.layers.Layer):
        def call(self, x):
            return ops.convert_to_tensor(broken)

    with pytest.raises(AssertionError, match="rounded in the reduction"):
        assert_exact_mean(Broken(), x)


@pytest.mark.parametrize("policy", POLICIES)
@slow_cases
def test_policies(case, policy):
    x, mask, weights = case.inputs()
    reference, layer = case.make(), case.make(dtype=policy)
    expected = outputs_of(case, reference, x, mask, weights)
    layer.build(x.shape)
    layer.set_weights(reference.get_weights())
    half = policy.removeprefix("mixed_")
    assert layer.compute_dtype == half
    received = layer.compute_output_spec(keras.KerasTensor(x.shape, "float32"))
    assert all(tensor.dtype == half for tensor in keras.tree.flatten(received))
    assert all(weight.dtype == "float32" for weight in layer.trainable_weights)
    tolerance = testing.TOLERANCES[half]
    assert_close(outputs_of(case, layer, x, mask, weights), expected, tolerance)
    if policy == "mixed_bfloat16":
        testing.assert_padding_invariant(
            case.function(layer), x, mask, weights, case.training, padding=padding_of(case)
        )


# --- Bad input -----------------------------------------------------------------------


def raises_before_building(case, match, *args, **kwargs):
    layer = case.make()
    with pytest.raises(ValueError, match=match):
        layer(*args, **kwargs)
    assert not layer.built and not layer.weights or case in POOLINGS


@every_case
def test_bad_calls(case):
    x, mask, weights = case.inputs()
    rank_2 = np.ones((2, 3), "float32")
    raises_before_building(case, r"`inputs` of shape.*inputs\.shape=\(2, 3\)", rank_2)
    raises_before_building(case, r"`mask`.*mask\.shape=", x, mask=mask[:, :-1])
    raises_before_building(case, r"`mask`.*mask\.shape=", x, mask=mask[..., None])
    raises_before_building(case, r"`weights`.*weights\.shape=", x, weights=weights[:1])
    for wrong in (-1.0, np.nan, np.inf):
        bad = weights.copy()
        bad.reshape(-1)[0] = wrong
        raises_before_building(case, "finite `weights` >= 0", x, weights=bad)
    unknown = keras.KerasTensor((*x.shape[:-1], None))
    raises_before_building(case, "last axis", unknown)


def test_wrong_weights_of_masked_entities_do_no_harm():
    case = CASES[0]
    x, mask, weights = case.inputs()
    mask[0, 1] = False
    expected = outputs_of(case, case.make(), x, mask, weights)
    weights[0, 1] = np.nan
    assert_close(outputs_of(case, case.make(), x, mask, weights), expected)


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, "3", None, float("nan")])
@pytest.mark.parametrize(
    ("cls", "argument"),
    [
        (layers.PermutationEquivariantDense, "units"),
        (layers.Swarm, "units"),
        (layers.Swarm, "hidden_units"),
        (layers.Swarm, "iterations"),
        (layers.SwarmCell, "units"),
        (layers.SwarmCell, "pooled_units"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_bad_sizes(cls, argument, value):
    if value is None and argument in ("hidden_units", "pooled_units"):
        pytest.skip("None is the default")
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: {argument}="):
        cls(**{"units": 4, argument: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, True, "0.5", None, float("nan")])
def test_bad_dropout(value):
    with pytest.raises(ValueError, match="`dropout`.*Received: dropout="):
        layers.Swarm(4, dropout=value)


def test_bad_choices():
    with pytest.raises(ValueError, match="`pooling`.*'mean'.*'causal'.*pooling='median'"):
        layers.PermutationEquivariantDense(4, pooling="median")
    with pytest.raises(ValueError, match="`pooling`.*'mean'.*pooling=3"):
        layers.Swarm(4, pooling=3)
    with pytest.raises(ValueError, match="`pooling`.*'mean'"):
        layers.Swarm(4, pooling=layers.MeanPooling)
    with pytest.raises(ValueError, match="`context`.*'swarm', 'static', 'self'.*'all'"):
        layers.Swarm(4, context="all")
    with pytest.raises(ValueError, match="keepdims"):
        layers.CausalMeanPooling(keepdims=True)


def test_bad_input_is_broken():
    """The check of the checks: a layer that builds first is found."""

    class BuildsFirst(keras.layers.Dense):
        def __call__(self, x, mask=None, weights=None):
            if not self.built:
                self.build(np.shape(x))
            raise ValueError("`inputs` of shape: inputs.shape=(2, 3)")

    case = type("Broken", (), {"make": staticmethod(lambda: BuildsFirst(3))})
    with pytest.raises(AssertionError):
        raises_before_building(case, "`inputs` of shape", np.ones((2, 3)))


# --- Round trip through a configuration; files are in test_saving.py -------------------


def assert_config_round_trip(layer):
    text = json.dumps(keras.saving.serialize_keras_object(layer), sort_keys=True)
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(layer)
    assert json.dumps(keras.saving.serialize_keras_object(again), sort_keys=True) == text
    by_class = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert by_class.get_config() == layer.get_config()
    return again


@every_case
def test_config(case):
    layer = case.make()
    layer(keras.KerasTensor(case.input_shape))
    again = assert_config_round_trip(layer)
    assert again.built
    again.set_weights(layer.get_weights())
    x, mask, weights = case.inputs()
    expected = outputs_of(case, layer, x, mask, weights)
    assert_close(outputs_of(case, again, x, mask, weights), expected)


def test_config_keeps_every_option():
    options = {
        "kernel_initializer": keras.initializers.HeNormal(seed=3),
        "pooled_regularizer": keras.regularizers.L2(0.1),
        "bias_constraint": keras.constraints.NonNeg(),
        "dtype": "mixed_bfloat16",
        "name": "mine",
    }
    swarm = layers.Swarm(4, projection_regularizer="l1", seed=5, dropout=0.1, **options)
    dense = layers.PermutationEquivariantDense(
        4, activity_regularizer="l2", pooling=layers.MeanPooling(keepdims=True), **options
    )
    for layer in (swarm, dense, layers.SwarmCell(4, pooled_units=2, **options)):
        assert_config_round_trip(layer)


def test_config_is_broken():
    class Forgets(layers.PermutationEquivariantDense):
        def get_config(self):
            return {**super().get_config(), "use_bias": True, "units": 2}

    with pytest.raises(AssertionError):
        keras.saving.register_keras_serializable("tests")(Forgets)
        layer = Forgets(3, use_bias=False)
        again = assert_config_round_trip(layer)
        assert again.units == layer.units


# --- Masks that Keras carries along ----------------------------------------------------


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
