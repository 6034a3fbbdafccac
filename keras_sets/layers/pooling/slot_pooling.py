from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.principal_axes import PrincipalAxes
from keras_sets.layers.slot_refinement import SlotRefinement

# Log probabilities are cut here, and scaled to [-1, 1].
LEAST_LOG_PROBABILITY = -12.0


@keras.saving.register_keras_serializable(package="keras_sets")
class SlotPooling(PartOptions, Pooling):
    """Pools a set into slots, and tells every entity how well it fits each of them.

    The features are projected to a few coordinates, and a `SlotRefinement` finds clusters of
    the entities there, seen along their principal axes:

    ```
    p = softmax(slots(principal_axes(projection(x))))
    y = concatenate([p, 1 + 2 * max(log p, -12) / 12])
    ```

    With it the entities of a `Swarm` agree on clusters: its cells choose coordinates in which
    the clusters come apart, and learn where each of them belongs, at a cost linear in the
    number of entities.

    Args:
        num_slots: Positive integer, the largest number of clusters.
        coordinates: Positive integer, number of coordinates. The cost grows with its square.
        units: Positive integer, width of the state of a slot.
        iterations, em_steps, gradient_damping, scatter: As in
            `keras_sets.layers.SlotRefinement`.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        `(batch, *entities, 2 * num_slots)`.

    Masking:
        Masked entities do not count and get 0. The mask is passed on.

    Symmetry:
        Equivariant to permutations of the entities. Covariances have a prior of fixed mass, so
        that a common factor of the weights does matter, less the larger the set.

    Precision:
        The slots compute in float32 or wider.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.random.default_rng(0).normal(size=(8, 100, 2))
    >>> tuple(keras_sets.layers.SlotPooling(num_slots=4)(points).shape)
    (8, 100, 8)

    Reference:
        [Locatello et al., 2020, Object-Centric Learning with Slot
        Attention](https://arxiv.org/abs/2006.15055), algorithm 1, for the softmax over
        slots; [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400), for poolings that answer every entity.
    """

    symmetry = "equivariant"
    reduces_by_layers = True

    def __init__(
        self,
        num_slots: int = 10,
        coordinates: int = 2,
        units: int = 32,
        iterations: int = 4,
        em_steps: int = 1,
        gradient_damping: float = 0.3,
        scatter: float = 0.03,
        **kwargs: Any,
    ) -> None:
        coordinates = validation.positive_integer("coordinates", coordinates)
        super().__init__(**kwargs)
        self.coordinates = coordinates
        # Half precision is too little for differences of squares.
        dtype = self.dtype_policy if self.compute_dtype == "float64" else "float32"
        parts = {"dtype": dtype, "trainable": self.trainable}
        self.projection = keras.layers.Dense(
            coordinates, use_bias=False, name="projection", **parts
        )
        # The slots expect about one unit around 0; hidden states are anywhere.
        self.axes = PrincipalAxes(name="axes", **parts)
        self.slots = SlotRefinement(
            num_slots,
            units,
            iterations,
            em_steps,
            gradient_damping,
            scatter=scatter,
            name="slots",
            **parts,
        )

    @property
    def _parts(self):
        return self.projection, self.axes, self.slots

    def build(self, input_shape: Shape) -> None:
        self.projection.build(input_shape)
        self.axes.build((*input_shape[:-1], self.coordinates))
        self.slots.build((*input_shape[:-1], self.coordinates))
        super().build(input_shape)

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        context = {"mask": mask, "weights": weights}
        logits = self.slots(self.axes(self.projection(x), **context), **context)
        log_p = ops.log_softmax(logits, axis=-1)
        fit = 1 - 2 * ops.maximum(log_p, LEAST_LOG_PROBABILITY) / LEAST_LOG_PROBABILITY
        return set_ops.apply_mask(ops.concatenate([ops.exp(log_p), fit], axis=-1), mask)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], 2 * self.slots.num_slots)

    def get_config(self) -> Config:
        slots = self.slots
        return {
            **super().get_config(),
            "num_slots": slots.num_slots,
            "coordinates": self.coordinates,
            "units": slots.units,
            "iterations": slots.iterations,
            "em_steps": slots.em_steps,
            "gradient_damping": slots.gradient_damping,
            "scatter": slots.scatter,
        }
