"""What models on sets have in common: their inputs, and stacks of layers."""

import keras

from keras_sets import layers as set_layers
from keras_sets import validation
from keras_sets.layers.pooling.names import POOLINGS
from keras_sets.layers.weight_options import reseeded_config

# One in so many iterations is scored in training, where a model returns several.
STRIDE = 4


def set_inputs(features, weighted=False):
    """The inputs of a model on sets, as a dict of symbolic tensors."""
    features = validation.positive_integer("features", features)
    inputs = {
        "entities": keras.Input((None, features), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    if validation.boolean("weighted", weighted):
        inputs["weights"] = keras.Input((None,), name="weights")
    return inputs


def pool_outputs(x, output_pooling, context):
    """One vector a set, by the pooling that the argument `output_pooling` names."""
    if isinstance(output_pooling, str):
        validation.one_of("output_pooling", output_pooling, POOLINGS)
    pooled = set_layers.get_pooling(output_pooling, name="output_pooling")(x, **context)
    if len(pooled.shape) != 2:
        raise ValueError(
            "Received an invalid value for `output_pooling`, expected a pooling with one vector a "
            "set, `(batch, features)`: no causal one, none that gives entities vectors of their "
            f"own, no `keepdims=True`. Received: output_pooling={output_pooling!r}, which gives "
            f"shape {tuple(pooled.shape)}"
        )
    return pooled


def pooling_of_layer(pooling, depth):
    """The pooling for the layer of this depth, the layers before it being built.

    A pooling with weights, or for one width, cannot be in several layers: they have several
    widths, and a file would hold its weights once.
    """
    kept = getattr(pooling, "weights", None) or getattr(pooling, "input_spec", None)
    if depth == 0 or not isinstance(pooling, keras.layers.Layer) or not kept:
        return pooling
    return type(pooling).from_config(reseeded_config(pooling.get_config(), depth))


def stack(
    name,
    inputs,
    make_layer,
    units,
    hidden_units,
    num_layers,
    activation,
    output_pooling,
    first=None,
):
    """Set layers with activations between them, and what comes `first` and after them."""
    units = validation.positive_integer("units", units)
    num_layers = validation.positive_integer("num_layers", num_layers)
    context = {"mask": inputs["mask"], "weights": inputs.get("weights")}
    x = inputs["entities"]
    if first is not None:
        x = first(x, **context)
    for depth in range(num_layers):
        last = depth == num_layers - 1 and output_pooling is None
        x = make_layer(units if last else hidden_units, depth)(x, **context)
        if not last:
            x = keras.layers.Activation(activation)(x)
    if output_pooling is not None:
        x = pool_outputs(x, output_pooling, context)
        x = keras.layers.Dense(units, name="output")(x)
    return keras.Model(inputs, x, name=name)
