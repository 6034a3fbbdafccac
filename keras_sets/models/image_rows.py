"""A causal `Swarm` on the places of an image, row by row."""

import numpy as np
from keras import ops

from keras_sets.layers import streaming
from keras_sets.layers.causal_neighborhood_pooling import neighbor_offsets
from keras_sets.ops import linear as linear_ops


class PlaceCell:
    """A causal layer one place at a time, with nothing to look ahead for.

    Args:
        layer: A layer with a `streaming_cell`, such as `keras_sets.layers.Swarm`, that has been
            built.
    """

    def __init__(self, layer):
        self._cell = layer.streaming_cell()
        self._cell.built = True  # its weights are there already
        self.get_initial_state = self._cell.get_initial_state

    def kernels(self):
        return ()

    def start_row(self, row, states, kernels):
        return states

    def call(self, x, column, states, kernels):
        return self._cell.call(x, states)


class RowCell:
    """A causal `Swarm` with neighbors, one place at a time, that looks ahead for a whole row.

    What a row adds to the gates of the next ones is one product for all its places, where
    `SwarmStreamingCell` has a small one for each. Within a row the cell reads the neighbors of
    a place from the places before it.

    Args:
        swarm: A `keras_sets.layers.Swarm` that has been built, with `CausalNeighborhoodPooling`
            and a context other than `"self"`.
        grid: `(height, width, channels)`.

    Its states are the sums, `(sums, batch, hidden_units)`; their count; the states h of the
    rows above, those of the own row, and the last of the own row, `(places, sums, batch,
    hidden_units)`; and what the rows above add to the gates of the own row. Places come first,
    so that a place is one block of memory. Without the last ones compilers would copy the own
    row at every place.
    """

    def __init__(self, swarm, grid):
        self.swarm = swarm
        self.sums = streaming.num_sums(swarm)
        pooling = swarm.pooling
        height, self.row = grid[0], grid[1] * grid[2]
        places = height * self.row
        above = sum(row < 0 for row, *_ in neighbor_offsets(pooling.radius, pooling.channels))
        start = np.arange(places)[:, None] // self.row * self.row
        inside = pooling.neighbors < places
        self.remembered = pooling.radius * self.row
        offsets = pooling.neighbors - start
        # The number of remembered places stands for the zeros after them.
        earlier = np.where(inside, offsets + self.remembered, self.remembered)[:, :above]
        self._earlier = earlier.reshape(height, -1).astype("int32")
        # In the own row they are as many places back at every place, or not inside.
        back = (np.arange(places)[:, None] - pooling.neighbors)[:, above:]
        inside = inside[:, above:]
        self._back = back.max(axis=0, initial=1, where=inside).tolist()
        self._last = max(self._back, default=1)
        # What is before the row is 0, so that only places of one channel are left out.
        column = np.arange(self.row)[:, None]
        out = ~inside[: self.row] & (column >= self._back)
        self._inside = None if not out.any() else (~out).astype("float32")

    def get_initial_state(self, batch):
        units, dtype = self.swarm.hidden_units, self.swarm.compute_dtype
        wide = "float64" if dtype == "float64" else "float32"

        def zeros(places, features, dtype=dtype):
            return ops.zeros((places, self.sums, batch, features), dtype)

        return [
            zeros(1, units, wide)[0],
            ops.zeros((batch, 1), wide),
            zeros(self.remembered, units),
            zeros(self.row, units),
            zeros(self._last, units),
            zeros(self.row, 4 * units),
        ]

    def kernels(self):
        """Of the mean and the neighbors in the own row, and of the neighbors above.

        They are made once, outside of the loop over the places.
        """
        units = self.swarm.hidden_units
        kernel = self.swarm.kernels()[1]
        near = kernel.shape[0] - units * len(self._back)
        return ops.concatenate([kernel[:units], kernel[near:]], axis=0), kernel[units:near]

    def start_row(self, row, states, kernels):
        """The states at the start of a row, when all rows above are done."""
        sums, count, rows, own, last, _ = states
        rows = ops.concatenate([rows, own], axis=0)[-self.remembered :]
        places = ops.convert_to_tensor(self._earlier)[row]
        read = ops.take(ops.pad(rows, [[0, 1], [0, 0], [0, 0], [0, 0]]), places, axis=0)
        # From `(row * neighbors, sums, batch, units)`: the neighbors beside each other.
        units = self.swarm.hidden_units
        read = ops.reshape(read, (self.row, -1, self.sums, ops.shape(last)[2], units))
        read = ops.transpose(read, (0, 2, 3, 1, 4))
        read = ops.reshape(read, (*ops.shape(read)[:3], kernels[1].shape[0]))
        added = linear_ops.linear(read, kernels[1])
        return [sums, count, rows, own, ops.zeros_like(last), added]

    def call(self, x, column, states, kernels):
        """The output at a place of the row, and the states after it."""
        sums, count, rows, own, last, added = states
        near = [last[self._last - back] for back in self._back]
        if self._inside is not None:
            inside = ops.cast(ops.convert_to_tensor(self._inside)[column], last.dtype)
            near = [states * inside[i] for i, states in enumerate(near)]
        now = added[column]
        y, after, read = streaming.one_entity(
            self.swarm,
            x,
            [sums[i] for i in range(self.sums)],
            count + 1,
            kernels[0],
            [ops.concatenate([states[i] for states in near], axis=-1) for i in range(self.sums)],
            [now[i] for i in range(self.sums)],
        )
        newest = ops.expand_dims(ops.cast(ops.stack(read, axis=0), own.dtype), 0)
        own = ops.slice_update(own, (column, 0, 0, 0), newest)
        last = ops.concatenate([last[1:], newest], axis=0)
        return y, [ops.stack(after, axis=0), count + 1, rows, own, last, added]
