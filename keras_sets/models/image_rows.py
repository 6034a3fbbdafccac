"""A causal `Swarm` on the places of an image, row by row."""

import numpy as np
from keras import ops

from keras_sets.layers import streaming
from keras_sets.layers.causal_neighborhood_pooling import neighbor_offsets
from keras_sets.layers.swarm_block import SwarmBlock
from keras_sets.ops import linear as linear_ops
from keras_sets.ops import linear_attention


def cell_of(layer, grid):
    """What goes from place to place for a layer that mixes places; None for any other."""
    if isinstance(layer, SwarmBlock):
        return BlockCell(layer, cell_of(layer.swarm, grid))
    if not hasattr(layer, "streaming_cell"):
        return None
    if hasattr(getattr(layer, "pooling", None), "neighbors") and streaming.num_sums(layer):
        return RowCell(layer, grid)
    return PlaceCell(layer)


def at_a_place(layer, x):
    """A layer that mixes no places, of what one of them holds, `(batch, features)`.

    What Keras does around a call takes longer than one place on torch. It matters where
    weights are cast.
    """
    casts = layer.compute_dtype != layer.variable_dtype
    return layer(x) if casts else layer.call(x)


class BlockCell:
    """A `SwarmBlock` one place at a time.

    Args:
        block: A `keras_sets.layers.swarm_block.SwarmBlock` that has been built.
        cell: The cell of its `Swarm`.
    """

    def __init__(self, block, cell):
        self._block = block
        self._cell = cell
        self.get_initial_state = cell.get_initial_state
        self.kernels = cell.kernels
        self.start_row = cell.start_row

    def call(self, x, column, states, kernels):
        block = self._block
        y, states = self._cell.call(at_a_place(block.norms[0], x), column, states, kernels)
        y = h = x + ops.cast(y, x.dtype)
        for layer in (block.norms[1], block.inner, block.outer):
            y = at_a_place(layer, y)
        return h + y, states


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

    def start_row(self, states):
        return states

    def call(self, x, column, states, kernels):
        return self._cell.call(x, states)


