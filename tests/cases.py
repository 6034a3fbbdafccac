"""The registry of layer cases. A new layer is one row here; every law then tests it."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_sets import groups
from keras_sets import layers


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer to test.

    Attributes:
        name: Name of the case in test reports.
        make: `make(**kwargs)` gives the layer; `dtype` is the only keyword argument used.
        symmetry: `"equivariant"`, `"invariant"`, `"causal"` or `"group"`.
        entities: Sizes of the entity axes in tests.
        elements: Sizes of the axes of a single entity before its features.
        group: The permutations that the symmetry is about, of sets of exactly this size. None
            is all permutations of sets of any size.
        scale_invariant: Whether a common factor of the weights changes nothing.
        copies: As in `keras_sets.testing.assert_multiplicity`.
        empty: What a set without entities gives: `"zero"` or `"finite"`.
        training: Value of `training` in the calls.
        returns_states: The output is `(y, h, c)`, states of all iterations.
        slow: Whether the slower tests (fit, dtype policies, export) run this row too.
        bare: Whether the laws are also tested without a mask and weights, in slow rows. Rows
            whose layer takes the same path there as that of another row do without.
    """

    name: str
    make: Callable
    symmetry: str
    entities: tuple = (5,)
    elements: tuple = ()
    group: groups.PermutationGroup | None = None
    scale_invariant: bool = True
    copies: str = "all"
    empty: str = "zero"
    training: bool | None = None
    returns_states: bool = False
    slow: bool = True
    bare: bool = True

    @property
    def input_shape(self):
        return (2, *self.entities, *self.elements, 3)

    def inputs(self, seed=0, batch=2, features=3, entities=None):
        """`(x, mask, weights)`: both leave out some entities, and none leaves out all."""
        rng = np.random.default_rng(seed)
        shape = (batch, *(entities or self.entities))
        mask = rng.random(shape) < 0.7
        weights = np.where(rng.random(shape) < 0.8, 2 * rng.random(shape), 0.0)
        if mask.size:
            mask.reshape(batch, -1)[:, 0] = True
            weights.reshape(batch, -1)[:, 0] = 0.5
        x = rng.normal(size=(*shape, *self.elements, features)).astype("float32")
        return x, mask, weights.astype("float32")

    def function(self, layer=None):
        """The layer as the checks call it: one output per entity or per set."""
        layer = layer or self.make()
        return StatesAtEntities(layer) if self.returns_states else layer


class StatesAtEntities:
    """`(y, h, c)` with the states of all iterations as features of the entities."""

    def __init__(self, layer):
        self.layer = layer

    @property
    def built(self):
        return self.layer.built

    @property
    def trainable_variables(self):
        return self.layer.trainable_variables

    @property
    def non_trainable_variables(self):
        return self.layer.non_trainable_variables

    def __call__(self, *args, **kwargs):
        y, *states = self.layer(*args, **kwargs)
        return [y, *(ops.moveaxis(state, 1, -1) for state in states)]


def _factory(cls, *args, **options):
    return lambda **kwargs: cls(*args, **options, **kwargs)


def _split(options):
    """The options of a row, and those of its layer."""
    names = {field.name for field in dataclasses.fields(Case)}
    return (
        {key: value for key, value in options.items() if key in names},
        {key: value for key, value in options.items() if key not in names},
    )


def _with_bias(name, cls, *args, symmetry="equivariant", **options):
    """A row of a layer whose bias is what a set without entities gives."""
    case, options = _split(options)
    make = _factory(cls, *args, **{"bias_initializer": "random_normal", **options})
    return Case(name, make, symmetry, empty="finite", **case)


def _pooling(name, cls, *args, **options):
    case, options = _split(options)
    return Case(name, _factory(cls, *args, **options), "invariant", **case)


def _multi_pooling(dtype=None):
    return layers.MultiPooling(
        ["mean", "min", layers.SoftmaxPooling(dtype=dtype)], ["attenuation"], dtype=dtype
    )


def _dense(pooling, symmetry="equivariant", **options):
    name = options.pop("name", f"dense_{pooling}")
    cls = layers.PermutationEquivariantDense
    options = {"activation": "tanh", "pooling": pooling, **options}
    return _with_bias(name, cls, 4, symmetry=symmetry, **options)


def _dense_with_maps(dtype=None):
    return layers.PermutationEquivariantDense(
        4,
        pooling=layers.PoolingMaps(1, dtype=dtype),
        bias_initializer="random_normal",
        dtype=dtype,
    )


def _swarm(name, symmetry="equivariant", **options):
    # Two iterations pool once, and compile in half the time of three.
    iterations = 3 if options.get("slow", True) else 2
    options = {"hidden_units": 3, "iterations": iterations, **options}
    return _with_bias(name, layers.Swarm, 4, symmetry=symmetry, **options)


