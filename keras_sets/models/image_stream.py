"""Image transformers value by value, and images drawn from them."""

import functools
import math
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_sets import validation
from keras_sets.layers.image_embedding import ImageEmbedding
from keras_sets.layers.image_embedding import check_range
from keras_sets.models.image_rows import at_a_place
from keras_sets.models.image_rows import cell_of
from keras_sets.ops import loops as loop_ops


class _Stream(keras.Model):
    """An image transformer value by value, and the loop that draws from it.

    A model, so that its `predict_on_batch` compiles the loop once on every backend and gives
    it the weights as they are at each call.
    """

    def __init__(self, model, top_k=None):
        embedding, *rest = _layers_of(model)
        # Dropout is for training, and for the axes of whole images.
        rest = [layer for layer in rest if not isinstance(layer, keras.layers.Dropout)]
        # Not the global policy, half precision of which would round the uniform numbers.
        super().__init__(name="stream", dtype=rest[-1].compute_dtype)
        self.embedding = embedding
        self.top_k = top_k
        # Keras finds their weights here, and hands them to what it has compiled.
        self.tracked = rest
        # Layers that mix places have a form that goes from place to place; the others have none.
        self.steps, self.cells = [], []
        for layer in rest:
            cell = cell_of(layer, self.embedding.image_shape)
            if cell is not None:
                self.cells.append(cell)
            self.steps.append(cell or layer)
        self.built = True

    def start(self, batch):
        """The states of the cells before the first place."""
        return [cell.get_initial_state(batch) for cell in self.cells]

    def constants(self):
        """What all places share."""
        return [cell.kernels() for cell in self.cells]

    def start_row(self, states):
        return [cell.start_row(given) for cell, given in zip(self.cells, states, strict=True)]

    def logits(self, x, column, states, constants):
        """`(batch, levels)` of one place, and the states after it."""
        given, after = zip(states, constants, strict=True), []
        for step in self.steps:
            if step in self.cells:
                x, new = step.call(x, column, *next(given))
                after.append(new)
            else:
                x = at_a_place(step, x)
        return ops.cast(x, self.steps[-1].compute_dtype), after

    def call(self, inputs):
        """Values `(batch, places)` for `given` of that shape, negative where to draw."""
        labels = inputs.get("labels")
        same = 0.0 if labels is None else self.embedding.of_labels(labels)
        places, uniforms = self.embedding.of_places(), inputs["uniforms"]
        sources, tables = ops.convert_to_tensor(self.embedding.sources), self.embedding.tables()
        constants = self.constants()
        values = self.embedding.flat(inputs["given"])
        start = self.start(ops.shape(values)[0])
        height, width, channels = self.embedding.image_shape

        def place(row, column, values, *states):
            index = row * (width * channels) + column
            earlier = self.embedding.of_earlier(values, sources[index], tables)
            states = keras.tree.pack_sequence_as(start, states)
            x = earlier + places[index] + same
            logits, states = self.logits(x, column, states, constants)
            drawn = self.draw(logits / inputs["temperature"], uniforms[:, index])
            given = values[:, index]
            new = ops.where(given < 0, ops.cast(drawn, given.dtype), given)
            values = ops.slice_update(values, (0, index), ops.expand_dims(new, 1))
            return values, *keras.tree.flatten(states)

        def one_row(row, values, *states):
            states = keras.tree.pack_sequence_as(start, states)
            states = keras.tree.flatten(self.start_row(states))
            return loop_ops.static_loop(
                width * channels, functools.partial(place, row), (values, *states)
            )

        state = (values, *keras.tree.flatten(start))
        return loop_ops.static_loop(height, one_row, state)[0][:, :-1]

    def draw(self, logits, uniforms):
        """The first value up to which the probabilities sum to more than a uniform number."""
        if self.top_k is not None:
            least = ops.top_k(logits, self.top_k)[0][..., -1:]
            logits = ops.where(logits < least, -float("inf"), logits)
        parts, uniforms = ops.softmax(logits, axis=-1), ops.expand_dims(uniforms, -1)
        if keras.config.backend() == "jax" and not loop_ops.jax_on_accelerator():
            return _first_beyond(parts, uniforms)
        below = ops.cumsum(parts, axis=-1)
        return ops.sum(ops.cast(below <= uniforms * below[..., -1:], "int32"), axis=-1)


