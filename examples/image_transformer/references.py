"""Networks of the same size to compare with: a causal convolution and linear attention."""

import bisect
import math

import keras
from keras import ops

from examples.image_transformer.linear_attention import LinearAttentionBlock
from keras_sets.layers.image_embedding import ImageEmbedding

# Whatever the image transformer needs: the references suffer from more.
MOST_DROPOUT = 0.1
BLOCKS = 4


def build(name, options, data, size):
    """The reference of a name in `names.REFERENCES` with at most `size` parameters."""
    make, step = _MAKERS[name]
    widths = range(step, max(step + 1, math.isqrt(size)), step)
    count = bisect.bisect(widths, size, key=lambda width: make(options, data, width).count_params())
    return make(options, data, widths[max(0, count - 1)])


def streams(network):
    """Whether `keras_sets.models.generate` can draw from a network."""
    return not any(layer.name.startswith("convolution_") for layer in network.layers)


def _convolution(options, data, width):
    """A stack of dilated causal convolutions.

    Every layer reads three places, twice as far apart as those of the layer before, until
    the last one sees the whole image.
    """
    inputs, x = _embedded(options, data, options.hidden)
    shape = x.shape
    x = keras.layers.Reshape((-1, options.hidden))(x)
    depth = max(1, math.ceil(math.log2((math.prod(data.shape) + 1) / 2)))
    for i in range(depth):
        # A product: dilated convolutions are slow in half precision.
        x = ops.concatenate([_delayed(x, 2 * 2**i), _delayed(x, 2**i), x], axis=-1)
        x = keras.layers.Dense(width, options.activation, name=f"convolution_{i}")(x)
        x = _dropped(options, x, keras.layers.SpatialDropout1D)
    x = keras.layers.Reshape((*shape[1:-1], width))(x)
    return _with_logits(inputs, x, data.levels, "convolution")


def _delayed(x, places):
    """What was so many places before, and zeros before that."""
    return ops.pad(x, [[0, 0], [places, 0], [0, 0]])[:, : x.shape[1]]


def _linear_attention(options, data, width):
    """Blocks of causal linear attention, four heads each."""
    inputs, x = _embedded(options, data, width)
    for i in range(BLOCKS):
        x = LinearAttentionBlock(name=f"block_{i}")(x)
        x = _dropped(options, x, keras.layers.SpatialDropout3D)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return _with_logits(inputs, x, data.levels, "linear_attention")


# With what their widths are multiples of: there are four heads.
_MAKERS = {"convolution": (_convolution, 1), "linear-attention": (_linear_attention, 4)}


def _embedded(options, data, units):
    """The inputs of the image transformer and their embeddings, without neighbors."""
    inputs = images = keras.Input(data.shape, dtype="int32", name="images")
    labels = ()
    if options.conditional:
        labels = (keras.Input((), dtype="int32", name="labels"),)
        inputs = {"images": images, "labels": labels[0]}
    embedding = ImageEmbedding(
        units,
        data.levels,
        data.classes if options.conditional else None,
        options.learned_locations,
        name="embedding",
    )
    return inputs, embedding(images, *labels)


def _dropped(options, x, layer):
    return layer(min(options.dropout, MOST_DROPOUT))(x) if options.dropout else x


def _with_logits(inputs, x, levels, name):
    x = keras.layers.Dense(levels, name="output")(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)
