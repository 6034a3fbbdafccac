"""Checks of the symmetries, masks and weights of layers on sets, for your own layers and models.

Every check calls `layer(inputs, mask=mask, weights=weights)`, with `mask` and `weights`
only where they were given, so that plain Keras layers, models and functions can be checked
as well. Values are compared, and gradients of a random linear function of the outputs
towards the inputs and towards the layer's weights. Errors are relative to the
largest value of an output, and of all gradients together. A check that fails raises an
`AssertionError` that says what differed, and by how much.

Arguments of all checks:
    layer: A layer, a model, or a function of `inputs`, and of `mask` and `weights` where
        these are given. Gradients towards weights are compared if it has
        `trainable_variables`.
    inputs: `(batch, *entities, ...)`. Floating inputs are cast to `keras.config.floatx()`.
    mask: Optional bool `(batch, *entities)`, True for a real entity.
    weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
    training: Passed on unless None. Random states are the same in all calls.
    num_entity_axes: How many axes after the first are entity axes. None is all but the
        last, or those of `mask` or `weights`.
    gradients: Whether to compare gradients too.
    tolerance: Largest relative error. None is a few units of the output's precision.
    seed: Seed of all random choices.

>>> import keras, numpy as np, keras_sets
>>> points = np.random.default_rng(0).normal(size=(2, 5, 3))
>>> keras_sets.testing.assert_permutation_invariant(keras_sets.layers.MeanPooling(), points)
>>> keras_sets.testing.assert_permutation_invariant(keras.layers.Flatten(), points)
Traceback (most recent call last):
    ...
AssertionError: not permutation invariant: outputs ...
"""

from keras_sets.testing.check import TOLERANCES
from keras_sets.testing.gradients import outputs_and_gradients
from keras_sets.testing.multiplicity import assert_multiplicity
from keras_sets.testing.order import assert_causal
from keras_sets.testing.order import assert_permutation_equivariant
from keras_sets.testing.order import assert_permutation_invariant
from keras_sets.testing.padding import assert_padding_invariant

__all__ = [
    "TOLERANCES",
    "assert_causal",
    "assert_multiplicity",
    "assert_padding_invariant",
    "assert_permutation_equivariant",
    "assert_permutation_invariant",
    "outputs_and_gradients",
]
