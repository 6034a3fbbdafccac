"""Stacks of attention blocks."""

from typing import Any

import keras

from keras_sets import layers as set_layers
from keras_sets import validation
from keras_sets._typing import PoolingLike
from keras_sets.layers.zero_absent import ZeroAbsent
from keras_sets.models.inputs import pool_outputs
from keras_sets.models.inputs import set_inputs


def set_transformer(
    features: int,
    units: int,
    hidden_units: int = 128,
    num_layers: int = 1,
    num_heads: int = 4,
    num_inducing_points: int | None = 10,
    num_seeds: int | None = None,
    dropout: float = 0.0,
    output_pooling: PoolingLike | None = None,
    weighted: bool = False,
    name: str = "set_transformer",
    **block_arguments: Any,
) -> keras.Model:
    """Stack of `InducedSetAttentionBlock` layers.

    Args:
        features: Width of the entities.
        units: Width of the output.
        hidden_units: Width of the blocks.
        num_layers: Number of blocks.
        num_heads: Number of attention heads.
        num_inducing_points: Number of inducing points in each block. None lets all
            entities attend to each other (`SetAttentionBlock`), at quadratic cost.
        num_seeds: Positive integer, for so many outputs a set by attention pooling: with
            several, `(batch, num_seeds, units)`, after a block among the seeds. None for one.
        dropout: Fraction of the features to drop; entities share the mask.
        output_pooling: None for one output an entity, `(batch, n, units)`, unless there are
            `num_seeds`. For one output a set, `(batch, units)`: `"attention"`, or the name of
            a pooling; pooled, then a dense layer.
        weighted: Whether the model takes weights as a third input.
        name: Name of the model.
        **block_arguments: Of the blocks, such as `normalization` and `residual`.

    Returns:
        A functional `keras.Model`.

    Symmetry:
        Equivariant to the order of the entities; invariant with `output_pooling` or
        `num_seeds`.

    Example:

    >>> import keras_sets
    >>> model = keras_sets.models.set_transformer(2, 10, hidden_units=128, num_layers=1)
    >>> model.count_params()
    268170
    >>> keras_sets.models.set_transformer(2, 10, output_pooling="attention").output_shape
    (None, 10)

    Reference:
        [Lee et al., 2019, Set Transformer](https://arxiv.org/abs/1810.00825), section 3.
    """
    units = validation.positive_integer("units", units)
    num_layers = validation.positive_integer("num_layers", num_layers)
    num_heads = validation.positive_integer("num_heads", num_heads)
    hidden_units = validation.positive_integer("hidden_units", hidden_units)
    validation.check_heads("hidden_units", hidden_units, num_heads)
    if num_seeds is not None:
        num_seeds = validation.positive_integer("num_seeds", num_seeds)
        if output_pooling not in (None, "attention"):
            raise ValueError(
                "Only attention pooling has seeds: expected output_pooling='attention' or None "
                f"beside `num_seeds`. Received: output_pooling={output_pooling!r}, "
                f"num_seeds={num_seeds}"
            )
        output_pooling = "attention"
    block_arguments = {**block_arguments, "dropout": dropout}
    inputs = set_inputs(features, weighted)
    context = {"mask": inputs["mask"], "weights": inputs.get("weights")}
    x = inputs["entities"]
    if block_arguments.get("residual") != "projected":  # which projects the entities itself
        x = ZeroAbsent(name="present")(x, **context)
        x = keras.layers.Dense(hidden_units, name="embedding")(x)
    for depth in range(num_layers):
        if num_inducing_points is None:
            block = set_layers.SetAttentionBlock(
                hidden_units, num_heads, name=f"block_{depth}", **block_arguments
            )
        else:
            block = set_layers.InducedSetAttentionBlock(
                hidden_units,
                num_heads,
                num_inducing_points,
                name=f"block_{depth}",
                **block_arguments,
            )
        x = block(x, **context)
    if output_pooling == "attention":
        x = set_layers.PoolingByMultiheadAttention(
            hidden_units, num_heads, num_seeds or 1, name="pooling", **block_arguments
        )(x, **context)
        if num_seeds in (None, 1):
            x = keras.layers.Reshape((hidden_units,), name="one_output_a_set")(x)
        else:
            x = set_layers.SetAttentionBlock(
                hidden_units, num_heads, name="seeds", **block_arguments
            )(x)
    elif output_pooling is not None:
        x = pool_outputs(x, output_pooling, context)
    x = keras.layers.Dense(units, name="output")(x)
    if output_pooling is None:
        x = ZeroAbsent(name="present_output")(x, **context)
    return keras.Model(inputs, x, name=name)