def _slots(name, **options):
    case, options = _split(options)
    # With much scatter, differences of squares are not those of large numbers.
    # One row has more than one iteration: what is compiled grows with each.
    iterations = 2 if options.get("slow", True) else 1
    options = {"units": 3, "iterations": iterations, "em_steps": 1, "scatter": 3.0, **options}
    make = _factory(layers.SlotRefinement, 4, **options)
    # The prior of the covariances has a mass of its own.
    return Case(name, make, "equivariant", scale_invariant=False, empty="finite", **case)


def _slot_pooling(dtype=None):
    return layers.SlotPooling(4, units=3, iterations=1, em_steps=1, scatter=3.0, dtype=dtype)


def _swarm_with_slots(dtype=None):
    pooling = layers.SlotPooling(2, units=3, iterations=1, em_steps=0, scatter=3.0, dtype=dtype)
    options = {"hidden_units": 3, "iterations": 2, "bias_initializer": "random_normal"}
    return layers.Swarm(4, pooling=pooling, dtype=dtype, **options)


def _around(make_inner, **options):
    return lambda dtype=None: layers.DSS(make_inner(dtype=dtype), dtype=dtype, **options)


def _group(name, group, symmetry):
    return _with_bias(
        name,
        layers.PermutationGroupDense,
        4,
        group,
        symmetry=symmetry,
        entities=(group.degree,),
        group=group,
        scale_invariant=False,
        copies="none",
        bare=False,
    )


