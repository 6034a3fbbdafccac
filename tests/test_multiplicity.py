"""Multiplicity: weights say how often an entity occurs."""

import numpy as np
import pytest

from keras_sets import testing
from tests.cases import CASES
from tests.laws import assert_close
from tests.laws import every_case
from tests.laws import outputs_of

scale_invariant_cases = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.scale_invariant and case.copies == "all"],
    ids=lambda case: case.name,
)


@every_case
def test_multiplicity(case, thorough):
    x, mask, weights = case.inputs()
    options = {
        "training": case.training,
        "num_entity_axes": len(case.entities),
        "copies": case.copies,
    }
    layer = case.function()
    scale = case.scale_invariant
    if case.slow and case.bare:
        options["scale_invariant"] = scale and thorough
        testing.assert_multiplicity(layer, x, gradients=thorough, **options)
    options.update(scale_invariant=scale, gradients=thorough or case.slow)
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
