"""The checks of the laws: each fails where a layer breaks its law."""

import inspect
import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import groups
from keras_sets import layers
from keras_sets import testing
from tests.cases import CASES
from tests.laws import MANY
from tests.laws import assert_any_size
from tests.laws import assert_config_round_trip
from tests.laws import assert_empty_is_finite
from tests.laws import assert_exact_mean
from tests.laws import raises_before_building


def test_no_gradients_where_none_are_asked_for():
    x = np.ones((2, 3, 3), "float32")
    layer = layers.PermutationEquivariantDense(4)
    _, inputs_gradient, weight_gradients = testing.outputs_and_gradients(layer, x, gradients=False)
    assert inputs_gradient is None and weight_gradients == []
    mask = np.array([[True, True, False]] * 2)
    testing.assert_padding_invariant(layer, x, mask=mask, gradients=False)


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


@pytest.mark.parametrize("batch, size, place", [(2, 9, 2), (2, 9, 5), (1, 8, 5), (30, 100, 60)])
def test_one_output_that_sees_the_next_entity_is_not_causal(batch, size, place):
    reach = np.tril(np.ones((size, size), "float32"))
    reach[place, place + 1] = 1.0
    x = np.random.default_rng(0).normal(size=(batch, size, 2))

    def leak(x):
        return ops.matmul(reach, x)

    for gradients in (False, True):
        with pytest.raises(AssertionError, match=f"(up to entity|output) {place}"):
            testing.assert_causal(leak, x, gradients=gradients)


def test_causality_of_layers_on_integers():
    words = np.random.default_rng(0).integers(5, size=(2, 6))
    total = keras.Sequential([keras.layers.Embedding(5, 3), layers.CausalMeanPooling()])
    testing.assert_causal(total, words, num_entity_axes=1)
    whole = keras.Sequential([keras.layers.Embedding(5, 3), layers.PermutationEquivariantDense(2)])
    with pytest.raises(AssertionError, match="later entities change"):
        testing.assert_causal(whole, words, num_entity_axes=1)


def test_order_is_broken_beside_an_infinite_output():
    """Errors are relative to the largest finite value."""

    def law_and_breach(x):
        return ops.concatenate([0 * x + float("inf"), ops.cumsum(x, axis=1)], axis=-1)

    with pytest.raises(AssertionError, match="not permutation equivariant: outputs .* differ"):
        testing.assert_permutation_equivariant(law_and_breach, np.ones((1, 3, 1)), gradients=False)


def test_dropout_of_single_entities_breaks_order():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    dropout = keras.layers.Dropout(0.5, seed=1)
    with pytest.raises(AssertionError, match="not permutation equivariant"):
        testing.assert_permutation_equivariant(dropout, x, training=True)


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


@pytest.mark.parametrize("size", [1, 2])
def test_multiplicity_is_broken_in_small_sets(size):
    def at_most_two(x, mask=None, weights=None):
        weights = None if weights is None else ops.minimum(weights, 2.0)
        return layers.SumPooling()(x, mask=mask, weights=weights)

    with pytest.raises(AssertionError, match="integer weights against repetition"):
        testing.assert_multiplicity(at_most_two, np.ones((2, size, 3)))


def test_as_many_features_as_entities():
    """One output a set is not taken for one an entity."""
    x = np.random.default_rng(0).normal(size=(2, 5, 5))
    testing.assert_padding_invariant(layers.MeanPooling(), x)
    testing.assert_multiplicity(layers.MeanPooling(), x, scale_invariant=True)
    with pytest.raises(AssertionError, match="not padding invariant: with large numbers"):
        testing.assert_padding_invariant(CountsPadding(), x)
    with pytest.raises(AssertionError, match="integer weights against repetition"):
        testing.assert_multiplicity(IgnoresWeights(), x)


def test_outputs_that_are_none():
    def pair(x):
        return {"mean": ops.mean(x, axis=1), "attention": None}

    testing.assert_permutation_invariant(pair, np.ones((2, 5, 3)))


@pytest.mark.parametrize("name", ["mask", "weights"])
def test_arguments_that_fit_no_entities(name):
    for shape in [(2, 4), (5,)]:
        with pytest.raises(ValueError, match=rf"Argument `{name}` must have .* here \(2, 5\)"):
            testing.assert_permutation_invariant(
                layers.MeanPooling(), np.ones((2, 5, 3)), **{name: np.ones(shape)}
            )


def test_weights_are_no_mask():
    x, weights = np.ones((2, 5, 3)), np.full((2, 5), 2.0)
    for check in (testing.assert_permutation_invariant, testing.outputs_and_gradients):
        with pytest.raises(ValueError, match="bool `mask`.*`weights=`"):
            check(layers.MeanPooling(), x, mask=weights)
        check(layers.MeanPooling(), x, mask=weights - 1)


def test_empty_is_broken():
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    mask = np.array([[False] * 5, [True] * 5])
    with pytest.raises(AssertionError, match="not finite"):
        layer = keras.layers.GlobalAveragePooling1D()
        assert_empty_is_finite(layer, x, slice(0, 1), True, mask=mask)


class NeedsFiveEntities(keras.layers.Layer):
    """Weighs the entities of a set of five, wherever they are."""

    symmetry = "equivariant"

    def call(self, x, mask=None, weights=None):
        return x * ops.cast(ops.shape(x)[1], x.dtype)


def test_size_is_broken():
    case = next(case for case in CASES if case.name == "dense_mean")
    with pytest.raises(AssertionError):
        assert_any_size(case, NeedsFiveEntities())


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


def test_config_is_broken():
    class Forgets(layers.PermutationEquivariantDense):
        def get_config(self):
            return {**super().get_config(), "use_bias": True, "units": 2}

    with pytest.raises(AssertionError):
        keras.saving.register_keras_serializable("tests")(Forgets)
        layer = Forgets(3, use_bias=False)
        again = assert_config_round_trip(layer)
        assert again.units == layer.units


CHECKS = [name for name in testing.__all__ if name.startswith("assert_")]


@pytest.mark.parametrize("name", CHECKS)
def test_every_argument_is_described(name):
    """Its own in the check, the shared ones in the package, and each in one of the two."""
    check = getattr(testing, name)
    described = f"{check.__doc__}\n{testing.__doc__}"
    if "those of `assert_permutation_equivariant`" in check.__doc__:
        described += testing.assert_permutation_equivariant.__doc__
    for argument in inspect.signature(check).parameters:
        assert re.search(rf"^ +{argument}: ", described, re.MULTILINE), argument
