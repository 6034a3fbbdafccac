"""SWARM as a transformer on images: the probability of every value given those before it."""

from collections.abc import Sequence

import keras

from keras_sets import layers as set_layers
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets.layers.causal_neighborhood_pooling import CausalNeighborhoodPooling
from keras_sets.layers.image_embedding import ImageEmbedding
from keras_sets.layers.swarm_block import SwarmBlock


def swarm_image_transformer(
    image_shape: Sequence[int],
    num_classes: int | None = None,
    num_layers: int = 1,
    hidden_units: int = 256,
    iterations: int = 10,
    learned_locations: bool = False,
    neighborhood: int = 0,
    activation: Activation = "relu",
    num_levels: int = 256,
    dropout: float = 0.0,
    embedding_dropout: float = 0.0,
    feed_forward_units: int | None = None,
    num_heads: int | None = None,
    unroll: bool | None = None,
    remat: bool | None = None,
    name: str = "swarm_image_transformer",
) -> keras.Model:
    """Causal `Swarm` layers that predict each value of an image from the values before it.

    Values are taken in row-major order over (height, width, channel). Trained with the cross
    entropy between its logits and the image itself, the model is a probability distribution
    over images; `keras_sets.models.generate` draws from it.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: None for images alone; the number of classes for images given their class.
        num_layers: Number of `Swarm` layers.
        hidden_units: Width of the embeddings, of the cells and of the layers before the last;
            a multiple of 4 unless locations are learned.
        iterations: How often each layer runs its cell.
        learned_locations: Whether the vectors of locations are trained. If not, they are
            sines and cosines.
        neighborhood: Non-negative integer. Every place is given the values and the states of
            its earlier neighbors up to so many pixels away, see Neighborhood. 0, as in the
            reference, for the value before it and the mean of all earlier states alone.
        activation: Between the layers; with blocks, in their feed-forward networks.
        num_levels: Number of values; images hold the integers 0 to `num_levels - 1`.
        dropout: Fraction of the features of the hidden states to drop after every iteration, at
            training, as in `keras_sets.layers.Swarm`.
        embedding_dropout: Fraction of the features of the embeddings to drop, at training: the
            same ones at all places of an image, other ones in the next.
        feed_forward_units: None, as in the reference, for `Swarm` layers with an activation
            between them. A positive integer for blocks of a transformer, see Blocks.
        num_heads: None, as in the reference, for the mean of all earlier states as the pooled
            input. A positive integer that divides `hidden_units`: linear attention to them with
            so many heads in its place.
        unroll, remat: As in `keras_sets.layers.Swarm`.
        name: Name of the model.

    Returns:
        A functional `keras.Model` of images, integers `(batch, height, width, channels)`; with
        `num_classes` of a dict `{"images": images, "labels": labels}` with labels `(batch,)`. Its
        outputs are float32 logits `(batch, height, width, channels, num_levels)`.

    Raises:
        ValueError: For an invalid argument. The model raises one for images of another shape,
            and for values and labels out of range where it is called outside of a compiled
            function.

    Symmetry:
        Causal: no logits depend on the value at their own place or on later ones, with a
        neighborhood or without.

    Neighborhood:
        The mean over everything earlier does not know which places are close. With
        `neighborhood=1` a place also reads the pixels to the left, above on the left, above and
        above on the right of it, in its own channel, and the earlier channels of its own pixel;
        with radius r, 2 r (r + 1) pixels: the reach of a masked convolution of size 2 r + 1
        (Van den Oord et al.). It reads their values, each with embeddings of its own (`num_levels *
        hidden_units` more parameters for each), and in every iteration their hidden states,
        which the pooled input then holds beside the mean (`4 * hidden_units**2` more for each):
        so that what is near spreads further with every iteration.

    Blocks:
        With `feed_forward_units` the model is a transformer with a `Swarm` in the place of
        attention: `h = x + swarm(norm(x))`, then `h + dense(activation(dense(norm(h))))`, so
        many times as there are layers, and a normalization and a `Dense` layer at the end. At
        equal numbers of weights a few layers of few iterations learn more than one of many.

    Attention:
        All places read the same mean but for what is later. With `num_heads` every place asks
        for what it needs: in every iteration the states make queries, keys and values, and the
        pooled input is `phi(q) sum(phi(k) v^T) / (phi(q) sum(phi(k)))` with `phi(x) = elu(x) +
        1`, the sums over the places up to its own. Cost and memory are linear in the places.

    Example:

    >>> import keras, keras_sets
    >>> model = keras_sets.models.swarm_image_transformer((28, 28, 1), num_classes=10)
    >>> model.count_params()
    986880
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400). The neighborhood: [Van den Oord et al.,
        2016, Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759), figure 2. The
        blocks: [Xiong et al., 2020, On Layer Normalization in the Transformer
        Architecture](https://arxiv.org/abs/2002.04745), figure 1 (b). The attention:
        [Katharopoulos et al., 2020, Transformers are RNNs](https://arxiv.org/abs/2006.16236).
    """
    try:
        height, width, channels = image_shape
    except (TypeError, ValueError):
        raise ValueError(
            "Received an invalid value for `image_shape`, expected (height, width, channels). "
            f"Received: image_shape={image_shape!r}"
        ) from None
    image_shape = tuple(
        validation.positive_integer("image_shape", size) for size in (height, width, channels)
    )
    if num_classes is not None:
        num_classes = validation.positive_integer("num_classes", num_classes)
    num_layers = validation.positive_integer("num_layers", num_layers)
    hidden_units = validation.positive_integer("hidden_units", hidden_units)
    num_levels = validation.positive_integer("num_levels", num_levels)
    neighborhood = validation.non_negative_integer("neighborhood", neighborhood)
    if feed_forward_units is not None:
        feed_forward_units = validation.positive_integer("feed_forward_units", feed_forward_units)
    if num_heads is not None:
        num_heads = validation.positive_integer("num_heads", num_heads)
        validation.check_heads("hidden_units", hidden_units, num_heads)
    embedding_dropout = validation.fraction("embedding_dropout", embedding_dropout)
    if hidden_units % 4 and not learned_locations:
        raise ValueError(
            "Received an invalid value for `hidden_units`, expected a multiple of 4, because "
            "locations are sines and cosines of two coordinates, or learned_locations=True. "
            f"Received: hidden_units={hidden_units}"
        )
    inputs = images = keras.Input(image_shape, dtype="int32", name="images")
    labels = None
    if num_classes is not None:
        labels = keras.Input((), dtype="int32", name="labels")
        inputs = {"images": images, "labels": labels}
    embedding = ImageEmbedding(
        hidden_units, num_levels, num_classes, learned_locations, neighborhood, name="embedding"
    )
    x = embedding(images) if labels is None else embedding(images, labels)
    if embedding_dropout:
        x = keras.layers.SpatialDropout3D(embedding_dropout, data_format="channels_last")(x)
    for depth in range(num_layers):
        ends = feed_forward_units is None and depth == num_layers - 1
        swarm = set_layers.Swarm(
            num_levels if ends else hidden_units,
            hidden_units=hidden_units,
            iterations=iterations,
            pooling=CausalNeighborhoodPooling(neighborhood, channels, num_heads)
            if neighborhood or num_heads
            else "causal_mean",
            dropout=dropout,
            unroll=unroll,
            remat=remat,
            name=f"swarm_{depth}",
        )
        if feed_forward_units is None:
            x = swarm(x)
            if not ends:
                x = keras.layers.Activation(activation, name=f"activation_{depth}")(x)
        else:
            x = SwarmBlock(swarm, feed_forward_units, activation, name=f"block_{depth}")(x)
    if feed_forward_units is not None:
        x = keras.layers.LayerNormalization(name="normalization")(x)
        x = keras.layers.Dense(num_levels, name="output")(x)
    # The softmax needs float32 under every dtype policy.
    wide = "float64" if embedding.compute_dtype == "float64" else "float32"
    logits = keras.layers.Activation("linear", dtype=wide, name="logits")(x)
    return keras.Model(inputs, logits, name=name)
