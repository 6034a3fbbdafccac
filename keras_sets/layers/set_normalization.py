from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Constraint
from keras_sets._typing import Initializer
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.over_sets import mean_over_set
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.layers.weight_options import own_seed


@keras.saving.register_keras_serializable(package="keras_sets")
class SetNormalization(WeightOptions, SetLayer):
    """Normalises every set as a whole.

    `y_i = gamma * (x_i - mean) / sqrt(variance + epsilon) + beta`, with one mean and one
    variance for a set, over its entities and all features together. Unlike layer
    normalisation it keeps what distinguishes the entities of a set in size.

    Args:
        epsilon: Small positive number added to the variance.
        center: Whether to add `beta`, one number a feature.
        scale: Whether to multiply by `gamma`, one number a feature.
        beta_initializer, gamma_initializer: Initializers.
        beta_regularizer, gamma_regularizer: Regularizers.
        beta_constraint, gamma_constraint: Constraints.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        That of the inputs.

    Masking:
        Masked entities count neither for the mean nor for the variance and get 0. The
        mask is passed on.

    Symmetry:
        Equivariant to permutations of the entities; a common factor of the weights does
        not matter.

    Example:

    >>> import numpy as np, keras_sets
    >>> x = np.random.default_rng(0).normal(size=(2, 50, 3))
    >>> keras_sets.layers.SetNormalization()(x).shape == (2, 50, 3)
    True

    Reference:
        [Zhang et al., 2022, Set Norm and Equivariant Skip Connections: Putting the Deep in
        Deep Sets](https://arxiv.org/abs/2206.11925), section 4.1.
    """

    def __init__(
        self,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Initializer = "zeros",
        gamma_initializer: Initializer = "ones",
        beta_regularizer: Regularizer = None,
        gamma_regularizer: Regularizer = None,
        beta_constraint: Constraint = None,
        gamma_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        epsilon = validation.positive_number("epsilon", epsilon)
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.center = validation.boolean("center", center)
        self.scale = validation.boolean("scale", scale)
        self._set_weight_options(
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight(
                name="gamma",
                shape=shape,
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = self.add_weight(
                name="beta",
                shape=shape,
                initializer=own_seed(self.beta_initializer, "beta"),
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        return self.normalize(x, mask, weights, mean_over_set)

    def normalize(
        self,
        x: Tensor,
        mask: Tensor | None,
        weights: Tensor | None,
        mean_over: Callable[..., Tensor],
    ) -> Tensor:
        """The outputs, with the means that a function like `keras_sets.ops.set_mean` takes."""
        y = set_ops.set_standardize(x, mask, weights, self.epsilon, mean_over)
        if self.gamma is not None:
            y = y * ops.cast(ops.convert_to_tensor(self.gamma), y.dtype)
        if self.beta is not None:
            y = y + ops.cast(ops.convert_to_tensor(self.beta), y.dtype)
        return set_ops.apply_mask(ops.cast(y, self.compute_dtype), mask)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **self._weight_options_config(),
        }