@keras.saving.register_keras_serializable(package="tests")
class ThroughPairs(layers.SetLayer):
    """Nodes to pairs of nodes, to pairs, and back to nodes."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.parts = [
            layers.GraphEquivariantDense(
                units,
                *orders,
                activation="tanh",
                bias_initializer="random_normal",
                dtype=self.dtype_policy,
                name=f"part_{index}",
            )
            for index, orders in enumerate([(1, 2), (2, 2), (2, 1)])
        ]

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs, mask=None, weights=None, training=None, inputs_mask=None):
        x = inputs
        for part in self.parts:
            x = part(x, mask=inputs_mask if mask is None else mask, weights=weights)
        return x

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


POOLINGS = [
    _pooling("mean_pooling", layers.MeanPooling),
    _pooling("sum_pooling", layers.SumPooling, scale_invariant=False),
    _pooling("max_pooling", layers.MaxPooling),
    _pooling("logsumexp_pooling", layers.LogSumExpPooling, scale_invariant=False),
    _pooling("min_pooling", layers.MinPooling, bare=False),
    _pooling("variance_pooling", layers.VariancePooling, bare=False),
    _pooling("standard_deviation_pooling", layers.StandardDeviationPooling, bare=False),
    _pooling("softmax_pooling", layers.SoftmaxPooling, bare=False),
    _pooling("power_mean_pooling", layers.PowerMeanPooling, minimum=0.1, bare=False),
    _pooling("quantile_pooling", layers.QuantilePooling, [0.3, 0.8], bare=False),
    _pooling("median_pooling", layers.MedianPooling, bare=False),
    _pooling("sort_pooling", layers.SortPooling, 3, bare=False),
    _pooling("gated_attention_pooling", layers.GatedAttentionPooling, 4, bare=False),
    Case("multi_pooling", _multi_pooling, "invariant", scale_invariant=False, bare=False),
    _pooling("variance_pooling_2d", layers.VariancePooling, entities=(3, 2), slow=False),
    _pooling("sort_pooling_2d", layers.SortPooling, 3, entities=(3, 2), slow=False),
    _pooling("mean_pooling_2d", layers.MeanPooling, entities=(3, 2), slow=False),
    Case("causal_mean_pooling", _factory(layers.CausalMeanPooling), "causal", copies="last"),
    Case(
        "causal_mean_pooling_2d",
        _factory(layers.CausalMeanPooling),
        "causal",
        copies="last",
        entities=(3, 2),
        slow=False,
    ),
]

CASES = [
    *POOLINGS,
    _dense("mean"),
    _dense("sum", scale_invariant=False, slow=False),
    _dense("max", slow=False),
    _dense("logsumexp", scale_invariant=False, slow=False),
    _dense("causal", "causal", copies="last"),
    Case("dense_maps", _dense_with_maps, "equivariant", empty="finite", slow=False),
    _dense("mean", name="dense_mean_2d", entities=(3, 2), slow=False),
    _swarm("swarm_mean"),
    _swarm("swarm_sum", pooling="sum", scale_invariant=False, slow=False),
    _swarm("swarm_max", pooling="max", slow=False),
    _swarm("swarm_logsumexp", pooling="logsumexp", scale_invariant=False, slow=False),
    _swarm("swarm_causal", "causal", pooling="causal", copies="none"),
    _swarm("swarm_static", context="static", slow=False),
    _swarm("swarm_self", context="self", slow=False),
    _swarm("swarm_loop", unroll=False, bare=False),
    _swarm("swarm_remat", remat=True, bare=False),
    _swarm("swarm_dropout", dropout=0.4, training=True, bare=False),
    _swarm("swarm_states", return_iterations=True, returns_states=True, slow=False),
    _swarm(
        "swarm_loop_states",
        iterations=3,
        return_iterations=True,
        returns_states=True,
        unroll=False,
        dropout=0.4,
        training=True,
        slow=False,
    ),
    _swarm("swarm_2d", entities=(3, 2), slow=False),
    _swarm(
        "swarm_causal_2d",
        "causal",
        pooling="causal",
        copies="none",
        entities=(3, 2),
        bare=False,
    ),
    _swarm("swarm_maps", hidden_units=10, pooling="pooling_maps", slow=False),
    Case("pooling_maps", _factory(layers.PoolingMaps, 1), "equivariant"),
    Case(
        "pooling_maps_2d",
        _factory(layers.PoolingMaps, 1),
        "equivariant",
        entities=(3, 2),
        slow=False,
    ),
    Case("set_normalization", _factory(layers.SetNormalization), "equivariant"),
    Case("principal_axes", _factory(layers.PrincipalAxes), "equivariant", entities=(12,)),
    _slots("slot_refinement", entities=(12,)),
    Case("slot_pooling", _slot_pooling, "equivariant", entities=(12,), scale_invariant=False),
    Case(
        "swarm_slots",
        _swarm_with_slots,
        "equivariant",
        scale_invariant=False,
        empty="finite",
        slow=False,
    ),
    _slots("slot_refinement_starts", entities=(12,), num_starts=3, slow=False),
    _slots("slot_refinement_2d", entities=(4, 3), slow=False),
    _with_bias("sab", layers.SetAttentionBlock, 4, 2, feed_forward_layers=1),
    _with_bias(
        "sab_clean",
        layers.SetAttentionBlock,
        4,
        2,
        residual="clean",
        normalization="set",
        dropout=0.4,
        training=True,
        slow=False,
    ),
    _with_bias("isab", layers.InducedSetAttentionBlock, 4, 2, 3, bare=False),
    _with_bias(
        "isab_clean_2d",
        layers.InducedSetAttentionBlock,
        4,
        2,
        3,
        residual="clean",
        normalization="set",
        entities=(3, 2),
        slow=False,
    ),
    _with_bias(
        "isab_projected",
        layers.InducedSetAttentionBlock,
        4,
        2,
        3,
        residual="projected",
        feed_forward_layers=1,
        normalization=None,
        slow=False,
    ),
    _with_bias(
        "pma",
        layers.PoolingByMultiheadAttention,
        4,
        2,
        2,
        symmetry="invariant",
    ),
    _with_bias(
        "pma_clean",
        layers.PoolingByMultiheadAttention,
        4,
        2,
        2,
        symmetry="invariant",
        residual="clean",
        normalization="set",
        slow=False,
    ),
    _with_bias(
        "pma_projected",
        layers.PoolingByMultiheadAttention,
        4,
        2,
        2,
        symmetry="invariant",
        residual="projected",
        feed_forward_layers=1,
        input_feed_forward_layers=1,
        slow=False,
    ),
    _with_bias("dss_dense", layers.DSSDense, 4, activation="tanh", scale_invariant=False),
    _with_bias("dss_centered", layers.DSSDense, 4, pooling="centered", slow=False),
    _with_bias("dss_concat_max", layers.DSSDense, 4, pooling="concat_max", slow=False),
    _with_bias(
        "dss_conv",
        layers.DSSConv1D,
        4,
        3,
        padding="same",
        pooling="mean",
        elements=(4,),
    ),
    _with_bias(
        "dss_conv_2d",
        layers.DSSConv2D,
        4,
        3,
        padding="circular",
        elements=(3, 4),
        entities=(4,),
        scale_invariant=False,
        bare=False,
    ),
    _with_bias(
        "dss_conv_3d",
        layers.DSSConv3D,
        4,
        2,
        padding="same",
        pooling="max",
        elements=(2, 3, 2),
        entities=(4,),
        bare=False,
    ),
    Case(
        "dss_graphs",
        _around(
            _factory(layers.GraphEquivariantDense, 4, 2, 2, bias_initializer="random_normal"),
            activation="tanh",
            pooling="logsumexp",
        ),
        "equivariant",
        elements=(3, 3),
        entities=(4,),
        scale_invariant=False,
        empty="finite",
        bare=False,
    ),
    _group("group_symmetric", groups.symmetric(5), "equivariant"),
    _group("group_cyclic", groups.cyclic(5), "group"),
    # Pairs of copies of a node are not what its diagonal holds after an activation.
    Case(
        "graph_pairs",
        _factory(ThroughPairs, 4),
        "equivariant",
        copies="none",
        empty="finite",
        bare=False,
    ),
    _with_bias("graph_nodes", layers.GraphEquivariantDense, 4, 1, 1),
    _with_bias("graph_pooled", layers.GraphEquivariantDense, 4, 1, 0, symmetry="invariant"),
]
