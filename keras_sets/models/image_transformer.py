"""SWARM as a transformer on images: the probability of every value given those before it."""

import math
import weakref

import keras
import numpy as np
from keras import ops

from keras_sets import layers as set_layers
from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.models.neighborhood_pooling import CausalNeighborhoodPooling
from keras_sets.models.neighborhood_pooling import neighbor_places


@keras.saving.register_keras_serializable(package="keras_sets")
class ImageEmbedding(keras.layers.Layer):
    """Vectors for the places of an image, none of which knows the value at its own place.

    The vector of a place is the sum of embeddings of the value before it in row-major order
    over (height, width, channel), 0 at the first place, of its location, of its channel where
    there are several, and of the class where there are classes. With a neighborhood, also of
    the values of its earlier neighbors: the pixels up to that many rows above and columns to
    the left or right of it that come before it, in its own channel, and the channels of its own
    pixel that come before its own. Every neighbor has embeddings of its own; those outside of
    the image add nothing.

    Args:
        units: Width of the vectors, a multiple of 4 unless locations are learned.
        levels: Number of values; they are 0 to `levels - 1`.
        classes: Number of classes, or None.
        learned_locations: Whether every location has a vector of its own that is trained. If
            not, they are sines and cosines of the two coordinates.
        neighborhood: Radius of the neighborhood in pixels. 0 for none.

    Call arguments:
        images: Integers `(batch, height, width, channels)`.
        labels: Integers `(batch,)`, if there are classes.

    Output shape:
        `(batch, height, width, channels, units)`.
    """

    def __init__(
        self,
        units,
        levels=256,
        classes=None,
        learned_locations=False,
        neighborhood=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.levels = levels
        self.classes = classes
        self.learned_locations = learned_locations
        self.neighborhood = neighborhood

    def build(self, images_shape, labels_shape=None):
        self.image_shape = tuple(images_shape[1:])
        self.sources = places_read(self.image_shape, self.neighborhood)
        height, width, channels = self.image_shape

        def add(name, *shape, initializer=None):
            # Of the size of the sines and cosines.
            initializer = initializer or keras.initializers.RandomNormal(stddev=1.0)
            return self.add_weight(name=name, shape=(*shape, self.units), initializer=initializer)

        self.values = add("values", self.levels, initializer=random_waves)
        neighbors = self.sources.shape[1] - 1
        self.neighbors = None
        if neighbors:
            self.neighbors = add("neighbors", neighbors, self.levels, initializer=small_waves)
        self.locations = add("locations", height, width) if self.learned_locations else None
        self.channels = add("channels", channels) if channels > 1 else None
        self.labels = None if self.classes is None else add("classes", self.classes)
        self.built = True

    def __call__(self, images, labels=None, **kwargs):
        _check_range("images", images, self.levels)
        if labels is not None:
            _check_range("labels", labels, self.classes)
        return super().__call__(images, labels, **kwargs)

    def call(self, images, labels=None):
        x = self.of_earlier(self.flat(images), self.sources, self.tables()) + self.of_places()
        if labels is not None:
            x = x + ops.expand_dims(self.of_labels(labels), 1)
        return ops.reshape(x, (-1, *self.image_shape, self.units))

    def flat(self, images):
        """`(batch, places + 1)`: the values, then one that stands for what is outside."""
        values = ops.reshape(images, (-1, math.prod(self.image_shape)))
        values = ops.cast(values, "int32")  # TensorFlow takes by no uint8
        return ops.pad(values, [[0, 0], [0, 1]], constant_values=self.levels)

    def tables(self):
        """`(1 + neighbors, levels + 1, units)`: what every value adds, the last one nothing."""
        tables = ops.expand_dims(ops.cast(self.values, self.compute_dtype), 0)
        if self.neighbors is not None:
            neighbors = ops.cast(self.neighbors, self.compute_dtype)
            tables = ops.concatenate([tables, neighbors], axis=0)
        return ops.pad(tables, [[0, 0], [0, 1], [0, 0]])

    def of_earlier(self, values, sources, tables):
        """What the values at earlier places add.

        Args:
            values: Integers `(batch, places + 1)` as `flat` returns them. Only those that
                `sources` name matter.
            sources: Rows of `self.sources`, `(..., 1 + neighbors)`.
            tables: `self.tables()`, made once for all places.

        Returns:
            `(batch, ..., units)`.
        """
        # Along the first axis, and axes counted from it: torch exports nothing else to ONNX.
        values = ops.take(ops.transpose(values), sources, axis=0)
        values = ops.moveaxis(values, len(sources.shape), 0)
        return sum(ops.take(tables[i], values[..., i], axis=0) for i in range(sources.shape[-1]))

    def of_labels(self, labels):
        return ops.take(ops.cast(self.labels, self.compute_dtype), labels, axis=0)

    def of_places(self):
        """Location and channel of every place, `(height * width * channels, units)`."""
        height, width, channels = self.image_shape
        locations = self.locations
        if locations is None:
            locations = location_features(height, width, self.units)
        locations = ops.expand_dims(ops.cast(locations, self.compute_dtype), 2)
        if channels > 1:
            locations = locations + ops.cast(self.channels, self.compute_dtype)
        return ops.reshape(locations, (-1, self.units))

    def compute_output_shape(self, images_shape, labels_shape=None):
        return (*images_shape, self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "levels": self.levels,
            "classes": self.classes,
            "learned_locations": self.learned_locations,
            "neighborhood": self.neighborhood,
        }


def places_read(image_shape, neighborhood):
    """The places whose values every place knows directly, `(places, 1 + neighbors)`.

    First the place before it in row-major order, then its neighbors. Places are numbered in
    that order; the number of places stands for what is outside of the image.
    """
    places = np.arange(math.prod(image_shape))
    before = np.where(places > 0, places - 1, len(places)).astype("int32")
    return np.column_stack([before, neighbor_places(image_shape, neighborhood)])


def random_waves(shape, dtype=None):
    """First vectors of values: waves over the range, so that close values have close vectors.

    Up to two periods, of random phase. Independent vectors would hide that values have an order.
    """
    *tables, levels, units = shape
    values = np.arange(levels)[:, None] / max(1, levels - 1)
    # Periods and phases.
    drawn = keras.random.uniform((2, *tables, 1, units), maxval=2.0, dtype=dtype)
    return math.sqrt(2) * ops.cos(math.pi * (2 * drawn[0] * ops.cast(values, dtype) + drawn[1]))


def small_waves(shape, dtype=None):
    """First vectors of the values of neighbors: so small that few images fit no chance waves."""
    return 0.2 * random_waves(shape, dtype)


def _check_range(name, values, count):
    values = validation.visible_array(values)
    if values is not None and values.size and not (0 <= values.min() and values.max() < count):
        raise ValueError(
            f"Expected `{name}` to be integers from 0 to {count - 1}. Received: values from "
            f"{values.min()} to {values.max()}"
        )


def location_features(height, width, units):
    """Sines and cosines of the coordinates, `(height, width, units)`.

    `units / 4` frequencies, spaced evenly in the logarithm, from one period a width to one
    period every two pixels of the longer side. Every four features are the sines, then the
    cosines, of the column and of the row.
    """
    frequencies = np.geomspace(1, max(height, width) / 2, units // 4)
    row, column = np.mgrid[:height, :width]
    angles = 2 * np.pi / width * np.stack([column, row], axis=-1)[..., None, None, :]
    angles = angles * frequencies[:, None, None]
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-2)
    return waves.reshape(height, width, units)


def swarm_image_transformer(
    image_shape,
    classes=None,
    layers=1,
    hidden_units=256,
    iterations=10,
    learned_locations=False,
    neighborhood=0,
    activation="relu",
    levels=256,
    dropout=0.0,
    embedding_dropout=0.0,
    unroll=None,
    remat=False,
    name="swarm_image_transformer",
):
    """Causal `Swarm` layers that predict each value of an image from the values before it.

    Values are taken in row-major order over (height, width, channel). Trained with the cross
    entropy between its logits and the image itself, the model is a probability distribution
    over images; `keras_sets.models.generate` draws from it.

    Args:
        image_shape: `(height, width, channels)`.
        classes: None for images alone; the number of classes for images given their class.
        layers: Number of `Swarm` layers.
        hidden_units: Width of the embeddings, of the cells and of the layers before the last;
            a multiple of 4 unless locations are learned.
        iterations: How often each layer runs its cell.
        learned_locations: Whether the vectors of locations are trained. If not, they are
            sines and cosines.
        neighborhood: Non-negative integer. Every place is given the values and the states of
            its earlier neighbors up to so many pixels away, see Neighborhood. 0, as in the
            reference, for the value before it and the mean of all earlier states alone.
        activation: Between the layers.
        levels: Number of values; images hold the integers 0 to `levels - 1`.
        dropout: Fraction of the features of the hidden states to drop after every iteration, at
            training, as in `keras_sets.layers.Swarm`.
        embedding_dropout: Fraction of the features of the embeddings to drop, at training: the
            same ones at all places of an image, other ones in the next.
        unroll, remat: As in `keras_sets.layers.Swarm`.
        name: Name of the model.

    Returns:
        A functional `keras.Model` of images, integers `(batch, height, width, channels)`; with
        `classes` of a dict `{"images": images, "labels": labels}` with labels `(batch,)`. Its
        outputs are float32 logits `(batch, height, width, channels, levels)`.

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
        (Van den Oord et al.). It reads their values, each with embeddings of its own (`levels *
        hidden_units` more parameters for each), and in every iteration their hidden states,
        which the pooled input then holds beside the mean (`4 * hidden_units**2` more for each):
        so that what is near spreads further with every iteration.

    Example:

    >>> import keras, keras_sets
    >>> model = keras_sets.models.swarm_image_transformer((28, 28, 1), classes=10)
    >>> model.count_params()
    986880
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400). The neighborhood: [Van den Oord et al.,
        2016, Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759), figure 2.
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
    if classes is not None:
        classes = validation.positive_integer("classes", classes)
    layers = validation.positive_integer("layers", layers)
    hidden_units = validation.positive_integer("hidden_units", hidden_units)
    levels = validation.positive_integer("levels", levels)
    neighborhood = validation.non_negative_integer("neighborhood", neighborhood)
    embedding_dropout = validation.fraction("embedding_dropout", embedding_dropout)
    if hidden_units % 4 and not learned_locations:
        raise ValueError(
            "Received an invalid value for `hidden_units`, expected a multiple of 4, because "
            "locations are sines and cosines of two coordinates, or learned_locations=True. "
            f"Received: hidden_units={hidden_units}"
        )
    inputs = images = keras.Input(image_shape, dtype="int32", name="images")
    labels = None
    if classes is not None:
        labels = keras.Input((), dtype="int32", name="labels")
        inputs = {"images": images, "labels": labels}
    embedding = ImageEmbedding(
        hidden_units, levels, classes, learned_locations, neighborhood, name="embedding"
    )
    x = embedding(images) if labels is None else embedding(images, labels)
    if embedding_dropout:
        x = keras.layers.SpatialDropout3D(embedding_dropout, data_format="channels_last")(x)
    for depth in range(layers):
        last = depth == layers - 1
        x = set_layers.Swarm(
            levels if last else hidden_units,
            hidden_units=hidden_units,
            iterations=iterations,
            pooling=CausalNeighborhoodPooling(neighborhood, channels)
            if neighborhood
            else "causal_mean",
            dropout=dropout,
            unroll=unroll,
            remat=remat,
            name=f"swarm_{depth}",
        )(x)
        if not last:
            x = keras.layers.Activation(activation, name=f"activation_{depth}")(x)
    # The softmax needs float32 under every dtype policy.
    wide = "float64" if embedding.compute_dtype == "float64" else "float32"
    logits = keras.layers.Activation("linear", dtype=wide, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


class _Stream(keras.Model):
    """An image transformer value by value, and the loop that draws from it.

    A model, so that its `predict_on_batch` compiles the loop once on every backend and gives
    it the weights as they are at each call.
    """

    def __init__(self, model, top_k=None):
        super().__init__(name="stream")
        self.embedding, *rest = _layers_of(model)
        self.top_k = top_k
        self.steps = [
            layer.streaming_cell() if isinstance(layer, set_layers.Swarm) else layer
            for layer in rest
        ]
        self.cells = [s for s in self.steps if isinstance(s, set_layers.SwarmStreamingCell)]
        # All weights are there already.
        for layer in (*self.cells, self):
            layer.built = True

    def start(self, batch):
        """The states of the cells before the first place."""
        return [state for cell in self.cells for state in cell.get_initial_state(batch)]

    def logits(self, x, states):
        """`(batch, levels)` of one place, and the states after it."""
        states, after = list(states), []
        for step in self.steps:
            # Not `step(...)`: what Keras does around a call takes longer than one place on torch.
            if step in self.cells:
                count = len(step.state_size)
                x, new = step.call(x, states[:count])
                states, after = states[count:], after + new
            else:
                x = step.call(x)
        return ops.cast(x, self.steps[-1].compute_dtype), after

    def call(self, inputs):
        """Values `(batch, places)` for `given` of that shape, negative where to draw."""
        labels = inputs.get("labels")
        same = 0.0 if labels is None else self.embedding.of_labels(labels)
        places, uniforms = self.embedding.of_places(), inputs["uniforms"]
        sources, tables = ops.convert_to_tensor(self.embedding.sources), self.embedding.tables()

        def step(index, values, *states):
            earlier = self.embedding.of_earlier(values, sources[index], tables)
            logits, states = self.logits(earlier + places[index] + same, states)
            drawn = self.draw(logits / inputs["temperature"], uniforms[:, index])
            given = values[:, index]
            new = ops.where(given < 0, drawn, given)
            values = ops.slice_update(values, (0, index), ops.expand_dims(new, 1))
            return values, *states

        values = self.embedding.flat(inputs["given"])
        states = self.start(ops.shape(values)[0])
        return set_ops.static_loop(len(self.embedding.sources), step, (values, *states))[0][:, :-1]

    def draw(self, logits, uniforms):
        """The first value up to which the probabilities sum to more than a uniform number."""
        if self.top_k is not None:
            least = ops.top_k(logits, self.top_k)[0][..., -1:]
            logits = ops.where(logits < least, -float("inf"), logits)
        below = ops.cumsum(ops.softmax(logits, axis=-1), axis=-1)
        threshold = ops.expand_dims(uniforms, -1) * below[..., -1:]
        return ops.sum(ops.cast(below <= threshold, "int32"), axis=-1)


def _layers_of(model):
    """The embedding and what follows it, in order."""
    parts = [p for p in getattr(model, "layers", []) if not isinstance(p, keras.layers.InputLayer)]
    if not parts or not isinstance(parts[0], ImageEmbedding):
        raise ValueError(
            "Received an invalid value for `model`, expected one that "
            f"`keras_sets.models.swarm_image_transformer` has made. Received: model={model!r}"
        )
    return parts


# Compiled loops of the models that are still in use.
_STREAMS = weakref.WeakKeyDictionary()


def _stream_of(model, top_k):
    streams = _STREAMS.setdefault(model, {})
    if top_k not in streams:
        streams[top_k] = _Stream(model, top_k)
    return streams[top_k]


def generate(model, batch, labels=None, temperature=1.0, top_k=None, seed=None, prefix=None):
    """Draws images from an image transformer, one cell step for every value.

    The mean over the values so far is a running sum, so the cost of a value and the memory of
    the cells do not grow with the values before it.

    Args:
        model: A model that `keras_sets.models.swarm_image_transformer` has made, or that was
            loaded from a file of one.
        batch: Positive integer, the number of images.
        labels: The class of every image, integers `(batch,)`, or one for all. Needed by models
            with classes.
        temperature: Positive number that divides the logits: below 1 for likelier images.
        top_k: Positive integer, to draw every value from the likeliest `top_k` only. None
            for all of them; 1 for the likeliest value every time.
        seed: Non-negative integer. One seed gives the same images, on all backends up to
            rounding. None for other images every time.
        prefix: The first values of every image, which the others complete: the first rows,
            `(batch, rows, width, channels)`, or the first n values in row-major order over
            (height, width, channel), `(batch, n)`.

    Returns:
        Integers `(batch, height, width, channels)`, uint8 for up to 256 levels.

    Raises:
        ValueError: If an argument is not as described.

    Example:

    >>> import keras_sets
    >>> model = keras_sets.models.swarm_image_transformer(
    ...     (4, 4, 1), classes=3, hidden_units=8, iterations=2, levels=16
    ... )
    >>> images = keras_sets.models.generate(model, 2, labels=[0, 2], seed=0)
    >>> images.shape, images.dtype
    ((2, 4, 4, 1), dtype('uint8'))
    >>> halves = images[:, :2]
    >>> completed = keras_sets.models.generate(model, 2, labels=[0, 2], prefix=halves)
    >>> bool((completed[:, :2] == halves).all())
    True
    """
    embedding = _layers_of(model)[0]
    batch = validation.positive_integer("batch", batch)
    temperature = validation.positive_number("temperature", temperature)
    if top_k is not None:
        top_k = min(validation.positive_integer("top_k", top_k), embedding.levels)
    places = math.prod(embedding.image_shape)
    inputs = {
        "given": _checked_prefix(prefix, batch, embedding),
        # Below 1 by more than the sum of probabilities is off.
        "uniforms": 0.999999 * np.random.default_rng(seed).random((batch, places), "float32"),
        "temperature": np.full((batch, 1), temperature, "float32"),
    }
    labels = _checked_labels(labels, batch, embedding.classes)
    if labels is not None:
        inputs["labels"] = labels
    values = _stream_of(model, top_k).predict_on_batch(inputs)
    dtype = "uint8" if embedding.levels <= 256 else "int32"
    return values.reshape(batch, *embedding.image_shape).astype(dtype)


def _checked_labels(labels, batch, classes):
    if (labels is None) != (classes is None):
        expected = "no `labels`, the model has no classes" if classes is None else "`labels`"
        raise ValueError(f"Expected {expected}. Received: labels={labels!r}")
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape not in ((), (batch,)):
        raise ValueError(
            f"Expected `labels` to be one integer or as many as images, {batch}. Received: "
            f"shape {labels.shape}, dtype {labels.dtype}"
        )
    _check_range("labels", labels, classes)
    return np.broadcast_to(labels, (batch,)).astype("int32")


def _checked_prefix(prefix, batch, embedding):
    """The prefix, then -1, as `(batch, places)`."""
    places = math.prod(embedding.image_shape)
    given = np.full((batch, places), -1, "int32")
    if prefix is None:
        return given
    prefix = np.asarray(prefix)
    rows = prefix.ndim == 4 and prefix.shape[2:] == embedding.image_shape[1:]
    count = math.prod(prefix.shape[1:])
    if not (rows or prefix.ndim == 2) or len(prefix) != batch or count > places:
        height, width, channels = embedding.image_shape
        raise ValueError(
            f"Expected `prefix` of shape (batch, rows, width, channels), here ({batch}, up to "
            f"{height}, {width}, {channels}), or (batch, n), here ({batch}, up to {places}). "
            f"Received: prefix.shape={prefix.shape}"
        )
    if prefix.dtype.kind not in "iu":
        raise ValueError(f"Expected `prefix` to hold integers. Received: dtype {prefix.dtype}")
    _check_range("prefix", prefix, embedding.levels)
    given[:, :count] = prefix.reshape(batch, count)
    return given
