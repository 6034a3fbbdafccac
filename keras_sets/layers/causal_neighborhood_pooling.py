import math

import keras
import numpy as np
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.pooling import Pooling
from keras_sets.ops import linear as linear_ops
from keras_sets.ops import linear_attention


@keras.saving.register_keras_serializable(package="keras_sets")
class CausalNeighborhoodPooling(Pooling):
    """Running mean, and beside it what the earlier neighbors of a place on a grid hold.

    The entities are the places of a grid `(height, width, channels)` in row-major order. The
    output at a place is its running mean, as `CausalMeanPooling` has it, followed by the inputs
    at its earlier neighbors: the pixels up to `radius` rows above and columns to the left or
    right of it that come before it, in its own channel, and the channels of its own pixel that
    come before its own. What is outside of the grid is 0.

    With `num_heads` the output begins with causal linear attention in place of the mean: for
    query, key and value of every place from one kernel, each head in features of its own,

    ```
    y_i = phi(q_i) sum_j phi(k_j) v_j^T / (phi(q_i) sum_j phi(k_j)),  phi(x) = elu(x) + 1
    ```

    over the places j up to i.

    Args:
        radius: Positive integer, in pixels; also 0 with `num_heads`.
        channels: Positive integer, size of the last entity axis.
        num_heads: None for the mean, or a positive integer that divides the features.

    Call arguments:
        inputs: `(batch, height, width, channels, features)`, height and width known.
        mask: Optional bool `(batch, height, width, channels)`, True for a place that is there.
        weights: Optional float of the same shape, at least 0: multiplicities in the mean.

    Output shape:
        `(batch, height, width, channels, features * (1 + neighbors))` with `neighbors = 2 *
        radius * (radius + 1) + channels - 1`.

    Masking:
        Masked places do not count and are 0 to their neighbors; they get 0. The mask is passed
        on.

    Symmetry:
        Causal. Not one of sets: a place has its neighbors where it is.

    Reference:
        [Van den Oord et al., 2016, Pixel Recurrent Neural
        Networks](https://arxiv.org/abs/1601.06759), figure 2, for the neighborhood.
        [Katharopoulos et al., 2020, Transformers are RNNs](https://arxiv.org/abs/2006.16236),
        equations 9 and 18 to 20, for the attention.
    """

    symmetry = "causal"
    neighbors = None

    def __init__(self, radius=1, channels=1, num_heads=None, **kwargs):
        if num_heads is None:
            self.radius = validation.positive_integer("radius", radius)
        else:
            self.radius = validation.non_negative_integer("radius", radius)
            num_heads = validation.positive_integer("num_heads", num_heads)
        self.channels = validation.positive_integer("channels", channels)
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.query_key_value = None

    def build(self, input_shape):
        grid = tuple(input_shape[1:-1])
        if len(grid) != 3 or None in grid or grid[2] != self.channels:
            raise ValueError(
                f"Layer '{self.name}' expects inputs of the shape (batch, height, width, "
                f"{self.channels}, features) with a known height and width. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        # Where a stream of places finds them.
        self.neighbors = neighbor_places(grid, self.radius)
        if self.num_heads is not None:
            features = input_shape[-1]
            validation.check_heads("features", features, self.num_heads)
            self.query_key_value = self.add_weight(
                name="query_key_value", shape=(features, 3 * features)
            )
        super().build(input_shape)

    def split_heads(self, x):
        """Query, key and value of states `(..., features)`."""
        parts = linear_ops.linear(x, self.in_compute_dtype(self.query_key_value))
        return linear_attention.split_heads(parts, self.num_heads)

    def _attend(self, x, mask, weights):
        places = (-1, math.prod(x.shape[1:-1]))
        query, key, value = self.split_heads(ops.reshape(x, (*places, x.shape[-1])))
        for counts in (mask, weights):
            if counts is not None:
                key = key * ops.cast(ops.reshape(counts, (*places, 1, 1)), key.dtype)
        sums = linear_attention.causal_sums(query, key, value)
        return ops.reshape(linear_attention.merge_heads(sums), (-1, *x.shape[1:]))

    def pool(self, x, mask, weights, keepdims):
        if self.num_heads is None:
            whole = set_ops.set_causal_mean(x, mask, weights)
        else:
            whole = self._attend(ops.cast(x, self.compute_dtype), mask, weights)
        height, width, channels = x.shape[1:-1]
        radius, before = self.radius, channels - 1
        padding = [[0, 0], [radius, 0], [radius, radius], [before, 0], [0, 0]]
        padded = ops.pad(ops.cast(x, whole.dtype), padding)
        parts = [whole]
        for row, column, channel in neighbor_offsets(radius, channels):
            row, column, channel = row + radius, column + radius, channel + before
            parts.append(
                padded[
                    :,
                    row : row + height,
                    column : column + width,
                    channel : channel + channels,
                ]
            )
        return set_ops.apply_mask(ops.concatenate(parts, axis=-1), mask)

    def compute_output_shape(self, input_shape):
        neighbors = len(neighbor_offsets(self.radius, self.channels))
        return (*input_shape[:-1], (1 + neighbors) * input_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "radius": self.radius,
            "channels": self.channels,
            "num_heads": self.num_heads,
        }


def neighbor_offsets(radius, channels):
    """`(row, column, channel)` from a place to each of its earlier neighbors; see above."""
    near = range(-radius, radius + 1)
    offsets = [(row, column, 0) for row in near for column in near if (row, column) < (0, 0)]
    return offsets + [(0, 0, -channel) for channel in range(1, channels) if radius]


def neighbor_places(grid, radius):
    """The neighbors of every place of a grid `(height, width, channels)`, `(places, neighbors)`.

    Places are numbered in row-major order; their number stands for what is outside.
    """
    shape = np.array(grid)
    places = shape.prod()
    read = [np.empty((places, 0), int)]
    for offset in neighbor_offsets(radius, grid[2]):
        moved = np.indices(shape).reshape(3, -1) + np.array(offset)[:, None]
        inside = ((moved >= 0) & (moved < shape[:, None])).all(axis=0)
        moved = np.ravel_multi_index(moved, shape, mode="clip")
        read.append(np.where(inside, moved, places)[:, None])
    return np.concatenate(read, axis=1).astype("int32")
