import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.pooling.base import Pooling
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class CausalMeanPooling(Pooling):
    """Running mean over an entity and all entities before it.

    `y_t = sum_{i <= t} w_i x_i / sum_{i <= t} w_i` in row-major order over the entity
    axes, and 0 while no entity has been seen.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        That of the inputs: every entity has its own mean.

    Masking:
        Masked entities do not count and get 0. The mask is passed on.

    Symmetry:
        Causal: output t does not depend on entities after t. Invariant to the order of
        the entities before t.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> x = np.array([[[1.0], [3.0], [5.0]]])
    >>> means = keras_sets.layers.CausalMeanPooling()(x)
    >>> keras.ops.convert_to_numpy(means).ravel().tolist()
    [1.0, 2.0, 3.0]

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    symmetry = "causal"

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        return set_ops.set_causal_mean(x, mask, weights)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return pooling_ops.causal_mean_state(x, mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_sums(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_mean(state), self.compute_dtype)

    def scan(
        self,
        state: State,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """`(outputs, state)`: the running means of the next chunk, and the state after it."""
        x, mask, weights = self._prepare_chunk(inputs, mask, weights)
        self._check_state(state, self.chunk_state(x[:, :0], None, None))
        means, state = pooling_ops.scan_causal_mean(state, x, mask, weights)
        return ops.cast(means, self.compute_dtype), state

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)
