"""An initializer that is given once never starts two weights as copies of each other."""

import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import groups
from keras_sets import layers

# Sizes for which as many weights as possible have one shape.
LAYERS = {
    "dense": (layers.PermutationEquivariantDense, {"units": 4}),
    "cell": (layers.SwarmCell, {"units": 4, "unit_forget_bias": False}),
    "swarm": (layers.Swarm, {"units": 8, "hidden_units": 2}),
    "normalization": (layers.SetNormalization, {}),
    "group": (layers.PermutationGroupDense, {"units": 4, "group": groups.symmetric(4)}),
    "graph": (layers.GraphEquivariantDense, {"units": 4, "input_order": 1, "output_order": 2}),
    "sab": (layers.SetAttentionBlock, {"units": 4, "num_heads": 2}),
    "sab_projected": (
        layers.SetAttentionBlock,
        {"units": 4, "num_heads": 1, "residual": "projected"},
    ),
    "isab": (
        layers.InducedSetAttentionBlock,
        {"units": 4, "num_heads": 1, "num_inducing_points": 4, "input_width": 8},
    ),
    "pma": (
        layers.PoolingByMultiheadAttention,
        {"units": 4, "num_heads": 1, "num_seeds": 4, "input_feed_forward_layers": 3},
    ),
    "dss": (layers.DSSConv1D, {"filters": 4, "kernel_size": 3}),
}


def all_arguments(cls):
    """The arguments of a class, those that it hands to its bases too."""
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("keras_sets")
        for name in inspect.signature(base.__init__).parameters
    }


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("name", LAYERS)
def test_no_copies(name, seed):
    cls, options = LAYERS[name]
    options = dict(options)
    width = options.pop("input_width", 4)
    shared = keras.initializers.RandomNormal(seed=seed)
    given = {key: shared for key in all_arguments(cls) if key.endswith("_initializer")}
    assert given
    layer = cls(**options, **given)
    layer.build((2, 4, 5, width) if name == "dss" else (2, 4, width))
    drawn = [w for w in layer.weights if "seed_generator" not in w.path]
    assert len(drawn) > 1
    for one, other in itertools.combinations(drawn, 2):
        values = [ops.convert_to_numpy(w) for w in (one, other)]
        # Those of normalisations inside of attention blocks are ones and zeros.
        if one.shape == other.shape and all(np.std(v) > 0 for v in values):
            assert np.abs(values[0] - values[1]).max() > 1e-4, (one.path, other.path)
