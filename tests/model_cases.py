"""The registry of models. A new function of `keras_sets.models` is one row here or more."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_sets import models


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A model on sets of points with three features, or as many as `features`.

    Attributes:
        name: Name of the case in test reports.
        make: Gives the model, of four units.
        outputs: Shape of the outputs of a set, None for the number of its entities.
        weighted: Whether it takes weights.
        gradients: Whether gradients are compared. Those through all steps of a trained network
            of slots multiply rounding errors; the small untrained one stands for it.
        size: Number of entities of a set. Trained networks magnify rounding for sets of few.
    """

    name: str
    make: Callable
    outputs: tuple = (None, 4)
    weighted: bool = False
    features: int = 3
    gradients: bool = True
    size: int = 5

    def inputs(self, seed=0, batch=2):
        """`(entities, mask, weights)`, weights None where the model takes none."""
        size = self.size
        rng = np.random.default_rng(seed)
        mask = rng.random((batch, size)) < 0.7
        mask[:, :1] = True
        weights = (0.1 + rng.random((batch, size))).astype("float32")
        x = rng.normal(size=(batch, size, self.features)).astype("float32")
        return x, mask, weights if self.weighted else None


class AsLayer:
    """A model that is called as set layers are."""

    def __init__(self, model):
        self.model = model

    built = True

    @property
    def trainable_variables(self):
        return self.model.trainable_variables

    @property
    def non_trainable_variables(self):
        return self.model.non_trainable_variables

    def __call__(self, x, mask=None, weights=None, training=None):
        inputs = {"entities": x, "mask": np.ones(x.shape[:2], bool) if mask is None else mask}
        if weights is not None:
            inputs["weights"] = weights
        return self.model(inputs, training=training)


def _case(name, function, outputs=(None, 4), weighted=True, **options):
    if weighted:
        options["weighted"] = True
    if function not in (models.bidirectional_lstm, models.sorted_lstm):
        options.setdefault("num_layers", 1)
    make = lambda: function(3, 4, hidden_units=6, **options)  # noqa: E731
    return ModelCase(name, make, outputs, weighted)


def _transformer(name, outputs=(None, 4), **options):
    options = {"num_heads": 2, "feed_forward_layers": 1, "num_inducing_points": 3, **options}
    return _case(name, models.set_transformer, outputs, **options)


def _pretrained(name, outputs, **options):
    return ModelCase(name, lambda: models.load_pretrained(name), outputs, features=2, **options)


MODELS = [
    _case("deep_sets", models.deep_sets, num_layers=2),
    _case("deep_sets_pooled", models.deep_sets, (4,), output_pooling="max"),
    _case("swarm", models.swarm, iterations=2),
    _case("swarm_pooled", models.swarm, (4,), iterations=2, output_pooling="mean"),
    _transformer("set_transformer"),
    _transformer("set_transformer_of_pairs", num_inducing_points=None),
    _transformer("set_transformer_projected", residual="projected", normalization=None),
    _transformer("set_transformer_pooled", (4,), output_pooling="attention"),
    _transformer("set_transformer_seeds", (2, 4), num_seeds=2),
    _case("bidirectional_lstm", models.bidirectional_lstm, weighted=False),
    _case("sorted_lstm", models.sorted_lstm, weighted=False),
    ModelCase(
        "slot_clustering",
        lambda: models.slot_clustering(
            3, 4, hidden_units=6, iterations=2, em_steps=1, weighted=True
        ),
        weighted=True,
    ),
    _pretrained("clustering_2d_protocol", (None, 10), gradients=False),
    _pretrained("mixture_of_gaussians", (4, 5), size=60),
]
