"""Stacks of permutation-equivariant dense layers."""

import keras

from keras_sets import layers as set_layers
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import PoolingLike
from keras_sets.models.inputs import pooling_of_layer
from keras_sets.models.inputs import set_inputs
from keras_sets.models.inputs import stack


def deep_sets(
    features: int,
    units: int,
    hidden_units: int = 128,
    num_layers: int = 3,
    pooling: PoolingLike = "mean",
    activation: Activation = "relu",
    dropout: float = 0.0,
    output_pooling: PoolingLike | None = None,
    weighted: bool = False,
    name: str = "deep_sets",
) -> keras.Model:
    """Stack of `PermutationEquivariantDense` layers.

    Args:
        features: Width of the entities.
        units: Width of the output.
        hidden_units: Width of the layers before it.
        num_layers: Number of equivariant layers.
        pooling: Pooling inside the layers: a name, or a pooling layer or callable. Of a layer with
            weights every further layer has a copy, with weights of its own.
        activation: Between the layers.
        dropout: Fraction of the hidden features to drop; entities share the mask.
        output_pooling: None for one output an entity, `(batch, n, units)`. The name of a
            pooling for one output a set, `(batch, units)`: pooled, then a dense layer.
        weighted: Whether the model takes weights as a third input.
        name: Name of the model.

    Returns:
        A functional `keras.Model`.

    Symmetry:
        Equivariant to the order of the entities; invariant with `output_pooling`.

    Example:

    >>> import keras_sets
    >>> model = keras_sets.models.deep_sets(2, 10, hidden_units=128, num_layers=3)
    >>> model.count_params()
    36106

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114).
    """
    hidden_units = validation.positive_integer("hidden_units", hidden_units)
    dropout = validation.fraction("dropout", dropout)
    inputs = set_inputs(features, weighted)

    def make_layer(width, depth):
        layer = set_layers.PermutationEquivariantDense(
            width, pooling=pooling_of_layer(pooling, depth), name=f"equivariant_{depth}"
        )
        if not dropout or depth == 0:
            return layer
        drop = keras.layers.SpatialDropout1D(dropout, name=f"dropout_{depth}")
        return lambda x, **context: layer(drop(x), **context)

    return stack(
        name, inputs, make_layer, units, hidden_units, num_layers, activation, output_pooling
    )