def _first_beyond(parts, shares):
    """The first index up to which parts `(batch, n)` sum to more than a share of their total.

    First the block, then the index: on a processor XLA sums anew for every index. Shares are
    `(batch, 1)`.
    """
    size = math.isqrt(parts.shape[-1])
    parts = ops.pad(parts, [[0, 0], [0, -parts.shape[-1] % size]])
    parts = ops.reshape(parts, (-1, parts.shape[-1] // size, size))
    blocks = ops.sum(parts, axis=-1)
    below = ops.cumsum(blocks, axis=-1)
    threshold = shares * below[:, -1:]
    block = ops.sum(ops.cast(below <= threshold, "int32"), axis=-1, keepdims=True)
    within = ops.take_along_axis(parts, ops.expand_dims(block, -1), axis=1)[:, 0]
    rest = threshold - ops.take_along_axis(below - blocks, block, axis=1)
    below = ops.cumsum(within, axis=-1)
    # Sums of another order may stay below by rounding: then it is the last that adds to them.
    beyond = ops.sum(ops.cast(below <= rest, "int32"), axis=-1)
    last = ops.sum(ops.cast(below < below[:, -1:], "int32"), axis=-1)
    return size * block[:, 0] + ops.minimum(beyond, last)


def _layers_of(model):
    """The embedding and what follows it, in order."""
    parts = [p for p in getattr(model, "layers", []) if not isinstance(p, keras.layers.InputLayer)]
    if not parts or not isinstance(parts[0], ImageEmbedding):
        raise ValueError(
            "Received an invalid value for `model`, expected one that "
            f"`keras_sets.models.swarm_image_transformer` has made. Received: model={model!r}"
        )
    return parts


# Logits that are divided by less would round to numbers of which no softmax can be made.
LEAST_TEMPERATURE = 1e-6
# Compiled loops of the models that are still in use.
_STREAMS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _stream_of(model, top_k):
    streams = _STREAMS.setdefault(model, {})
    if top_k not in streams:
        streams[top_k] = _Stream(model, top_k)
    return streams[top_k]


def generate(
    model: keras.Model,
    num_images: int,
    labels: ArrayLike | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    prefix: ArrayLike | None = None,
) -> np.ndarray:
    """Draws images from an image transformer, one cell step for every value.

    The mean over the values so far is a running sum, so the cost of a value and the memory of
    the cells do not grow with the values before it.

    Args:
        model: A model that `keras_sets.models.swarm_image_transformer` has made, or that was
            loaded from a file of one.
        num_images: Positive integer, the number of images.
        labels: The class of every image, integers `(batch,)`, or one for all. Needed by models
            with classes.
        temperature: Positive number that divides the logits: below 1 for likelier images. Less
            than 1e-6 counts as 1e-6.
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
    ...     (4, 4, 1), num_classes=3, hidden_units=8, iterations=2, num_levels=16
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
    num_images = validation.positive_integer("num_images", num_images)
    temperature = max(validation.positive_number("temperature", temperature), LEAST_TEMPERATURE)
    if seed is not None:
        seed = validation.non_negative_integer("seed", seed)
    if top_k is not None:
        top_k = min(validation.positive_integer("top_k", top_k), embedding.levels)
    places = math.prod(embedding.image_shape)
    inputs = {
        "given": _checked_prefix(prefix, num_images, embedding),
        # Below 1 by more than the sum of probabilities is off.
        "uniforms": 0.999999 * np.random.default_rng(seed).random((num_images, places), "float32"),
        "temperature": np.full((num_images, 1), temperature, "float32"),
    }
    labels = _checked_labels(labels, num_images, embedding.classes)
    if labels is not None:
        inputs["labels"] = labels
    # In a strategy of TensorFlow every device answers.
    values = _stream_of(model, top_k).predict_on_batch(inputs)[:num_images]
    dtype = "uint8" if embedding.levels <= 256 else "int32"
    return values.reshape(num_images, *embedding.image_shape).astype(dtype)


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
    check_range("labels", labels, classes)
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
    check_range("prefix", prefix, embedding.levels)
    given[:, :count] = prefix.reshape(batch, count)
    return given
