"""The networks of the example, and what they are trained for."""

import keras

from examples.common import optimizers
from examples.image_transformer.data import data_of
from keras_sets import metrics
from keras_sets import models


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
        feed_forward_units=options.feed_forward,
        num_heads=options.heads,
        activation=options.activation,
        num_levels=data.levels,
        dropout=options.dropout,
        embedding_dropout=options.embedding_dropout,
        remat=options.remat,
    )


def compiled(options):
    """The network of the options, ready to train."""
    return compile_for_images(build(options, data_of(options)), options)


def compile_for_images(model, options):
    """Cross entropy in nats a value, and its measure in bits."""
    model.compile(
        optimizer=optimizers.make_optimizer(options, options.accumulate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[metrics.BitsPerDimension()],
    )
    return model
