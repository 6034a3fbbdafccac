"""Every model of `keras_sets.models` in every format: it answers like the model, or is refused.

    KERAS_BACKEND=torch python -m pytest tests/check_export.py

Not among the tests of every run, because converters take seconds for each.
"""

import importlib.util

import keras
import pytest

import keras_sets
from keras_sets.export import export_model
from keras_sets.export import formats
from tests import export_cases

BACKEND = keras.config.backend()
FORMATS = [
    name
    for name, form in formats.FORMATS.items()
    if BACKEND in form.needs and all(map(importlib.util.find_spec, form.needs[BACKEND]))
]
models = keras_sets.models
SMALL = {"hidden_units": 8}
MODELS = {
    "deep_sets": lambda: models.deep_sets(2, 3, pooling="logsumexp", weighted=True, **SMALL),
    "deep_sets_max": lambda: models.deep_sets(2, 3, pooling="sum", output_pooling="max", **SMALL),
    "swarm": lambda: models.swarm(2, 3, iterations=2, pooling="max", weighted=True, **SMALL),
    "swarm_causal": lambda: models.swarm(2, 3, iterations=2, pooling="causal", **SMALL),
    "swarm_maps": lambda: models.swarm(
        2, 3, iterations=2, pooling=keras_sets.layers.PoolingMaps(2), **SMALL
    ),
    "set_transformer": lambda: models.set_transformer(2, 3, num_inducing_points=3, **SMALL),
    "set_transformer_pairs": lambda: models.set_transformer(
        2, 3, num_inducing_points=None, normalization="set", num_seeds=2, weighted=True, **SMALL
    ),
    "bidirectional_lstm": lambda: models.bidirectional_lstm(2, 3, **SMALL),
    "sorted_lstm": lambda: models.sorted_lstm(2, 3, **SMALL),
    "swarm_image_transformer": lambda: models.swarm_image_transformer(
        (3, 4, 1), num_classes=5, iterations=2, num_levels=5, neighborhood=1, **SMALL
    ),
    "swarm_image_transformer_blocks": export_cases.blocks,
    "clustering_2d": lambda: models.load_pretrained("clustering_2d"),
    "mixture_of_gaussians": lambda: models.load_pretrained("mixture_of_gaussians"),
}
LSTMS = {"bidirectional_lstm", "sorted_lstm"}
TRACED = {
    *("swarm", "swarm_causal", "swarm_maps", "clustering_2d"),
    *("swarm_image_transformer", "swarm_image_transformer_blocks"),
}
# Iterated networks magnify rounding where a set is far from what they have seen, as six points are.
MAGNIFIED = {"mixture_of_gaussians": 1e-2, "clustering_2d": 1e-3}
REFUSED = {
    ("torch", "torch"): LSTMS,
    # For single entities.
    ("onnx", "torch"): LSTMS | {"clustering_2d"},
    ("openvino", "tensorflow"): LSTMS,
    ("openvino", "torch"): LSTMS | TRACED,
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_model_in_format(name, format, rng, tmp_path):
    model = MODELS[name]()
    sizes = {}
    if not formats.FORMATS[format].free_sizes:
        sizes = {"batch_size": 2}
        if "entities" in model.input:
            sizes["set_size"] = 6
    if name in REFUSED.get((format, BACKEND), ()):
        with pytest.raises(ValueError, match="Instead, save the model .*KERAS_BACKEND="):
            export_model(model, tmp_path / "served", format=format, **sizes)
        return
    path = export_model(model, tmp_path / "served", format=format, **sizes)
    batches = export_cases.questions(rng, model)
    if name in LSTMS:  # Keras has no answer without steps
        batches = [x for x in batches if 0 not in x["mask"].shape]
    if sizes:
        shape = (2, 6) if "set_size" in sizes else (2,)
        batches = [x for x in batches if next(iter(x.values())).shape[: len(shape)] == shape]
    specs = formats._input_specs(model.input, formats._symbols(model, model.input), **sizes)
    answer = formats.FORMATS[format].runtime(str(path), specs)
    tolerance = MAGNIFIED.get(name, export_cases.TOLERANCE)
    export_cases.check(model, batches, [answer(batch)[0] for batch in batches], tolerance)
