"""What layers do that share a pooled vector among their entities."""

import keras
from keras import ops

from keras_sets._typing import Config
from keras_sets.layers.chunked_pooling_scope import ChunkedPoolingScope
from keras_sets.layers.chunked_pooling_scope import get_chunked_pooling_scope
from keras_sets.layers.part_options import freeze_with
from keras_sets.layers.pooling.names import get_pooling
from keras_sets.layers.pooling.names import serialize_pooling
from keras_sets.ops import entities as entity_ops


def several_vectors(pooling, shape):
    """The error for a pooling whose vectors have no places among the entities."""
    return ValueError(
        "Received an invalid value for `pooling`, expected one that gives one vector a set, "
        "`(batch, features)`, or one for every entity, `(batch, *entities, features)`. Received: "
        f"pooling={pooling!r}, which gives shape {tuple(shape)}"
    )


class PooledContext:
    """Mixin of layers whose entities share what a pooling makes of them.

    The argument `pooling` is a name, a layer, or any callable `pooling(inputs, mask=None,
    weights=None)`.
    """

    dtype_policy: keras.DTypePolicy  # of the layer

    def _set_pooling(self, pooling):
        self.pooling = get_pooling(pooling, dtype=self.dtype_policy)
        freeze_with(self, self.pooling)

    @property
    def symmetry(self) -> str:
        return "causal" if getattr(self.pooling, "symmetry", None) == "causal" else "equivariant"

    def _pooled_features(self, features):
        """Width of what the pooling makes of `features` features."""
        if isinstance(self.pooling, keras.layers.Layer):
            n, shape = None, self.pooling.compute_output_shape((None, None, features))
        else:
            n, shape = 3, self.pooling(keras.KerasTensor((2, 3, features))).shape
        one_vector = tuple(shape[1:-1]) in ((), (1,))
        invariant = getattr(self.pooling, "symmetry", None) == "invariant"
        if not one_vector and (invariant or tuple(shape[1:-1]) != (n,)):
            raise several_vectors(self.pooling, shape)
        return shape[-1]

    def _pool(self, x, mask, weights):
        """The pooled vector at every entity's place, broadcastable against `x`.

        `(batch, features)` becomes `(batch, 1, ..., 1, features)`; a causal pooling's
        `(batch, *entities, features)` stays. Its dtype is that of `x`: a pooling that was made
        elsewhere has a dtype policy of its own.
        """
        scope = get_chunked_pooling_scope()
        if scope is None:
            pooled = self.pooling(x, mask=mask, weights=weights)
        else:
            pooled = scope.pool(self.pooling, x, mask, weights)
        rank = len(x.shape)
        if len(pooled.shape) == 3 < rank and pooled.shape[1] == 1:  # attention by one seed
            pooled = ops.squeeze(pooled, axis=1)
        if len(pooled.shape) == 2:
            pooled = entity_ops.expand_over_entities(pooled, rank)
        elif len(pooled.shape) != rank:  # and would be added to other sets and entities
            raise several_vectors(self.pooling, pooled.shape)
        return pooled if pooled.dtype == x.dtype else ops.cast(pooled, x.dtype)

    def _pool_alone(self, x):
        """What every entity pools to as a set of its own, `(batch, *entities, features)`."""
        with ChunkedPoolingScope(None):
            pooled = self._pool(ops.reshape(x, (-1, 1, x.shape[-1])), None, None)
        return ops.reshape(pooled, ops.shape(x)[:-1] + (pooled.shape[-1],))

    def get_config(self) -> Config:
        return {
            **super().get_config(),  # type: ignore[misc]
            "pooling": serialize_pooling(self.pooling, self.dtype_policy),
        }
