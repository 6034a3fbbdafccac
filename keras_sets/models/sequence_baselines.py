"""Recurrent networks that read a set as a sequence: what set layers are compared with."""

import keras

from keras_sets import validation
from keras_sets.layers.sort_entities import SortEntities
from keras_sets.layers.sort_entities import TakeEntities
from keras_sets.layers.zero_absent import ZeroAbsent
from keras_sets.models.inputs import set_inputs


def bidirectional_lstm(
    features: int,
    units: int,
    hidden_units: int = 128,
    num_layers: int = 1,
    dropout: float = 0.0,
    sort: bool = False,
    name: str = "bidirectional_lstm",
) -> keras.Model:
    """Stack of bidirectional LSTMs with a dense layer for every entity.

    It depends on the order in which the entities arrive: a baseline, no set network.

    Args:
        features: Width of the entities.
        units: Width of the output.
        hidden_units: Width of each direction.
        num_layers: Number of bidirectional layers.
        dropout: Fraction of the features to drop between the layers.
        sort: Whether to read the entities in the order of their first feature.
        name: Name of the model.

    Returns:
        A functional `keras.Model` with outputs `(batch, n, units)`.
    """
    units = validation.positive_integer("units", units)
    hidden_units = validation.positive_integer("hidden_units", hidden_units)
    num_layers = validation.positive_integer("num_layers", num_layers)
    dropout = validation.fraction("dropout", dropout)
    sort = validation.boolean("sort", sort)
    inputs = set_inputs(features)
    mask = inputs["mask"]
    x = ZeroAbsent(name="present")(inputs["entities"], mask=mask)
    ranks = None
    if sort:
        x, mask, ranks = SortEntities(name="sort")(x, mask)
    for depth in range(num_layers):
        lstm = keras.layers.LSTM(hidden_units, return_sequences=True)
        x = keras.layers.Bidirectional(lstm, name=f"lstm_{depth}")(x, mask=mask)
        if dropout and depth < num_layers - 1:
            x = keras.layers.SpatialDropout1D(dropout)(x)
    x = keras.layers.Dense(units, name="output")(x)
    if sort:
        x = TakeEntities(name="restore")(x, ranks)
    x = ZeroAbsent(name="present_output")(x, mask=inputs["mask"])
    return keras.Model(inputs, x, name=name)


def sorted_lstm(
    features: int,
    units: int,
    hidden_units: int = 128,
    num_layers: int = 1,
    dropout: float = 0.0,
    name: str = "sorted_lstm",
) -> keras.Model:
    """`bidirectional_lstm` on entities sorted by their first feature, un-sorted after.

    Up to ties it does not depend on the order, but a small change of the points can change
    the sequence. Arguments and output are those of `bidirectional_lstm`.

    Example:

    >>> import keras_sets
    >>> keras_sets.models.sorted_lstm(2, 10, hidden_units=8).output_shape
    (None, None, 10)
    """
    return bidirectional_lstm(
        features, units, hidden_units, num_layers, dropout, sort=True, name=name
    )
