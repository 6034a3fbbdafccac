"""What all poolings have in common."""

from typing import Any

import keras
from keras import ops

from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.chunked_pooling_scope import get_chunked_pooling_scope
from keras_sets.layers.part_options import build_part
from keras_sets.ops import entities as entity_ops


class Pooling(SetLayer):
    """Base class of poolings over all entity axes.

    A subclass implements `pool(x, mask, weights, keepdims)` with a function of
    `keras_sets.ops`, or `chunk_state`, `merge` and `finish`, of which `pool` is made. See
    `MeanPooling` for the arguments that all poolings share.

    A set that is larger than memory, or spread over machines, is pooled chunk by chunk:

    ```
    state = pooling.init(batch_size, features)
    for inputs, mask, weights in chunks:
        state = pooling.update(state, inputs, mask, weights)
    pooled = pooling.finish(state)
    ```

    - `init(batch_size, features)`: the state of sets without entities.
    - `update(state, inputs, mask=None, weights=None)`: the state with a chunk added.
    - `merge(a, b)`: the state of two disjoint parts of the same sets together. It is
      commutative and associative up to rounding.
    - `finish(state)`: what the whole has in common, `(batch, features)`; for `PoolingMaps`
      the summaries `(batch, num_maps, values)`, for `CausalMeanPooling` the mean so far.
    - `read(finished, inputs, mask=None, weights=None)`: what the call gives at the places of a
      chunk when the whole set is known: `pooling(whole)` is `read` of its chunks, one after
      the other.
    - `scan(state, inputs, mask=None, weights=None)`, causal poolings only: the outputs for
      the next chunk, and the state after it. They need no second pass.

    States are dicts of float32 (or float64) tensors under every dtype policy. Sums keep
    their rounding errors, softmax-like ones a shift, so that neither the number of chunks
    nor their sizes matter. A subclass implements `chunk_state`, `merge` and `finish`.
    """

    symmetry = "invariant"
    # Whether `pool` reduces the set by layers that know of chunks themselves.
    reduces_by_layers = False

    def __init__(self, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keepdims = validation.boolean("keepdims", keepdims)
        if self.keepdims and self.symmetry != "invariant":
            raise ValueError(
                f"{type(self).__name__} keeps the entity axes as they are: `keepdims` does not "
                f"apply. Received: keepdims={self.keepdims}"
            )

    def pool(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, keepdims: bool
    ) -> Tensor:
        """What the entities have in common, `(batch, features)`, or with axes of size 1."""
        pooled = self.finish(self.chunk_state(x, mask, weights))
        return entity_ops.expand_over_entities(pooled, len(x.shape)) if keepdims else pooled

    def build(self, input_shape: Shape) -> None:
        self.built = True

    def _set_features(self, input_shape):
        """At the end of a `build` that makes weights."""
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        scope = get_chunked_pooling_scope()
        if scope is not None:
            return scope.pool(self, x, mask, weights)
        pooled = self.pool(x, mask, weights, self.keepdims)
        return ops.cast(pooled, self.compute_dtype)

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        """The state of a chunk alone."""
        if self.reduces_by_layers:
            raise NotImplementedError(
                f"{type(self).__name__} passes over a set several times, so that no state of one "
                "pass is enough: `keras_sets.models.predict_in_chunks` computes it in chunks."
            )
        raise NotImplementedError(
            f"{type(self).__name__} cannot be computed in chunks: it needs the methods "
            "`chunk_state(x, mask, weights)`, `merge(a, b)` and `finish(state)`."
        )

    def init(self, batch_size: int, features: int) -> State:
        """The state of `batch_size` sets without entities of `features` features."""
        batch_size = validation.positive_integer("batch_size", batch_size)
        features = validation.positive_integer("features", features)
        if type(self).chunk_state is not Pooling.chunk_state:  # else it says what is missing
            build_part(self, (batch_size, None, features))
        return self.chunk_state(
            ops.zeros((batch_size, 0, features), self.compute_dtype), None, None
        )

    def update(
        self,
        state: State,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> State:
        """The state with the entities of a chunk added."""
        inputs, mask, weights = self._prepare_chunk(inputs, mask, weights)
        build_part(self, inputs.shape)
        added = self.chunk_state(inputs, mask, weights)
        self._check_state(state, added)
        return self.merge(state, added)

    def merge(self, a: State, b: State) -> State:
        """The state of two parts of the same sets together."""
        raise NotImplementedError(f"{type(self).__name__} has no method `merge(a, b)`.")

    def finish(self, state: State) -> Tensor:
        """What the entities of a state have in common."""
        raise NotImplementedError(f"{type(self).__name__} has no method `finish(state)`.")

    def read(
        self,
        finished: State,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The output of the call at the places of `inputs`, a part of a finished set."""
        return (
            entity_ops.expand_over_entities(finished, len(inputs.shape))
            if self.keepdims
            else finished
        )

    def _check_state(self, state, added):
        """Raises a ValueError unless a chunk holds the same sets as a state."""
        if not validation.compatible_states(state, added):
            raise ValueError(
                f"Layer '{self.name}' expects chunks with as many sets and features as its "
                f"`state`, whose tensors have the shapes {validation.shapes_of(state)}. Received: "
                f"a chunk with {validation.shapes_of(added)}"
            )

    def _prepare_chunk(self, inputs, mask, weights):
        self.check_arguments(inputs, mask, weights)
        return self.prepare(ops.convert_to_tensor(inputs), mask, weights)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.keepdims:
            ones = (1,) * (len(input_shape) - 2)
            return (input_shape[0], *ones, input_shape[-1])
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> Config:
        config = super().get_config()
        # Poolings that answer every entity have no such option.
        return {**config, "keepdims": self.keepdims} if self.symmetry == "invariant" else config
