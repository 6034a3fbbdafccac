"""Size: no entity, one, any number; known when the model is made or not."""

import keras
import numpy as np

from tests.laws import any_size_cases
from tests.laws import assert_any_size
from tests.laws import assert_close
from tests.laws import assert_empty_is_finite
from tests.laws import every_case
from tests.laws import functional
from tests.laws import outputs_of


@every_case
def test_empty(case, thorough):
    """Nothing but masked entities, or entities of weight 0: not a number would show."""
    x, mask, weights = case.inputs(batch=3)
    mask[0], weights[1] = False, 0.0
    layer = case.function()
    calls = [({"mask": mask, "weights": weights}, slice(0, 2))]  # compiled once
    if thorough:
        calls = [({"mask": mask}, slice(0, 1)), ({"weights": weights}, slice(1, 2))]
    zero = case.empty == "zero"
    for given, empty in calls:
        dirty = x.copy()
        dirty[empty] = np.nan
        assert_empty_is_finite(layer, dirty, empty, zero, training=case.training, **given)


@any_size_cases
def test_no_places(case, thorough):
    """Sets of size 0, not even padding."""
    x, mask, weights = case.inputs(entities=(0,) * len(case.entities))
    layer = case.make()
    bare = [{}] if thorough or case.slow else []
    for given in (*bare, {"mask": mask, "weights": weights}):
        outputs = outputs_of(case, layer, x, **given)
        assert all(np.isfinite(output).all() for output in outputs)


@every_case
def test_size(case, thorough):
    layer = case.make()
    if case.group is None:
        assert_any_size(case, layer, (1, 2) if thorough or case.slow else (1,))
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
