"""The networks of the example, and what they are trained for."""

import bisect
import math

import keras
from keras import ops

from examples.common import optimizers
from examples.image_transformer.data import data_of
from keras_sets import models
from keras_sets.layers.image_embedding import ImageEmbedding

# Whatever the image transformer needs: the convolution suffers from more.
CONVOLUTION_DROPOUT = 0.1


def build(options, data):
    """The image transformer of the options for a data set."""
    return models.swarm_image_transformer(
        data.shape,
        num_classes=data.classes if options.conditional else None,
        num_layers=options.layers,
        hidden_units=options.hidden,
        iterations=options.iterations,
        learned_locations=options.learned_locations,
        neighborhood=options.neighborhood,
        activation=options.activation,
        num_levels=data.levels,
        dropout=options.dropout,
        embedding_dropout=options.embedding_dropout,
        remat=options.remat,
    )


def build_convolution(options, data, size):
    """A stack of causal convolutions with the same inputs and at most `size` parameters.

    Every layer reads three places, twice as far apart as those of the layer before, until
    the last one sees the whole image.
    """
    places = math.prod(data.shape)
    depth = max(1, math.ceil(math.log2((places + 1) / 2)))
    widths = range(1, math.isqrt(size))
    width = bisect.bisect(
        widths, size, key=lambda width: _convolution(options, data, width, depth).count_params()
    )
    return _convolution(options, data, max(1, width), depth)


def _convolution(options, data, width, depth):
    inputs = images = keras.Input(data.shape, dtype="int32", name="images")
    labels = ()
    if options.conditional:
        labels = (keras.Input((), dtype="int32", name="labels"),)
        inputs = {"images": images, "labels": labels[0]}
    embedding = ImageEmbedding(
        options.hidden,
        data.levels,
        data.classes if options.conditional else None,
        options.learned_locations,
        name="embedding",
    )
    x = keras.layers.Reshape((-1, options.hidden))(embedding(images, *labels))
    for i in range(depth):
        x = keras.layers.Conv1D(
            width,
            3,
            padding="causal",
            dilation_rate=2**i,
            activation=options.activation,
            name=f"convolution_{i}",
        )(x)
        if options.dropout:
            x = keras.layers.SpatialDropout1D(min(options.dropout, CONVOLUTION_DROPOUT))(x)
    x = keras.layers.Dense(data.levels, name="output")(x)
    x = keras.layers.Reshape((*data.shape, data.levels))(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="convolution")


def bits_per_dimension(y_true, y_pred):
    """The loss in bits instead of nats."""
    nats = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
    return ops.mean(nats) / math.log(2)


def compiled(options):
    """The network of the options, ready to train."""
    return compile_for_images(build(options, data_of(options)), options)


def compile_for_images(model, options):
    """Cross entropy in nats a value, and its measure in bits."""
    model.compile(
        optimizer=optimizers.make_optimizer(options, options.accumulate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[bits_per_dimension],
    )
    return model
