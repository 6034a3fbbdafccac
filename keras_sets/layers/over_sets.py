"""Reductions over the whole set, also where a layer sees a chunk of it.

Layers that are no poolings, but need a mean over the set on their way, take it from here.
"""

from keras_sets.layers.chunked_pooling_scope import get_chunked_pooling_scope
from keras_sets.ops import attention as attention_ops
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import pooling as pooling_ops


class _Reduction:
    """What a `ChunkedPoolingScope` needs of a pooling, from functions of `ops.pooling`."""

    def __init__(self, chunk_state, merge, finish):
        self.chunk_state = chunk_state
        self.merge = merge
        self.finish = finish

    def init(self, batch_size, features):
        return None

    def update(self, state, x, mask, weights):
        added = self.chunk_state(x, mask, weights)
        return added if state is None else self.merge(state, added)


_MEAN = _Reduction(pooling_ops.mean_state, pooling_ops.merge_means, pooling_ops.finish_mean)
_MAX = _Reduction(pooling_ops.max_state, pooling_ops.merge_maxima, pooling_ops.finish_max)
_TOTAL = _Reduction(
    lambda x, mask, weights: pooling_ops.total_state(x),
    pooling_ops.merge_sums,
    pooling_ops.finish_sum,
)


def mean_over_set(x, mask=None, weights=None, keepdims=False):
    """`keras_sets.ops.set_mean` of the whole set."""
    return _reduce(_MEAN, pooling_ops.set_mean, x, mask, weights, keepdims)


def max_over_set(x, mask=None, weights=None, keepdims=False):
    """`keras_sets.ops.set_max` of the whole set."""
    return _reduce(_MAX, pooling_ops.set_max, x, mask, weights, keepdims)


def _reduce(reduction, whole, x, mask, weights, keepdims):
    scope = get_chunked_pooling_scope()
    if scope is None:
        return whole(x, mask, weights, keepdims)
    reduced = scope.pool(reduction, x, mask, weights)
    return entity_ops.expand_over_entities(reduced, len(x.shape)) if keepdims else reduced


def attention_over_set(query, x, key, value, mask=None, weights=None, factors=None):
    """`keras_sets.ops.set_attention` of queries to the whole set.

    Args:
        query: `(batch, queries, heads, dim)`, the same for all chunks.
        x: Entities, `(batch, n, features)`.
        key, value: Functions that make keys and values of entities.
        factors: Of the attention to the entities of a whole set.
    """
    scope = get_chunked_pooling_scope()
    if scope is None:
        return attention_ops.set_attention(query, key(x), value(x), mask, weights, factors)
    reduction = _Reduction(
        lambda x, mask, weights: attention_ops.attention_state(
            query, key(x), value(x), mask, weights
        ),
        pooling_ops.merge_softmaxes,
        attention_ops.finish_attention,
    )
    return scope.pool(reduction, x, mask, weights)


def total_over_set(partial):
    """A sum over the whole set from the sum over the entities that the layer sees.

    Args:
        partial: `(batch, ...)`, linear in the entities, 0 for none.
    """
    scope = get_chunked_pooling_scope()
    return partial if scope is None else scope.pool(_TOTAL, partial, None, None)
