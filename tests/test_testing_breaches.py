"""Layers that break a law in one place only, each of which a check has to see."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import testing

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
MASK = np.array([[True, True, False, True, True], [False, True, True, True, True]])
WEIGHTS = np.array([[0.5, 2, 1, 1, 3], [1, 1, 0.25, 4, 1]])
CHECKS = {
    "order": (testing.assert_permutation_invariant, "not permutation invariant"),
    "padding": (testing.assert_padding_invariant, "not padding invariant"),
    "multiplicity": (testing.assert_multiplicity, "integer weights against repetition"),
}


def real(x, mask):
    return x if mask is None else ops.where(ops.expand_dims(mask, -1), x, 0.0)


class RightInValues(keras.layers.Layer):
    """A sum, whose gradient is that of a further term, towards inputs or weights."""

    def __init__(self, term, towards):
        super().__init__()
        self.supports_masking = True
        self.term = term
        self.towards = towards

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(1,), name="factor", initializer="ones")

    def call(self, x, mask=None, weights=None):
        total = layers.SumPooling()(x, mask=mask, weights=weights)
        term = self.term(real(x, mask))
        if self.towards == "the weight":
            term = self.factor * ops.stop_gradient(term)
        return total + term - ops.stop_gradient(term)


@pytest.mark.parametrize("towards", ["the inputs", "the weight"])
@pytest.mark.parametrize("law", CHECKS)
def test_gradients_alone_break_a_law(law, towards):
    terms = {
        "order": lambda x: x[:, 0],
        "padding": lambda x: ops.mean(x, axis=1),  # over padded places, too
        "multiplicity": lambda x: ops.sum(x, axis=1),  # whatever the weights
    }
    check, broken = CHECKS[law]
    if law == "padding" and towards == "the inputs":
        towards = "the real entities"
    layer = RightInValues(terms[law], towards)
    with pytest.raises(AssertionError, match=f"{broken}.*gradient towards {towards}"):
        check(layer, X)
    check(layer, X, gradients=False)


def test_a_finite_gradient_towards_the_padding():
    def leaks(x, mask=None):
        everything = ops.sum(x, axis=1)
        return ops.sum(real(x, mask), axis=1) + everything - ops.stop_gradient(everything)

    with pytest.raises(AssertionError, match=r"large numbers.*gradient towards the padding"):
        testing.assert_padding_invariant(leaks, X)


def test_next_to_nothing_at_padded_places():
    def keeps(x, mask=None):
        return x if mask is None else ops.where(ops.expand_dims(mask, -1), x, 1e-7)

    with pytest.raises(AssertionError, match=r"at padded places \(expected 0\)"):
        testing.assert_padding_invariant(keeps, X, gradients=False)


def test_weights_that_are_no_numbers_in_the_padding():
    def leaks(x, mask=None, weights=None):
        return ops.sum(real(x, mask) * ops.expand_dims(weights, -1), axis=1)

    with pytest.raises(AssertionError, match="NaN and infinities"):
        testing.assert_padding_invariant(leaks, X, weights=WEIGHTS, gradients=False)


class AddsBias(keras.layers.Layer):
    def build(self, input_shape):
        self.supports_masking = True
        self.bias = self.add_weight(shape=(1,), name="bias")

    def call(self, x, mask=None):
        return real(x, mask) + self.bias


def test_padded_places_that_do_not_count_have_no_gradient():
    testing.assert_padding_invariant(AddsBias(), X, mask=MASK, zero_outputs=False)


@pytest.mark.parametrize("name", ["mask", "weights"])
def test_later_masks_and_weights_are_not_causal(name):
    """The layer scales every entity by how many of all there are."""

    def scaled(x, **given):
        total = ops.sum(ops.cast(given[name], x.dtype), axis=1)
        return x * ops.reshape(total, (-1, 1, 1))

    given = {"mask": MASK, "weights": WEIGHTS}[name]
    with pytest.raises(AssertionError, match="later entities change"):
        testing.assert_causal(scaled, X, gradients=False, **{name: given})


def test_an_order_that_few_permutations_change():
    """The middle stays where neighbours at the ends are exchanged, and in reverse."""
    with pytest.raises(AssertionError, match="under random order"):
        testing.assert_permutation_invariant(lambda x: x[:, 2], X, gradients=False)


def test_one_output_that_is_no_number():
    def law_and_breach(x):
        return ops.sum(x, axis=1) * ops.convert_to_tensor([1, 1, float("nan")])

    with pytest.raises(AssertionError, match="differ by nan"):
        testing.assert_permutation_invariant(law_and_breach, X, gradients=False)


def test_masks_are_ignored():
    def ignores(x, mask=None, weights=None):
        return layers.SumPooling()(x, weights=weights)

    with pytest.raises(AssertionError, match="weight 0 against mask False"):
        testing.assert_multiplicity(ignores, X, gradients=False)


def test_large_weights_alone_break_the_scale():
    def at_most_ten(x, mask=None, weights=None):
        weights = None if weights is None else ops.minimum(weights, 10.0)
        return layers.MeanPooling()(x, mask=mask, weights=weights)

    with pytest.raises(AssertionError, match=r"common factor of the weights \(1000"):
        testing.assert_multiplicity(at_most_ten, X, scale_invariant=True, gradients=False)


def test_multiplicity_of_sets_with_masks_and_weights():
    testing.assert_multiplicity(layers.SumPooling(), X, mask=MASK, weights=WEIGHTS)
    testing.assert_multiplicity(layers.CausalMeanPooling(), X, weights=WEIGHTS)
