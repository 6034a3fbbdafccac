"""Slots that share out the points of a set among themselves, with the course of EM."""

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.permutation_equivariant_dense import PermutationEquivariantDense

# The least share of the points, for its logarithm, and the least spread of what a slot got.
LEAST_SHARE = 1e-5
LEAST_SPREAD = 1e-2


@keras.saving.register_keras_serializable(package="keras_sets")
class MixtureRefinement(keras.layers.Layer):
    """Slots share out the points among themselves, again and again.

    In every iteration each point divides itself among the slots, by a softmax over the
    slots; each slot learns the mean of the features of what it got, its share, its centre and
    its spread, and changes its state. This has the course of EM, but by what points are
    compared and what a slot makes of them is learned: a network computes the comparison and
    another one the change. Heads share out the points each in its own way. The iterations
    have the same weights.

    Args:
        iterations: Positive integer.
        num_heads: Positive integer that divides the units of the slots.

    Call arguments:
        slots: `(batch, slots, units)`, the first state.
        entities: `(batch, n, features)`, features of the points.
        points: `(batch, n, dimensions)`, their coordinates.
        present: bool `(batch, n)`, True for a real point.

    Output shape:
        `(batch, slots, 2 * units + heads * (2 * dimensions + 1))`: the last state and what it
        was made of, in float32 under every policy.

    Masking:
        Points that are not there may hold anything, NaN included; a set without points gives
        finite numbers.

    Symmetry:
        Invariant to the order of the points, equivariant to that of the slots.

    Example:

    >>> import numpy as np
    >>> from keras_sets.layers.mixture_refinement import MixtureRefinement
    >>> layer = MixtureRefinement(iterations=3, num_heads=2)
    >>> slots, entities, points = np.ones((8, 4, 6)), np.ones((8, 100, 5)), np.ones((8, 100, 2))
    >>> tuple(layer(slots, entities, points, np.ones((8, 100), bool)).shape)
    (8, 4, 22)

    Reference:
        [Locatello et al., 2020, Object-Centric Learning with Slot
        Attention](https://arxiv.org/abs/2006.15055), algorithm 1, for the softmax over slots;
        [Okabe et al., 2018, Attentive Statistics Pooling](https://arxiv.org/abs/1803.10963).
    """

    def __init__(self, iterations, num_heads, **kwargs):
        # Spreads are differences of squares.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.iterations = validation.positive_integer("iterations", iterations)
        self.num_heads = validation.positive_integer("num_heads", num_heads)

    def build(self, slots_shape, entities_shape, points_shape, present_shape):
        units, dimensions = slots_shape[-1], points_shape[-1]
        if units % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the units of the slots. Received: "
                f"num_heads={self.num_heads}, slots with {units} units"
            )
        shared = {"dtype": self.dtype_policy}
        # With the squares of the coordinates a linear key can compare like a Gaussian does.
        products = dimensions + dimensions * (dimensions + 1) // 2
        self.keys = keras.layers.Dense(2 * units, name="keys", **shared)
        self.keys.build((*entities_shape[:-1], entities_shape[-1] + products))
        self.query = keras.layers.Dense(units, name="query", **shared)
        self.query.build(slots_shape)
        self.normalization = keras.layers.LayerNormalization(name="normalization", **shared)
        self.normalization.build(slots_shape)
        self.hidden = PermutationEquivariantDense(
            2 * units, activation="relu", name="hidden", **shared
        )
        width = 2 * units + self.num_heads * (2 * dimensions + 1)
        self.hidden.build((*slots_shape[:-1], width))
        self.update = keras.layers.Dense(units, name="update", **shared)
        self.update.build((*slots_shape[:-1], 2 * units))
        self.built = True

    def call(self, slots, entities, points, present):
        entities = set_ops.apply_mask(entities, present)
        points = set_ops.apply_mask(points, present)
        units, heads, dimensions = slots.shape[-1], self.num_heads, points.shape[-1]
        squares = [points[..., i:] * points[..., i : i + 1] for i in range(dimensions)]
        features = ops.concatenate([entities, points, *squares], axis=-1)
        keys, values = ops.split(self._by_head(self.keys(features)), 2, axis=-1)
        keys = ops.transpose(keys, (0, 1, 3, 2))
        moments = ops.concatenate([points, points * points, ops.ones_like(points[..., :1])], -1)
        moments = ops.expand_dims(moments, 1)
        moments = ops.broadcast_to(moments, (*ops.shape(values)[:3], 2 * dimensions + 1))
        values = ops.concatenate([values, moments], axis=-1)
        present = ops.cast(ops.expand_dims(present, (1, 2)), slots.dtype)
        count = ops.maximum(ops.sum(present, axis=-1, keepdims=True), 1)
        scale = (units // heads) ** -0.5
        for _ in range(self.iterations):
            normalized = self.normalization(slots)
            scores = self._by_head(self.query(normalized)) @ keys * scale
            # (batch, heads, slots, n): the softmax is over the slots.
            shares = ops.softmax(scores, axis=2) * present
            received = self._summary(shares @ values / count, dimensions)
            state = ops.concatenate([normalized, received], axis=-1)
            slots = slots + self.update(self.hidden(state))
        return ops.concatenate([self.normalization(slots), received], axis=-1)

    def _by_head(self, x):
        """`(batch, k, heads * width)` to `(batch, heads, k, width)`."""
        batch, count = ops.shape(x)[:2]
        shape = (batch, count, self.num_heads, x.shape[-1] // self.num_heads)
        return ops.transpose(ops.reshape(x, shape), (0, 2, 1, 3))

    def _summary(self, moments, dimensions):
        """What every slot got, `(batch, slots, features)`, from `(batch, heads, slots, ...)`.

        The moments are the means over the set of features, coordinates, their squares and 1,
        each times the slot's share.
        """
        share = moments[..., -1:] + LEAST_SHARE
        means = moments[..., :-1] / share
        width = means.shape[-1] - 2 * dimensions
        features, centre, square = ops.split(means, [width, width + dimensions], axis=-1)
        variance = ops.maximum(square - ops.square(centre), 0)
        spread = 0.5 * ops.log(variance + LEAST_SPREAD**2)
        summary = ops.concatenate([features, centre, spread, ops.log(share)], axis=-1)
        summary = ops.transpose(summary, (0, 2, 1, 3))
        batch, slots = ops.shape(summary)[:2]
        return ops.reshape(summary, (batch, slots, summary.shape[-2] * summary.shape[-1]))

    def compute_output_shape(self, slots_shape, entities_shape, points_shape, present_shape):
        units = slots_shape[-1]
        return (*slots_shape[:-1], 2 * units + self.num_heads * (2 * points_shape[-1] + 1))

    def get_config(self):
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "num_heads": self.num_heads,
        }
