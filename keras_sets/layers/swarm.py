from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import Constraint
from keras_sets._typing import Initializer
from keras_sets._typing import PoolingLike
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.chunked_pooling_scope import get_chunked_pooling_scope
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.part_options import build_part
from keras_sets.layers.pooled_context import PooledContext
from keras_sets.layers.streaming import SwarmStreamingCell
from keras_sets.layers.swarm_cell import SwarmCell
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import linear as linear_ops
from keras_sets.ops import loops as loop_ops
from keras_sets.prepared import PreparedScope
from keras_sets.utils.keep_memory import memory_is_fetched_anew

CONTEXTS = ("swarm", "static", "self")


@keras.saving.register_keras_serializable(package="keras_sets")
class Swarm(PartOptions, PooledContext, SetLayer):
    """A population of LSTM-like cells that share what they have in common.

    Every entity runs the same `SwarmCell` for some iterations. From the second iteration
    on each cell also receives the pooled hidden state of the whole population:

    ```
    h, c = 0, 0
    repeat iterations times:
        h, c = cell(x, [h, c], pooled=pooling(h))
    y = projection(concatenate([h, c]))
    ```

    with pooled = 0 in the first iteration. The inputs are projected once, and the pooled
    state is projected after pooling, one row per set.

    Args:
        units: Positive integer, width of the output.
        hidden_units: Positive integer, width of the cell. None is `units`.
        iterations: Positive integer, how often the cell runs.
        pooling: `"mean"`, `"sum"`, `"max"`, `"logsumexp"`, `"causal_mean"`, or a pooling
            layer or callable.
        context: What reaches a cell from the others, at equal numbers of weights.
            `"swarm"`: the pooled state of the iteration before. `"static"`: the pooled
            state of the first iteration, ever after. `"self"`: nothing; every entity is
            a population of one.
        activation, recurrent_activation, use_bias, unit_forget_bias: As in `SwarmCell`.
        output_activation: Activation of the output projection. None is the identity.
        dropout: Fraction of the features of h to drop after every iteration, at training.
            The entities of a set share one mask, so that order does not matter.
        return_iterations: If True, return `(y, h, c)` with the states after every
            iteration. `"outputs"`: return the outputs after every iteration.
        unroll: If True, the iterations are written out in the graph. If False, they are a
            loop, which compiles in a time that does not grow with `iterations`. None is what
            runs fastest: a loop where JAX compiles, written out elsewhere.
        remat: If True, the backward pass computes all but h and c again: less memory, more time.
            If False, no products again. None is what trains fastest: where JAX compiles for one
            processor, large batches run a few sets at a time, and again backward. Else as False.
        seed: Seed of the dropout.
        kernel_initializer, recurrent_initializer, pooled_initializer, bias_initializer,
        and the matching regularizers and constraints: As in `SwarmCell`.
        projection_initializer, projection_regularizer: For the kernel of the projection.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
        training: Whether to apply dropout.

    Output shape:
        `(batch, *entities, units)`. With `return_iterations=True` also h and c,
        `(batch, iterations, *entities, hidden_units)`. With `return_iterations="outputs"`
        `(batch, iterations, *entities, units)`.

    Masking:
        Masked entities change no output but their own, which is 0. The mask is passed on, but
        not with what has an axis of iterations.

    Symmetry:
        Equivariant to permutations of the entities; causal in row-major order with a
        causal pooling.

    Attributes:
        cell: The `SwarmCell`.
        pooling: The pooling.
        projection: The `keras.layers.Dense` on `concatenate([h, c])`.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.Swarm(10, hidden_units=16, iterations=3)
    >>> points = np.random.default_rng(0).normal(size=(2, 50, 2))
    >>> layer(points).shape == (2, 50, 10)
    True

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    def __init__(
        self,
        units: int,
        hidden_units: int | None = None,
        iterations: int = 5,
        pooling: PoolingLike = "mean",
        context: str = "swarm",
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        unit_forget_bias: bool = True,
        output_activation: Activation = None,
        dropout: float = 0.0,
        return_iterations: bool | str = False,
        unroll: bool | None = None,
        remat: bool | None = None,
        seed: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        pooled_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        pooled_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        pooled_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        projection_initializer: Initializer = "glorot_uniform",
        projection_regularizer: Regularizer = None,
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        if hidden_units is not None:
            hidden_units = validation.positive_integer("hidden_units", hidden_units)
        iterations = validation.positive_integer("iterations", iterations)
        validation.one_of("context", context, CONTEXTS)
        dropout = validation.fraction("dropout", dropout)
        super().__init__(**kwargs)
        self.units = units
        self.hidden_units = hidden_units or units
        self.iterations = iterations
        self.context = context
        self.dropout = dropout
        self.return_iterations = validation.one_of(
            "return_iterations", return_iterations, (False, True, "outputs")
        )
        self.unroll = validation.optional_boolean("unroll", unroll)
        self.remat = validation.optional_boolean("remat", remat)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if dropout > 0 else None
        self._set_pooling(pooling)
        self.cell = SwarmCell(
            self.hidden_units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            unit_forget_bias=unit_forget_bias,
            pooled_units=self._pooled_features(self.hidden_units),
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            pooled_initializer=pooled_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            pooled_regularizer=pooled_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            pooled_constraint=pooled_constraint,
            bias_constraint=bias_constraint,
            name="cell",
            **self._part_arguments(),
        )
        self.projection_initializer = keras.initializers.get(projection_initializer)
        self.projection = _Projection(
            units,
            activation=output_activation,
            use_bias=use_bias,
            kernel_initializer=own_seed(self.projection_initializer, "projection"),
            kernel_regularizer=projection_regularizer,
            name="projection",
            **self._part_arguments(),
        )

    @property
    def _parts(self):
        return self.cell, self.projection

    def build(self, input_shape: Shape) -> None:
        self.cell.build(input_shape)
        build_part(self.pooling, (*input_shape[:-1], self.hidden_units))
        self.projection.build((*input_shape[:-1], 2 * self.hidden_units))
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        keep = self._dropout_masks(x) if training and self.dropout > 0 else None
        size = self._sets_at_a_time(x) if training else None
        if size is None:
            return self._iterate(x, mask, weights, keep)

        def iterate(x, mask, weights, keep):
            with PreparedScope(x, mask, weights):
                return self._iterate(x, mask, weights, keep)

        return loop_ops.in_groups(iterate, (x, mask, weights, keep), size)

    def _sets_at_a_time(self, x):
        """How many sets go through all iterations before the next ones do; None is all."""
        # A function may look at other sets; iterations that are written out may be random.
        whole = self.remat is not None or self.unroll or not isinstance(self.pooling, SetLayer)
        whole = whole or self.return_iterations or not memory_is_fetched_anew()
        if whole or get_chunked_pooling_scope() is not None:
            return None
        units, pooled_units = self.hidden_units, self.cell.pooled_units or self.hidden_units
        causal = self.symmetry == "causal"
        # Wide products, and sums over earlier entities, cost more than the memory.
        if units + causal * (units + pooled_units) > 256:
            return None
        # Of the gates, h and c, and what is pooled for every entity.
        kept = self.iterations * (7 * units + causal * pooled_units)
        return loop_ops.sets_at_a_time(x, kept)

    def _iterate(self, x, mask, weights, keep):
        def step(index, h, c, gates, beside, recurrent_kernel, pooled_kernel, mask, weights, keep):
            pool = lambda _: self._pool_context(h, mask, weights)  # noqa: E731
            read = h if beside is None else ops.concatenate([h, beside], axis=-1)
            new, c = self.step(read, c, gates, recurrent_kernel, pooled_kernel, pool)
            return self._drop(new, keep, index), c

        recurrent_kernel, pooled_kernel = self.kernels()
        drop = lambda h: self._drop(h, keep, 0)  # noqa: E731
        pool = lambda h: self._pool_context(h, mask, weights)  # noqa: E731
        scope = get_chunked_pooling_scope()
        if scope is not None and scope.states is not None and self._has_one_state_a_pass:
            states = [self._resume(x, pool, scope.states)]
        else:
            gates, h, c = self.first_step(x, pooled_kernel, pool, drop)
            # Every iteration has to meet its own pooling when those are computed in chunks.
            in_chunks = scope is not None
            beside = None
            if not in_chunks and self._multiplies_anew(x):
                gates = None
                beside, recurrent_kernel = self._beside(x, recurrent_kernel)
            states = loop_ops.iterate(
                step,
                (h, c),
                self.iterations - 1,
                constants=(gates, beside, recurrent_kernel, pooled_kernel, mask, weights, keep),
                unroll=True if in_chunks else self.unroll,
                remat=self.remat and not in_chunks,
                return_all=bool(self.return_iterations),
            )
        if self.return_iterations == "outputs":
            every = [set_ops.apply_mask(self.project(*state), mask) for state in states]
            return ops.stack(every, axis=1)
        outputs = set_ops.apply_mask(self.project(*states[-1]), mask)
        if not self.return_iterations:
            return outputs
        every_h, every_c = (
            ops.stack([set_ops.apply_mask(s, mask) for s in sequence], axis=1)
            for sequence in zip(*states, strict=True)
        )
        return outputs, every_h, every_c

    @property
    def _has_one_state_a_pass(self):
        """Whether, computed in chunks, a pass goes one iteration further than the one before."""
        causal = getattr(self.pooling, "symmetry", None) == "causal"
        return self.context == "swarm" and not causal and not self.return_iterations

    def _resume(self, x, pool, memory):
        """The last states, from those that a pass before has left."""
        kernels = self.kernels()
        known = memory.restore()
        if known is None:
            gates, h, c = self.first_step(x, kernels[1], pool)
            done = 1
        else:
            gates, (done, h, c) = self._project_inputs(x), known
        while done < self.iterations:
            memory.keep(done, h, c)
            h, c = self.step(h, c, gates, *kernels, pool)
            done += 1
        memory.keep(done, h, c)
        return h, c

    # The recurrence, which the streaming cell shares.

    def kernels(self) -> tuple[Tensor, ...]:
        """`(recurrent_kernel, pooled_kernel)` in the compute dtype."""
        kernels = self.cell.recurrent_kernel, self.cell.pooled_kernel
        return tuple(self.in_compute_dtype(kernel) for kernel in kernels)

    def first_step(
        self,
        x: Tensor,
        pooled_kernel: Tensor,
        pool: Callable[[Tensor], Tensor],
        drop: Callable[[Tensor], Tensor] = lambda h: h,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`(gates, h, c)`: the part of the gates that iterations share, and the first states."""
        gates = self._project_inputs(x)
        h, c = self.cell.update(gates)
        h = drop(h)
        if self.context == "static" and self.iterations > 1:
            gates = gates + linear_ops.linear(pool(h), pooled_kernel)
        return gates, h, c

    def _multiplies_anew(self, x):
        """Whether narrow inputs are multiplied in every iteration, in one product with h.

        In a loop on a processor that takes less time than to read their part of the gates, and
        to sum its gradients over the iterations.
        """
        narrow = 16 * (x.shape[-1] + 1) <= self.hidden_units and self.context != "static"
        return narrow and loop_ops.prefers_loop(x) and not loop_ops.jax_on_accelerator()

    def _beside(self, x, recurrent_kernel):
        """What h is multiplied with beside itself, and the kernel of both."""
        x = ops.cast(x, self.compute_dtype)
        kernels = [recurrent_kernel, self.in_compute_dtype(self.cell.kernel)]
        if self.cell.bias is not None:
            x = ops.concatenate([x, ops.ones_like(x[..., :1])], axis=-1)
            kernels.append(ops.expand_dims(self.in_compute_dtype(self.cell.bias), 0))
        return x, ops.concatenate(kernels, axis=0)

    def _project_inputs(self, x):
        return ops.cast(self.cell.project_inputs(x), self.compute_dtype)

    def step(
        self,
        h: Tensor,
        c: Tensor,
        gates: Tensor | None,
        recurrent_kernel: Tensor,
        pooled_kernel: Tensor,
        pool: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """`h, c = cell(x, [h, c], pooled=pool(h))`, an iteration after the first.

        `gates` is None where the inputs stand beside h already.
        """
        # First: in chunks, a computation may end there.
        pooled = None if self.context == "static" else pool(h)
        total = linear_ops.linear(h, recurrent_kernel)
        gates = total if gates is None else linear_ops.add_in_place(total, gates)
        if pooled is not None:
            gates = linear_ops.add_in_place(gates, linear_ops.linear(pooled, pooled_kernel))
        return loop_ops.remat_in_loop(self.cell.update, gates, c)

    def project(self, h: Tensor, c: Tensor) -> Tensor:
        """`projection(concatenate([h, c]))`."""
        y = self.projection(ops.concatenate([h, c], axis=-1))
        return ops.cast(y, self.compute_dtype)

    def _pool_context(self, h, mask, weights):
        if self.context == "self":
            return self._pool_alone(h)
        return self._pool(h, mask, weights)

    def _dropout_masks(self, x):
        """Factors for h of every iteration, `(batch, iterations, 1, ..., hidden_units)`.

        They are drawn before the loop, because randomness inside a traced loop leaks.
        """
        ones = (1,) * (len(x.shape) - 2)
        shape = (self.iterations, ops.shape(x)[0], *ones, self.hidden_units)
        factors = ops.ones(shape, dtype=self.compute_dtype)
        factors = keras.random.dropout(factors, self.dropout, seed=self.seed_generator)
        return ops.swapaxes(factors, 0, 1)

    @staticmethod
    def _drop(h, keep, index):
        return h if keep is None else h * ops.take(keep, index, axis=1)

    def streaming_cell(self) -> SwarmStreamingCell:
        """An RNN cell that shares this layer's weights and sees one entity at a time.

        For causal pooling only. `keras.layers.RNN(swarm.streaming_cell(),
        return_sequences=True)(x)` equals `swarm(x)`, at a cost and memory per new entity
        that do not grow with the entities before it. See
        `keras_sets.layers.SwarmStreamingCell`.
        """
        return SwarmStreamingCell(self)

    def compute_output_shape(self, input_shape: Shape) -> Shape | tuple[Shape, ...]:
        outputs = (*input_shape[:-1], self.units)
        if not self.return_iterations:
            return outputs
        if self.return_iterations == "outputs":
            return (input_shape[0], self.iterations, *input_shape[1:-1], self.units)
        states = (input_shape[0], self.iterations, *input_shape[1:-1], self.hidden_units)
        return outputs, states, states

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        mask = super().compute_mask(inputs, previous_mask)
        if self.return_iterations == "outputs":
            return None
        return (mask, None, None) if self.return_iterations else mask

    def get_config(self) -> Config:
        cell = self.cell.get_config()
        own = ("name", "trainable", "dtype", "units", "pooled_units")
        projection = self.projection.get_config()
        return {
            **{key: value for key, value in cell.items() if key not in own},
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
            "iterations": self.iterations,
            "context": self.context,
            "output_activation": projection["activation"],
            "dropout": self.dropout,
            "return_iterations": self.return_iterations,
            "unroll": self.unroll,
            "remat": self.remat,
            "seed": self.seed,
            "projection_initializer": keras.initializers.serialize(self.projection_initializer),
            "projection_regularizer": projection["kernel_regularizer"],
        }


class _Projection(keras.layers.Dense):
    """`keras.layers.Dense`, whose own product rounds float64 to float32 on torch."""

    in_compute_dtype = SetLayer.in_compute_dtype

    def call(self, inputs, training=None):
        y = linear_ops.linear(inputs, self.in_compute_dtype(self.kernel))
        if self.bias is not None:
            y = y + self.in_compute_dtype(self.bias)
        return y if self.activation is None else self.activation(y)
