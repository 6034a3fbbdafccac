"""Sets and chunks of them, and how a network in chunks is compared with the whole."""

import keras
import numpy as np
from keras import ops

from keras_sets import models
from keras_sets import testing
from tests.model_cases import AsLayer

FEATURES = 11
CUTS = (0, 5, 5, 10, 15)


def sets(batch=3, size=15, features=FEATURES, seed=0):
    """Entities with NaN padding, one set whose first entities are absent, one empty set."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, size, features)).astype("float32")
    mask = rng.random((batch, size)) < 0.7
    mask[:, 0] = True
    mask[1, :6] = False
    mask[2] = False
    weights = np.where(rng.random((batch, size)) < 0.8, 3 * rng.random((batch, size)), 0.0)
    return np.where(mask[..., None], x, np.nan), mask, weights.astype("float32")


def cut(arrays, cuts=CUTS):
    return [
        tuple(None if a is None else a[:, start:stop] for a in arrays)
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True)
    ]


def numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def assert_close(received, expected, tolerance=3e-6):
    assert received.shape == expected.shape
    scale = max(1e-30, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(received / scale, expected / scale, rtol=0, atol=tolerance)


def whole_of(layer, x, mask, weights):
    """What a call gives; JAX compiles one program, not one for every operation."""
    outputs, _, _ = testing.outputs_and_gradients(
        layer, x, mask=mask, weights=weights, gradients=False
    )
    return outputs[0]


def whole_and_chunks(model, weighted=True, cuts=CUTS, features=FEATURES):
    x, mask, weights = sets(features=features)
    weights = weights if weighted else None
    chunks = cut((x, mask, weights), cuts)
    outputs = models.predict_in_chunks(model, lambda: iter(chunks))
    if not isinstance(outputs, np.ndarray):
        outputs = list(outputs)
        assert [y.shape[1] for y in outputs] == [c[0].shape[1] for c in chunks]
        outputs = np.concatenate(outputs, axis=1)
    function = AsLayer(model) if isinstance(model, keras.Model) else model
    return whole_of(function, x, mask, weights), outputs