class RowCell:
    """A causal `Swarm` with neighbors, one place at a time, for as many images as there are.

    All that a place reads from earlier ones is known for every iteration before the first: it
    is one product, where `SwarmStreamingCell` has a small one in each. But for attention, whose
    query comes from the iteration before.

    Args:
        swarm: A `keras_sets.layers.Swarm` that has been built, with `CausalNeighborhoodPooling`
            and a context other than `"self"`.
        grid: `(height, width, channels)`.

    Its states are the sums, `(sums, batch, hidden_units)`, those of attention as
    `keras_sets.ops.linear_attention.one_place` has them; their count; and the states h of the
    rows above, with zeros after them, those of the own row, and the last of the own row,
    `(places, sums, batch, hidden_units)`. Places come first, so that a place is one block of
    memory. Without the last ones compilers would copy the own row at every place.
    """

    def __init__(self, swarm, grid):
        self.swarm = swarm
        self.sums = streaming.num_sums(swarm)
        self.dtype = swarm.compute_dtype
        # Sums over a whole image are not rounded to half precision.
        self.wide = "float64" if self.dtype == "float64" else "float32"
        self.pooling = pooling = swarm.pooling
        self.features = swarm.hidden_units  # of one sum
        if pooling.num_heads is not None:
            self.features = linear_attention.size_of_sums(self.features, pooling.num_heads)
        height, self.row = grid[0], grid[1] * grid[2]
        places = height * self.row
        above = sum(row < 0 for row, *_ in neighbor_offsets(pooling.radius, pooling.channels))
        inside = pooling.neighbors < places
        self.remembered = pooling.radius * self.row
        # Of a column, among the rows above. Those before the first row are 0, and so is what
        # comes after them, which stands for neighbors beside the image.
        start = np.arange(places)[:, None] // self.row * self.row
        earlier = np.where(inside, pooling.neighbors - start + self.remembered, -1)[:, :above]
        earlier = earlier.reshape(height, self.row, above).max(axis=0)
        self._earlier = np.where(earlier < 0, self.remembered, earlier).astype("int32")
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
        shape = (self.sums, batch, self.swarm.hidden_units)
        sums = ops.zeros((self.sums, batch, self.features), self.wide)
        count = ops.zeros((), self.wide)
        places = self.remembered + 1, self.row, self._last
        return [sums, count, *(ops.zeros((n, *shape), self.dtype) for n in places)]

    def kernels(self):
        """Of h, of what is known of earlier places, and of what holds h of this place too.

        They are made once, outside of the loop over the places. With the mean the last is in the
        dtype of the sums. With attention the first also gives query, key and value.
        """
        recurrent_kernel, pooled_kernel = self.swarm.kernels()
        units = self.swarm.hidden_units
        if self.pooling.num_heads is None:
            return recurrent_kernel, pooled_kernel, ops.cast(pooled_kernel[:units], self.wide)
        beside = ops.cast(self.pooling.query_key_value, self.dtype)
        recurrent_kernel = ops.concatenate([recurrent_kernel, beside], axis=1)
        return recurrent_kernel, pooled_kernel[units:], pooled_kernel[:units]

    def start_row(self, states):
        """The states at the start of a row, when all rows above are done."""
        sums, count, rows, own, last = states
        rows = ops.concatenate([rows[:-1], own, rows[-1:]], axis=0)[-self.remembered - 1 :]
        return [sums, count, rows, own, ops.zeros_like(last)]

    def call(self, x, column, states, kernels):
        """The output at a place of the row, and the states after it."""
        swarm, (recurrent_kernel, known_kernel, own_kernel) = self.swarm, kernels
        sums, count, rows, own, last = states
        above = ops.take(rows, ops.convert_to_tensor(self._earlier)[column], axis=0)
        near = [last[self._last - back] for back in self._back]
        if self._inside is not None:
            inside = ops.cast(ops.convert_to_tensor(self._inside)[column], self.dtype)
            near = [states * inside[i] for i, states in enumerate(near)]
        near = [*(above[i] for i in range(self._earlier.shape[1])), *near]
        count = count + 1
        after, known = [], self._known(near, sums, count, known_kernel)
        gates_of_h, heads = 4 * swarm.hidden_units, self.pooling.num_heads
        if heads is None:
            # The means hold h of this place too. Its share is `h / count`, and its product that
            # of another kernel with h.
            own_kernel, pool = ops.cast(own_kernel / count, self.dtype), lambda h: h
            if swarm.context == "swarm":
                recurrent_kernel = recurrent_kernel + own_kernel
        else:
            of_attention = recurrent_kernel[:, gates_of_h:]
            pool = lambda h: attend(linear_ops.linear(h, of_attention))  # noqa: E731

        def attend(parts):
            parts = linear_attention.split_heads(parts, heads)
            y, summed = linear_attention.one_place(*parts, sums[len(after)])
            after.append(summed)
            return linear_attention.merge_heads(y)

        gates, h, c = swarm.first_step(x, own_kernel, pool)
        read = []
        if swarm.context == "static":
            read, gates = [h], gates + known[0]
        for i in range(swarm.iterations - 1):
            total, product = gates, linear_ops.linear(h, recurrent_kernel)
            if swarm.context == "swarm":
                read.append(h)
                total = total + known[i]
                if heads is not None:
                    attended = attend(product[..., gates_of_h:])
                    total = total + linear_ops.linear(attended, own_kernel)
            total = linear_ops.add_in_place(product[..., :gates_of_h], total)
            h, c = swarm.cell.update(total, c)
        read = ops.stack(read, axis=0)
        sums = ops.stack(after, axis=0) if after else sums + ops.cast(read, self.wide)
        newest = ops.expand_dims(read, 0)
        own = ops.slice_update(own, (column, 0, 0, 0), newest)
        last = ops.concatenate([last[1:], newest], axis=0)
        return swarm.project(h, c), [sums, count, rows, own, last]

    def _known(self, near, sums, count, kernel):
        """What the gates read of earlier places, `(sums, batch, 4 * hidden_units)`."""
        if self.pooling.num_heads is None:
            near = [ops.cast(sums / count, self.dtype), *near]
        if not near:
            return [0.0] * self.sums
        return linear_ops.linear(ops.concatenate(near, axis=-1), kernel)
