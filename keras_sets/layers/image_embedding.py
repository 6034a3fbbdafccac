"""Images as sets of places, each of which knows the values before its own."""

import math

import keras
import numpy as np
from keras import ops

from keras_sets import validation
from keras_sets.layers.causal_neighborhood_pooling import neighbor_places
from keras_sets.ops import linear as linear_ops


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
        self.learned_locations = validation.boolean("learned_locations", learned_locations)
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
        check_range("images", images, self.levels)
        if labels is not None:
            check_range("labels", labels, self.classes)
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
        return sum(
            linear_ops.take_rows(tables[i], values[..., i]) for i in range(sources.shape[-1])
        )

    def of_labels(self, labels):
        return linear_ops.take_rows(ops.cast(self.labels, self.compute_dtype), labels)

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


def check_range(name, values, count):
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
