from typing import Any

import keras
from keras import ops

from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import Constraint
from keras_sets._typing import Initializer
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import linear as linear_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class SwarmCell(WeightOptions, keras.layers.Layer):
    """LSTM cell with a third input: what the whole population has in common.

    ```
    z = x @ kernel + h @ recurrent_kernel + pooled @ pooled_kernel + bias
    i, f, g, o = split(z, 4)
    c = recurrent_activation(f) * c + recurrent_activation(i) * activation(g)
    h = recurrent_activation(o) * activation(c)
    ```

    Without the pooled input it is exactly `keras.layers.LSTMCell`, and
    `keras.layers.RNN(SwarmCell(units))` is an LSTM.

    Args:
        units: Positive integer, width of the hidden and of the cell state.
        activation: Activation of the cell input and of the cell state.
        recurrent_activation: Activation of the gates.
        use_bias: Whether to add a bias.
        unit_forget_bias: If True, the bias of the forget gate starts at one.
        pooled_units: Width of the pooled input. None is `units`, the width of a pooled
            hidden state.
        kernel_initializer, recurrent_initializer, pooled_initializer, bias_initializer:
            Initializers.
        kernel_regularizer, recurrent_regularizer, pooled_regularizer, bias_regularizer:
            Regularizers.
        kernel_constraint, recurrent_constraint, pooled_constraint, bias_constraint:
            Constraints.

    Call arguments:
        inputs: `(..., features)`, any leading axes.
        states: List `[h, c]`, both `(..., units)`.
        pooled: `(..., pooled_units)`, broadcastable against the leading axes of `inputs`,
            or None. Beside `(batch, n, features)` what a set shares is `(batch, 1,
            pooled_units)`, as a pooling with `keepdims=True` gives it.
        training: Unused; the signature is that of a Keras RNN cell.

    Output shape:
        `(h, [h, c])`, all `(..., units)`.

    Symmetry:
        Acts on every entity alone; `pooled` is the only thing that entities share.

    Example:

    >>> import numpy as np, keras_sets
    >>> cell = keras_sets.layers.SwarmCell(8)
    >>> x, zeros = np.ones((2, 5, 3)), np.zeros((2, 5, 8))
    >>> h, states = cell(x, [zeros, zeros], pooled=np.zeros((2, 1, 8)))
    >>> h.shape == (2, 5, 8)
    True

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    def __init__(
        self,
        units: int,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        unit_forget_bias: bool = True,
        pooled_units: int | None = None,
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
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        if pooled_units is not None:
            pooled_units = validation.positive_integer("pooled_units", pooled_units)
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.use_bias = validation.boolean("use_bias", use_bias)
        self.unit_forget_bias = validation.boolean("unit_forget_bias", unit_forget_bias)
        self.pooled_units = pooled_units
        self._set_weight_options(
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
        )
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"Layer '{self.name}' needs to know the size of the last axis of `inputs`. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        gates = 4 * self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, gates),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, gates),
            initializer=own_seed(self.recurrent_initializer, "recurrent_kernel"),
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.pooled_kernel = self.add_weight(
            name="pooled_kernel",
            shape=(self.pooled_units or self.units, gates),
            initializer=own_seed(self.pooled_initializer, "pooled_kernel"),
            regularizer=self.pooled_regularizer,
            constraint=self.pooled_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(gates,),
                initializer=self._initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(axes={-1: features})
        self.built = True

    def _initial_bias(self, shape, dtype=None):
        initializer = own_seed(self.bias_initializer, "bias")
        if not self.unit_forget_bias:
            return initializer(shape, dtype=dtype)
        rest = initializer((3 * self.units,), dtype=dtype)
        ones = ops.ones((self.units,), dtype=dtype)
        return ops.concatenate([rest[: self.units], ones, rest[self.units :]])

    def project_inputs(self, inputs: Tensor) -> Tensor:
        """`inputs @ kernel + bias`: the part of the gates that iterations share."""
        inputs = ops.cast(inputs, self.compute_dtype)
        gates = linear_ops.linear(inputs, self.in_compute_dtype(self.kernel))
        if self.bias is None:
            return gates
        return linear_ops.add_in_place(gates, self.in_compute_dtype(self.bias))

    def update(self, gates: Tensor, cell_state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(h, c)` from the four pre-activations and the cell state (None is zero)."""
        return linear_ops.lstm_update(gates, cell_state, self.activation, self.recurrent_activation)

    # Not a layer on sets, but with weights like theirs.
    in_compute_dtype = SetLayer.in_compute_dtype

    def call(
        self,
        inputs: Tensor,
        states: list[Tensor],
        pooled: Tensor | None = None,
        training: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        h, c = states
        gates = self.project_inputs(inputs)
        gates = gates + linear_ops.linear(h, self.in_compute_dtype(self.recurrent_kernel))
        if pooled is not None:
            self._check_pooled(pooled, inputs)
            gates = gates + linear_ops.linear(pooled, self.in_compute_dtype(self.pooled_kernel))
        h, c = self.update(gates, c)
        return h, [h, c]

    def _check_pooled(self, pooled, inputs):
        width, shape = self.pooled_kernel.shape[0], tuple(pooled.shape)
        # What a pooling gives, `(batch, units)`, would be that of an entity where sizes are equal.
        if not shape or shape[-1] not in (None, width) or 1 < len(shape) < len(inputs.shape):
            raise ValueError(
                f"Layer '{self.name}' expects `pooled` of shape (..., {width}) with as many axes "
                "as `inputs`, such as (batch, 1, pooled_units) beside (batch, n, features). "
                f"Received: pooled.shape={shape}, inputs.shape={tuple(inputs.shape)}"
            )

    def compute_output_shape(
        self, inputs_shape: Shape, states_shape: list[Shape] | None = None
    ) -> tuple[Shape, list[Shape]]:
        state = (*inputs_shape[:-1], self.units)
        return state, [state, state]

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        return [ops.zeros((batch_size, self.units), self.compute_dtype) for _ in range(2)]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "unit_forget_bias": self.unit_forget_bias,
            "pooled_units": self.pooled_units,
            **self._weight_options_config(),
        }
