from typing import Any

import keras

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
from keras_sets.layers.part_options import build_part
from keras_sets.layers.pooled_context import PooledContext
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import linear as linear_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class PermutationEquivariantDense(WeightOptions, PooledContext, SetLayer):
    """Densely connected layer that is equivariant to the order of the entities.

    `y_i = activation(x_i @ kernel + pool_j(x_j) @ pooled_kernel + bias)`, the most general
    linear map of a set to a set of the same size, up to the choice of the pooling. Its
    number of weights does not depend on the size of the set.

    Args:
        units: Positive integer, width of the output.
        activation: Activation function. None is the identity.
        use_bias: Whether to add a bias.
        pooling: `"mean"`, `"sum"`, `"max"`, `"logsumexp"`, `"causal_mean"`, or a pooling
            layer or callable.
        kernel_initializer, pooled_initializer, bias_initializer: Initializers.
        kernel_regularizer, pooled_regularizer, bias_regularizer: Regularizers.
        activity_regularizer: Regularizer of the output.
        kernel_constraint, pooled_constraint, bias_constraint: Constraints.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        `(batch, *entities, units)`.

    Masking:
        Masked entities change no output but their own, which is 0. The mask is passed on.

    Symmetry:
        Equivariant to permutations of the entities; causal with a causal pooling.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.PermutationEquivariantDense(4)
    >>> layer(np.ones((1, 512, 2))).shape == (1, 512, 4)
    True
    >>> layer.count_params()
    20

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), equation 4;
        Gecia Bravo-Hermsdorff and Lee M. Gunderson, Permutation-equivariant neural
        networks for power spectrum estimation, equation 3.
    """

    def __init__(
        self,
        units: int,
        activation: Activation = None,
        use_bias: bool = True,
        pooling: PoolingLike = "mean",
        kernel_initializer: Initializer = "glorot_uniform",
        pooled_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        pooled_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        activity_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        pooled_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.use_bias = validation.boolean("use_bias", use_bias)
        self._set_pooling(pooling)
        self._set_weight_options(
            kernel_initializer=kernel_initializer,
            pooled_initializer=pooled_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            pooled_regularizer=pooled_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            pooled_constraint=pooled_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        build_part(self.pooling, input_shape)
        pooled = self._pooled_features(features)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.pooled_kernel = self.add_weight(
            name="pooled_kernel",
            shape=(pooled, self.units),
            initializer=own_seed(self.pooled_initializer, "pooled_kernel"),
            regularizer=self.pooled_regularizer,
            constraint=self.pooled_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=own_seed(self.bias_initializer, "bias"),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: features})
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        pooled = self._pool(x, mask, weights)
        y = linear_ops.linear(x, self.in_compute_dtype(self.kernel))
        y = y + linear_ops.linear(pooled, self.in_compute_dtype(self.pooled_kernel))
        if self.bias is not None:
            y = y + self.in_compute_dtype(self.bias)
        return set_ops.apply_mask(self.activation(y), mask)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
            **self._weight_options_config(),
        }
