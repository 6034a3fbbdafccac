from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.over_sets import max_over_set
from keras_sets.layers.over_sets import mean_over_set
from keras_sets.ops import entities as entity_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class PrincipalAxes(SetLayer):
    """Describes every set in coordinates of its own.

    The set is centred, turned to its principal axes and scaled as a whole: where it lies, how
    it is turned, whether it is mirrored and in which unit it comes make no difference to what
    follows. The axes come in the order of falling variance and point to where the third
    moment is positive; the mean of their variances is 1, and shapes are kept.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        That of the inputs.

    Masking:
        Masked entities do not count and get 0. The mask is passed on.

    Symmetry:
        Equivariant to the order of the entities; invariant to rotations, reflections and
        translations of the set, to a factor of its unit and to one of the weights. Where two
        axes have one variance, or one has no third moment, the choice is a matter of
        rounding. No gradient passes through the choice of the axes.

    Precision:
        float32 by default under every global policy.

    Example:

    >>> import numpy as np, keras_sets
    >>> x = np.random.default_rng(0).exponential(size=(1, 50, 2)) * [3.0, 1.0]
    >>> turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    >>> layer = keras_sets.layers.PrincipalAxes()
    >>> bool(np.allclose(layer(x), layer(7 * x @ turn + 5), atol=1e-4))
    True

    Reference:
        [Puny et al., 2022, Frame Averaging for Invariant and Equivariant Network
        Design](https://arxiv.org/abs/2110.03336), section 3.1, for the frame of the
        principal axes.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def build(self, input_shape: Shape) -> None:
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        shape = ops.shape(x)
        x, mask, weights = entity_ops.flatten_set(x, mask, weights)
        y = set_ops.principal_axes(x, mask, weights, mean_over_set, max_over_set)
        return ops.cast(ops.reshape(y, shape), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        # Of a class without this method Keras keeps no dtype policy that is given as an object.
        return super().get_config()
