"""Models to export, what they are asked, and what their files must answer."""

import keras
import numpy as np
import pytest

import keras_sets
from examples.power_spectrum.model import circle_network
from keras_sets.export import formats

BACKEND = keras.config.backend()
# A batch as large as a set, one set, one entity; no model has seen any of them.
SIZES = [(1, 7), (5, 5), (3, 1), (2, 31), (4, 2)]
if BACKEND != "jax":  # its symbols for sizes are at least 1
    SIZES += [(2, 0), (0, 3)]
TOLERANCE = 1e-5


def only_from(*backends):
    reason = f"of {' and '.join(backends)}; test_refused_formats has what others refuse"
    return pytest.mark.skipif(BACKEND not in backends, reason=reason)


def clustering():
    return keras_sets.models.swarm(2, 3, hidden_units=8, iterations=2)


def power_spectrum():
    model = circle_network(1, 4, 3, weighted=True)
    # Powers of about one, as after training: exponentials of large numbers magnify rounding.
    output = model.get_layer("output")
    output.kernel.assign(0.1 * output.kernel)
    return model


def image():
    return keras_sets.models.swarm_image_transformer(
        (3, 4, 1), num_classes=5, hidden_units=8, iterations=2, num_levels=5
    )


def blocks():
    return keras_sets.models.swarm_image_transformer(
        (3, 4, 1),
        num_classes=5,
        num_layers=2,
        hidden_units=8,
        iterations=2,
        neighborhood=1,
        num_levels=5,
        feed_forward_units=6,
        num_heads=2,
    )


def attention():
    return keras_sets.models.set_transformer(
        2, 3, 8, num_heads=2, num_inducing_points=None, feed_forward_layers=1, weighted=True
    )


def maximum():
    """A maximum of nothing, which shows where a set is pooled to one output."""
    options = {"pooling": "max", "output_pooling": "max"}
    return keras_sets.models.deep_sets(2, 3, hidden_units=8, num_layers=2, **options)


def slots():
    return keras_sets.models.slot_clustering(2, 4, 8, iterations=1, em_steps=0, num_starts=2)


MODELS = {"clustering": clustering, "power_spectrum": power_spectrum, "image": image}
BY_CONVERTERS = {**MODELS, "attention": attention, "blocks": blocks, "maximum": maximum}


def draw(rng, model, batch, set_size):
    def draw_one(x):
        shape = (batch, *(set_size if size is None else size for size in x.shape[1:]))
        if x.dtype == "bool":
            return rng.random(shape) < 0.7
        if x.dtype == "int32":
            return rng.integers(0, 5, shape).astype("int32")
        return np.abs(rng.normal(size=shape)).astype("float32")

    return {name: draw_one(x) for name, x in model.input.items()}


def questions(rng, model):
    """Inputs of all sizes; with a mask also other masked entities, then another mask."""
    batches = [draw(rng, model, *sizes) for sizes in SIZES]
    if "mask" in model.input:
        first = draw(rng, model, 2, 6)
        first["mask"][:] = np.arange(6) >= 2  # the first ones, for causal models, too
        entities = np.where(first["mask"][..., None], first["entities"], np.nan).astype("float32")
        empty = first["mask"] & ([[True], [False]])
        batches += [
            {**first, "mask": empty, "entities": entities},
            first,
            {**first, "entities": entities},
            {**first, "mask": np.ones_like(first["mask"])},
        ]
    return batches


def check(model, batches, answers, tolerance=TOLERANCE):
    expected = [formats._predict(model, batch) for batch in batches]
    for batch, answer, y in zip(batches, answers, expected, strict=True):
        shapes = {name: x.shape for name, x in batch.items()}
        np.testing.assert_allclose(answer, y, rtol=tolerance, atol=tolerance, err_msg=str(shapes))
    if "mask" in model.input and model.output.shape[1] is None:
        first, others_absent, all_present = answers[-3:]
        real = batches[-3]["mask"]
        np.testing.assert_allclose(others_absent[real], first[real], atol=TOLERANCE)
        assert np.abs(all_present[real] - first[real]).max() > 10 * TOLERANCE
