from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class PoolingMaps(Pooling):
    """Pools a set under several learned maps and deals the results out by gates.

    The features split into values v, `num_maps` keys k and `num_maps` gates g:

    ```
    map[s, j] = softmax over entities j of k[j, s] + log w[j]
    y[e] = sum_s g[e, s] * sum_j map[s, j] * v[j]
    ```

    It is attention with `num_maps` queries for the whole set: every entity chooses its own
    mixture of a few summaries, at a cost linear in the number of entities.

    Args:
        num_maps: Positive integer, how many maps there are.

    Call arguments:
        inputs: `(batch, *entities, features)` with more than `2 * num_maps` features.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        `(batch, *entities, features - 2 * num_maps)`: every entity has its own mixture.

    Masking:
        Masked entities do not count and get 0. The mask is passed on.

    Symmetry:
        Equivariant to permutations of the entities.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.PoolingMaps(num_maps=4)(np.ones((2, 5, 15))).shape == (2, 5, 7)
    True

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    symmetry = "equivariant"

    def __init__(self, num_maps: int = 4, **kwargs: Any) -> None:
        num_maps = validation.positive_integer("num_maps", num_maps)
        super().__init__(**kwargs)
        self.num_maps = num_maps

    def build(self, input_shape: Shape) -> None:
        self._check_features(input_shape)
        super().build(input_shape)

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        return set_ops.set_pooling_maps(x, self.num_maps, mask, weights)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return pooling_ops.pooling_maps_state(x, self.num_maps, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_softmaxes(a, b)

    def finish(self, state: State) -> Tensor:
        return pooling_ops.finish_mean(state)

    def read(
        self,
        finished: State,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        x, mask, _ = self._prepare_chunk(inputs, mask, weights)
        pooled = pooling_ops.mix_by_gates(finished, x, self.num_maps, mask)
        return ops.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._check_features(input_shape)
        return (*input_shape[:-1], input_shape[-1] - 2 * self.num_maps)

    def _check_features(self, input_shape):
        if input_shape[-1] <= 2 * self.num_maps:
            raise ValueError(
                f"PoolingMaps splits the features of its inputs into values, {self.num_maps} "
                f"keys and {self.num_maps} gates: with num_maps={self.num_maps} it expects "
                f"more than {2 * self.num_maps} features. Received: {input_shape[-1]} features "
                f"(input shape {tuple(input_shape)})"
            )

    def get_config(self) -> Config:
        return {**super().get_config(), "num_maps": self.num_maps}
