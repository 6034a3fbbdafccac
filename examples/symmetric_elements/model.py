"""The networks that are compared: three convolutions or dense layers, of equal size.

After every layer come batch normalisation and a ReLU. The networks differ in where the
elements of a set learn of each other: in every layer (DSS), after the last (Siamese), in two
layers after it (Siamese + deep sets), or in every layer but with dense layers instead of
convolutions (deep sets). The multi-layer perceptron knows of no symmetry. Signals are brought
to mean 0 and variance 1 first, a set as a whole.
"""

import keras
from keras import ops

from examples.symmetric_elements.data import TASKS
from keras_sets import layers as set_layers

# Widths that give all networks of a task about as many parameters as DSS.
WIDTHS = {
    "signals": {
        "dss-sum": 16,
        "dss-max": 16,
        "siamese": 23,
        "siamese-deep-sets": 23,
        "deep-sets": 80,
        "mlp": 14,
    },
    "odd-one-out": {
        "dss-sum": 32,
        "dss-max": 32,
        "siamese": 45,
        "siamese-deep-sets": 44,
        "deep-sets": 60,
        "mlp": 23,
    },
}


def build(name, task_name):
    """The network of that name, from `(batch, elements, *shape)` to logits."""
    task, width = TASKS[task_name], WIDTHS[task_name][name]
    widths = (width, width, width // 2)
    x = inputs = keras.Input((task.num_elements, *task.shape), name="elements")
    if task.standardized:
        axes = list(range(1, len(inputs.shape)))
        x = keras.layers.LayerNormalization(axes, center=False, scale=False, name="standardized")(x)
    if name == "mlp":
        x = keras.layers.Flatten()(x)
        for units in widths:
            x = _activate(keras.layers.Dense(units, use_bias=False)(x))
        x = keras.layers.Dense(task.num_classes or task.num_elements, name="output")(x)
        return keras.Model(inputs, x, name=name)
    if name == "deep-sets":
        x = keras.layers.Reshape((task.num_elements, -1))(x)
        x = _deep_sets(x, widths)
    elif name.startswith("dss"):
        x = _dss(x, task, widths, name.removeprefix("dss-"))
    else:
        x = _siamese(x, task, widths)
        if name == "siamese-deep-sets":
            x = _deep_sets(x, 2 * widths[-1:])
    if task.num_classes is not None:
        x = set_layers.MeanPooling(name="pooling")(x)
        x = keras.layers.Dense(task.num_classes, name="output")(x)
    else:
        x = keras.layers.Dense(1, name="output")(x)
        x = keras.layers.Flatten()(x)
    return keras.Model(inputs, x, name=name.replace("-", "_"))


def _activate(x):
    # Moving averages over ten steps: the runs are short.
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.Activation("relu")(x)


def _deep_sets(x, widths):
    for units in widths:
        x = _activate(
            set_layers.PermutationEquivariantDense(units, pooling="sum", use_bias=False)(x)
        )
    return x


def _dss(x, task, widths, pooling):
    """`(batch, elements, *shape)` to `(batch, elements, features)`."""
    layer = {2: set_layers.DSSConv1D, 3: set_layers.DSSConv2D}[len(task.shape)]
    for filters, kernel, strides in zip(widths, task.kernels, task.strides, strict=True):
        x = layer(
            filters,
            kernel,
            strides=strides,
            padding="circular",
            pooling=pooling,
            use_bias=False,
        )(x)
        x = _activate(x)
    return ops.mean(x, axis=tuple(range(2, 1 + len(task.shape))))


def _siamese(x, task, widths):
    """The same without a word between the elements, which become the batch."""
    layer = {2: set_layers.CircularConv1D, 3: set_layers.CircularConv2D}[len(task.shape)]
    x = ops.reshape(x, (-1, *task.shape))
    for filters, kernel, strides in zip(widths, task.kernels, task.strides, strict=True):
        x = _activate(layer(filters, kernel, strides=strides, use_bias=False)(x))
    x = ops.mean(x, axis=tuple(range(1, len(task.shape))))
    return ops.reshape(x, (-1, task.num_elements, widths[-1]))
