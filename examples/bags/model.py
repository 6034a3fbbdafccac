"""The networks of Ilse et al. 2018: LeNet5 on every image, then one answer for the bag."""

import keras
from keras import ops

from keras_sets import layers as set_layers

EMBEDDING = 500
ATTENTION_UNITS = 128
# Of MNIST's pixels between 0 and 1, as in the published code.
MEAN, DEVIATION = 0.1307, 0.3081


@keras.saving.register_keras_serializable(package="examples")
class OfEveryImage(keras.layers.Wrapper):
    """A network for one image, on every image of a set: the images become the batch.

    Input shape:
        `(batch, n, height, width, channels)`.

    Output shape:
        `(batch, n, features)`.
    """

    def build(self, input_shape):
        self.layer.build((None, *input_shape[2:]))
        self.built = True

    def call(self, x, training=None):
        batch, n = ops.shape(x)[:2]
        features = self.layer(ops.reshape(x, (-1, *x.shape[2:])), training=training)
        return ops.reshape(features, (batch, n, features.shape[-1]))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], self.layer.compute_output_shape((None, *input_shape[2:]))[-1])


def lenet(shape, levels):
    """LeNet5 up to its embedding of an image, `(batch, 500)`."""
    # Images of 8 x 8 pixels are too small for two convolutions without padding.
    padding = "valid" if min(shape[:2]) >= 16 else "same"
    scale = keras.layers.Rescaling(1 / (DEVIATION * (levels - 1)), -MEAN / DEVIATION)
    layers = [keras.Input(shape, name="image"), scale]
    for filters in (20, 50):
        layers.append(keras.layers.Conv2D(filters, 5, padding=padding, activation="relu"))
        layers.append(keras.layers.MaxPooling2D(2))
    layers += [keras.layers.Flatten(), keras.layers.Dense(EMBEDDING, activation="relu")]
    return keras.Sequential(layers, name="lenet")


def build(name, shape, levels, dropout=0.0):
    """The network of that name, from bags to the probability of being positive, `(batch, 1)`.

    Args:
        name: One of `names.MODELS`.
        shape: `(height, width, channels)` of an image.
        levels: Pixels are 0 to `levels - 1`.
        dropout: Rate, of the embeddings.
    """
    inputs = {
        "entities": keras.Input((None, *shape), dtype="uint8", name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    x = OfEveryImage(lenet(shape, levels), name="images")(inputs["entities"])
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    kind, _, pooling = name.partition("-")
    # Under every policy: in half precision many probabilities would be equal, and have no order.
    answer = {"dtype": "float32"}
    if kind == "instance":
        # What is pooled is the probability of a 9, or its logit.
        activation = None if pooling == "logsumexp" else "sigmoid"
        x = keras.layers.Dense(1, activation=activation, name="answers", **answer)(x)
        x = set_layers.get_pooling(pooling, name="pooling", **answer)(x, mask=inputs["mask"])
        if pooling == "logsumexp":
            x = keras.layers.Activation("sigmoid", name="output", **answer)(x)
    else:
        if kind == "embedding":
            x = set_layers.get_pooling(pooling, name="pooling")(x, mask=inputs["mask"])
        else:
            layer = set_layers.GatedAttentionPooling(
                ATTENTION_UNITS, gated=kind == "gated", name="pooling"
            )
            x, _ = layer(x, mask=inputs["mask"], return_attention_scores=True)
        x = keras.layers.Dense(1, activation="sigmoid", name="output", **answer)(x)
    return keras.Model(inputs, x, name=name.replace("-", "_"))


def attention_of(model):
    """The network that gives the attention of every image, `(batch, n)`."""
    return keras.Model(model.input, model.get_layer("pooling").output[1])
