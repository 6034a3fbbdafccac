from typing import Any
from typing import Self

import keras
import numpy as np
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import Constraint
from keras_sets._typing import Initializer
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.groups import PermutationGroup
from keras_sets.layers.base import SetLayer
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import groups as group_ops
from keras_sets.ops import linear as linear_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class PermutationGroupDense(WeightOptions, SetLayer):
    """The most general linear layer that is equivariant to a group of permutations.

    `y_i = activation(sum_j x_j @ kernel[orbit(i, j)] + bias[orbit(i)])`, where the orbits
    are those of the group on pairs of points and on points. The symmetric group gives Deep
    Sets, the cyclic group a convolution around a circle, the trivial group a dense layer.

    Args:
        units: Positive integer, width of the output.
        group: A group of `keras_sets.groups`.
        activation: Activation function. None is the identity.
        use_bias: Whether to add a bias.
        kernel_initializer, bias_initializer: Initializers. One that scales with the size of
            the layer (Glorot, He, LeCun) scales with that of the whole matrix.
        kernel_regularizer, bias_regularizer: Regularizers.
        kernel_constraint, bias_constraint: Constraints.

    Call arguments:
        inputs: `(batch, n, features)` with `n = group.degree`.
        mask: Optional bool `(batch, n)`, True for a real point.
        weights: Optional float `(batch, n)`, at least 0. The points have places that
            cannot be repeated: a weight multiplies what a point contributes to every sum,
            its own included.

    Output shape:
        `(batch, n, units)`.

    Masking:
        A masked point counts as zeros, and its output is 0. The mask is passed on.

    Symmetry:
        Equivariant to the permutations of the group, and in general to no others.

    Attributes:
        kernel: `(orbits of pairs, features, units)`.
        bias: `(orbits of points, units)`.

    Example:

    >>> import numpy as np, keras_sets
    >>> groups = keras_sets.groups
    >>> group = groups.direct_product(groups.symmetric(5), groups.cyclic(4))
    >>> layer = keras_sets.layers.PermutationGroupDense(1, group, use_bias=False)
    >>> layer(np.ones((2, 20, 1))).shape == (2, 20, 1)
    True
    >>> layer.count_params()
    8

    Reference:
        [Ravanbakhsh et al., 2017, Equivariance Through
        Parameter-Sharing](https://arxiv.org/abs/1702.08389), theorem 1.
    """

    def __init__(
        self,
        units: int,
        group: PermutationGroup,
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        if not isinstance(group, PermutationGroup):
            raise ValueError(
                "Received an invalid value for `group`, expected a group of "
                f"`keras_sets.groups`. Received: group={group!r}"
            )
        super().__init__(**kwargs)
        self.units = units
        self.group = group
        self.activation = keras.activations.get(activation)
        self.use_bias = validation.boolean("use_bias", use_bias)
        self._set_weight_options(
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    @property
    def symmetry(self) -> str:
        """`"equivariant"` to every permutation if the group is as good as the symmetric."""
        return "equivariant" if self.group.num_pair_orbits <= 2 else "group"

    def check_arguments(
        self, inputs: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        super().check_arguments(inputs, mask, weights)
        shape = validation.shape_of(inputs)
        if len(shape) != 3 or shape[1] not in (None, self.group.degree):
            raise ValueError(
                f"Layer '{self.name}' expects `inputs` of shape `(batch, n, features)` with as "
                f"many points as its group acts on, n={self.group.degree}. Received: "
                f"inputs.shape={shape}"
            )

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.group.num_pair_orbits, features, self.units),
            initializer=self._initial_kernel,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.group.num_point_orbits, self.units),
                initializer=own_seed(self.bias_initializer, "bias"),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self._sums_first = self._sums_are_cheaper()
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: features})
        self.built = True

    def _initial_kernel(self, shape, dtype=None):
        values = self.kernel_initializer(shape, dtype=dtype)
        if isinstance(self.kernel_initializer, keras.initializers.VarianceScaling):
            # It took one number an orbit for the fans, where the matrix has n a row.
            values = values * (shape[0] / self.group.degree) ** 0.5
        return values

    def _sums_are_cheaper(self):
        """Whether to sum over the orbits and then project, by the number of products."""
        n, orbits = self.group.degree, self.group.pair_orbits
        count = self.group.num_pair_orbits
        on_diagonal = len(np.unique(orbits.diagonal())) == 1
        matrices = count - 1 - int(on_diagonal and count > 1)
        return matrices * n + count * self.units <= n * self.units or count <= 2

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        if weights is not None:
            x = ops.cast(x, weights.dtype) * ops.expand_dims(weights, -1)
        orbits = self.group.pair_orbits
        kernel = self.in_compute_dtype(self.kernel)
        if self._sums_first:
            sums = ops.cast(group_ops.orbit_sums(x, orbits), self.compute_dtype)
            sums = ops.reshape(sums, (*ops.shape(sums)[:2], sums.shape[2] * sums.shape[3]))
            y = linear_ops.linear(sums, ops.reshape(kernel, (-1, self.units)))
        else:
            y = group_ops.orbit_linear(x, kernel, orbits)
            y = ops.cast(y, self.compute_dtype)
        if self.bias is not None:
            bias = self.in_compute_dtype(self.bias)
            y = y + ops.take(bias, self.group.point_orbits, axis=0)
        return set_ops.apply_mask(self.activation(y), mask)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.group.degree, self.units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "group": keras.saving.serialize_keras_object(self.group),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self._weight_options_config(),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        if isinstance(config.get("group"), dict):
            config["group"] = keras.saving.deserialize_keras_object(config["group"])
        return super().from_config(config)
