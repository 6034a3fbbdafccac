from typing import TYPE_CHECKING
from typing import Any
from typing import Self

import keras
import numpy as np
from keras import backend
from keras import ops

from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.pooling import CausalMeanPooling

if TYPE_CHECKING:
    from keras_sets.layers.swarm import Swarm


@keras.saving.register_keras_serializable(package="keras_sets")
class SwarmStreamingCell(keras.layers.Layer):
    """RNN cell that computes a causal `Swarm` one entity at a time.

    A running mean needs its sum and its count only, so a new entity costs `iterations` cell
    steps and no more memory, however many entities came before:

    ```
    h, c = 0, 0
    repeat iterations times:
        h, c = cell(x, [h, c], pooled=sum_h / count)    # sum_h includes this entity
    y = projection(concatenate([h, c]))
    ```

    Made by `keras_sets.layers.Swarm.streaming_cell`. The weights are those of the layer:
    training the one trains the other.

    Args:
        swarm: A `keras_sets.layers.Swarm` with `pooling="causal_mean"`, or one whose
            pooling also gives every place on a grid the states of its earlier `neighbors`, which
            the cell then remembers.

    Call arguments:
        inputs: `(batch, features)`, one entity of every set.
        states: List of the output before `(batch, units)`, the sums of h of every iteration
            but the last, side by side, and the number of entities `(batch, 1)`. They are
            float32 (or float64) whatever the dtype policy of the layer. (The states that
            `keras.layers.RNN` returns at the end have the dtype of the RNN layer: under a
            half-precision policy give it `dtype="float32"` to continue a stream.)
        training: Whether this is training. The dropout of the layer is shared by all
            entities of a set, which a cell that sees one of them cannot do.

    Output shape:
        `(batch, units)`, and the new states. The output is that of the last iteration, also
        of a layer with `return_iterations`.

    Masking:
        `keras.layers.RNN` carries the states over masked steps, so that the other steps give
        what the layer gives with a mask. With `zero_output_for_mask=True` the masked steps
        give 0, as the layer does. Masked entities must be finite numbers here.

    Symmetry:
        Causal: an output does not depend on entities after it.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> swarm = keras_sets.layers.Swarm(4, pooling="causal_mean")
    >>> x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")
    >>> stream = keras.layers.RNN(swarm.streaming_cell(), return_sequences=True)
    >>> streamed, whole = (keras.ops.convert_to_numpy(layer(x)) for layer in (stream, swarm))
    >>> bool(np.allclose(streamed, whole, atol=1e-5))
    True

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    def __init__(self, swarm: "Swarm", **kwargs: Any) -> None:
        on_a_grid = hasattr(swarm.pooling, "neighbors")
        if type(swarm.pooling) is not CausalMeanPooling and not on_a_grid:
            raise ValueError(
                "Only a causal Swarm can be computed as a stream, because entities that are "
                "still to come have no influence: make the layer with pooling='causal_mean'. "
                f"Received: pooling={swarm.pooling!r}"
            )
        if getattr(swarm.pooling, "num_heads", None) and num_sums(swarm):
            raise ValueError(
                "A Swarm with attention has no streaming cell: `keras_sets.models.generate` "
                f"computes it place by place. Received: '{swarm.name}', with "
                f"num_heads={swarm.pooling.num_heads} of its pooling"
            )
        # `keras.layers.RNN` casts states to the compute dtype of the cell, and sums need
        # float32; the layer computes in its own dtype all the same.
        wide = "float64" if swarm.compute_dtype == "float64" else "float32"
        kwargs.setdefault("dtype", wide)
        super().__init__(**kwargs)
        self.swarm = swarm
        self._sums = num_sums(swarm)
        self.state_size = [swarm.units, max(1, self._sums * swarm.hidden_units), 1]
        self.output_size = swarm.units
        if on_a_grid:
            if not swarm.built:
                raise ValueError(
                    f"Only a layer that has been built has a streaming cell with neighbors, "
                    f"because they depend on the size of the grid. Received: '{swarm.name}', "
                    "which has not seen an input yet"
                )
            neighbors = swarm.pooling.neighbors
            places = len(neighbors)
            back = np.arange(places)[:, None] - neighbors
            inside = neighbors < places
            # So many places back a state has to be remembered; the last of them comes last.
            self._reach = int(back.max(initial=1, where=inside))
            self._slots = np.where(inside, self._reach - back, self._reach).astype("int32")
            self.state_size.append(max(1, self._sums * self._reach * swarm.hidden_units))

    def build(self, input_shape: Shape) -> None:
        if not self.swarm.built:
            self.swarm.build((input_shape[0], None, input_shape[-1]))
        features = self.swarm.cell.kernel.shape[0]
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: features})
        self.built = True

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        swarm = self.swarm
        if training and swarm.dropout > 0:
            raise ValueError(
                f"The streaming cell of '{swarm.name}' does not apply dropout: train the layer "
                "itself, whose weights the cell shares, and stream with training=False. "
                f"Received: training={training}, dropout={swarm.dropout}"
            )
        _, sums, count, *recent = states
        neighbors: list[Tensor] = []
        if recent and self._sums:
            places = ops.minimum(ops.cast(count[:, 0], "int32"), len(self._slots) - 1)
            slots = ops.take(ops.convert_to_tensor(self._slots), places, axis=0)
            memory = ops.reshape(recent[0], (-1, self._sums, self._reach, swarm.hidden_units))
            neighbors = [_gather(memory[:, i], slots) for i in range(self._sums)]
        pooled_kernel = swarm.kernels()[1]
        before = ops.split(sums, self._sums, axis=-1) if self._sums else []
        y, after, read = one_entity(swarm, inputs, before, count + 1, pooled_kernel, neighbors)
        if neighbors:
            newest = ops.expand_dims(ops.stack(read, axis=1), 2)
            memory = ops.concatenate([memory[:, :, 1:], newest], axis=2)
            recent = [ops.reshape(memory, ops.shape(recent[0]))]
        y = ops.cast(y, self.compute_dtype)
        sums = ops.concatenate(after, axis=-1) if after else sums
        return y, [y, sums, count + 1, *recent]

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in self.state_size]

    def compute_output_shape(
        self, inputs_shape: Shape, states_shape: list[Shape] | None = None
    ) -> tuple[Shape, list[Shape]]:
        batch = inputs_shape[0]
        return (batch, self.output_size), [(batch, size) for size in self.state_size]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "swarm": keras.saving.serialize_keras_object(self.swarm),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        config["swarm"] = keras.saving.deserialize_keras_object(config["swarm"])
        return super().from_config(config)


def num_sums(swarm):
    """How many iterations of a causal `Swarm` have a mean that later ones read."""
    last = swarm.iterations - 1
    return {"swarm": last, "static": min(last, 1), "self": 0}[swarm.context]


def one_entity(swarm, x, sums, count, pooled_kernel, neighbors=()):
    """A causal `Swarm` for the next entity of every set.

    Args:
        swarm: The layer.
        x: `(batch, features)`.
        sums: For each mean the sum over the entities before, `(batch, hidden_units)`, in a
            dtype that holds it.
        count: The number of entities with this one, `(batch, 1)`, in that dtype.
        pooled_kernel: The kernel of what is pooled here: the mean, and `neighbors`.
        neighbors: For each mean what the cells read beside it, `(batch, features)`.

    Returns:
        The output, the new sums, and the states that they have taken in, in their dtype.
    """
    x = ops.cast(x, swarm.compute_dtype)
    wide = backend.standardize_dtype(count.dtype)
    # A cast takes time on torch even where it changes nothing.
    half = wide != swarm.compute_dtype
    after, read = [], []

    def pool(h):
        if swarm.context == "self":
            return h
        i = len(read)
        read.append(ops.cast(h, wide) if half else h)
        after.append(sums[i] + read[i])
        mean = after[i] / count
        mean = ops.cast(mean, swarm.compute_dtype) if half else mean
        if not neighbors:
            return mean
        near = ops.cast(neighbors[i], swarm.compute_dtype) if half else neighbors[i]
        return ops.concatenate([mean, near], axis=-1)

    recurrent_kernel = swarm.kernels()[0]
    gates, h, c = swarm.first_step(x, pooled_kernel, pool)
    for _ in range(swarm.iterations - 1):
        h, c = swarm.step(h, c, gates, recurrent_kernel, pooled_kernel, pool)
    return swarm.project(h, c), after, read


def _gather(past, slots):
    """`(batch, neighbors * features)`: rows of `(batch, reach, features)`, 0 for row `reach`."""
    past = ops.pad(past, [[0, 0], [0, 1], [0, 0]])
    shape = (*ops.shape(slots), past.shape[-1])
    rows = ops.take_along_axis(past, ops.broadcast_to(ops.expand_dims(slots, -1), shape), axis=1)
    return ops.reshape(rows, (-1, slots.shape[1] * past.shape[-1]))
