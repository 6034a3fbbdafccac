"""Random masks and weights through layers of every kind, under every dtype policy."""

import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import testing
from keras_sets.layers.pooling import serialize_pooling
from tests import reference
from tests.cases import CASES

SETS = 8
FIRST = {}
for _case in CASES:
    if _case.slow:
        FIRST.setdefault((type(_case.make()).__name__, _case.symmetry), _case)
# One row of every class, and of every symmetry that it has.
every_class = pytest.mark.parametrize("case", FIRST.values(), ids=lambda case: case.name)


def random_sets(case, seed):
    """Sets of all kinds: empty, full, with few or many entities, light and heavy ones.

    Where an entity is absent, by its mask or by its weight, stand NaN and infinities.
    """
    rng = np.random.default_rng([seed, *case.name.encode()])
    shape = (SETS, *case.entities)
    first = (SETS, *[1] * len(case.entities))
    density = rng.choice([0.0, 0.2, 0.5, 0.9, 1.0], size=first)
    mask = rng.random(shape) < density
    weights = 10.0 ** rng.uniform(-2, 2, size=shape) * (rng.random(shape) < 0.8)
    mask[0], weights[1] = False, 0.0
    present = mask & (weights > 0)
    x = rng.normal(size=(*shape, *case.elements, 3)) * 10.0 ** rng.uniform(-1, 1)
    x[~present] = rng.choice([np.nan, np.inf, -np.inf, 1e30], size=x[~present].shape)
    return x, mask, weights, present


def assert_sound(case, dtype):
    """Finite numbers, zeros where nothing is; returns the layer, its outputs and the sets."""
    x, mask, weights, present = random_sets(case, seed=1)
    layer = case.make(dtype=dtype)
    outputs, towards_x, towards_weights = testing.outputs_and_gradients(
        layer, x, mask=mask, weights=weights, training=case.training
    )
    for array in (*outputs, towards_x, *towards_weights):
        assert np.isfinite(array).all()
    assert not towards_x[~present].any()
    for output in outputs:
        if case.symmetry != "invariant":
            assert not output[~present].any()
        elif case.empty == "zero":
            assert not output[~present.reshape(SETS, -1).any(axis=1)].any()
    return layer, outputs, x, np.where(present, weights, 0.0)


def expected(layer, x, counts):
    """What plain NumPy makes of the sets."""
    pooling = getattr(layer, "pooling", layer)
    name = serialize_pooling(pooling).removesuffix("_mean")
    arrays = [np.asarray(ops.convert_to_numpy(w), "float64") for w in layer.weights]
    if pooling is layer:
        return reference.pool(name, x, counts)
    if isinstance(layer, layers.PermutationEquivariantDense):
        return reference.permutation_equivariant_dense(x, counts, *arrays, name, np.tanh)
    cell, projection = arrays[:4], arrays[4:]
    return reference.swarm(x, counts, cell, projection, layer.iterations, name)[0]


# The layers above change from policy to policy; `test_precision.py` has every pair, with the
# same sets.
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, POLICIES[i % 3], id=f"{case.name}-{POLICIES[i % 3]}")
        for i, case in enumerate(FIRST.values())
    ],
)
def test_random_sets(case, dtype):
    assert_sound(case, dtype)


IN_NUMPY = (layers.Pooling, layers.PermutationEquivariantDense, layers.Swarm)
# Of `tests/test_poolings.py`.
WITH_OPTIONS = (
    layers.GatedAttentionPooling,
    layers.MultiPooling,
    layers.PowerMeanPooling,
    layers.QuantilePooling,
    layers.SoftmaxPooling,
    layers.SortPooling,
)
NOT_IN_NUMPY = (layers.PoolingMaps, layers.SlotPooling, *WITH_OPTIONS)


@every_class
def test_random_sets_in_float64(case, float64, backend):
    layer, outputs, x, counts = assert_sound(case, "float64")
    causal = case.symmetry == "causal"
    if isinstance(layer, IN_NUMPY) and not isinstance(layer, NOT_IN_NUMPY) and not causal:
        values = expected(layer, x, counts)
        # Keras' tanh computes in float32 on JAX.
        exact = backend != "jax" or isinstance(layer, layers.Pooling)
        error = np.abs(outputs[0] - values).max() / np.abs(values).max()
        assert error <= (1e-12 if exact else 1e-6)
