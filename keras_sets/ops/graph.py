"""Sums over the nodes of graphs, whose features sit on nodes and on pairs of nodes.

Shapes: nodes `(batch, n, features)`, edges `(batch, n, n, features)`, masks and weights of
the nodes `(batch, n)`. Sums over nodes are means over the present nodes.
"""

from keras import ops

from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import counts_of
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.entities import scale_weights
from keras_sets.ops.entities import sum_over_entities
from keras_sets.ops.pooling import set_mean


def node_shares(x, mask=None, weights=None):
    """The share of every node in a mean over the nodes, `(batch, n)`; 0 for absent nodes.

    `x` is any tensor `(batch, n, ...)` of these nodes, for its shape and dtype.
    """
    dtype = accumulation_dtype(x)
    mask, weights = multiplicities(mask, weights, dtype)
    if weights is not None:
        weights, _ = scale_weights(weights)
    one_per_node = ops.ones((*ops.shape(x)[:2], 1), dtype=dtype)
    counts = counts_of(one_per_node, mask, weights)
    return safe_ratio(counts, sum_over_entities(counts, keepdims=True))[..., 0]


def apply_edge_mask(x, mask):
    """`x` with exact zeros at the edges from and to absent nodes."""
    if mask is None:
        return x
    there = ops.logical_and(mask[:, :, None], mask[:, None, :])
    return ops.where(ops.expand_dims(there, -1), x, ops.zeros_like(x))


def nodes_of_edges(mask):
    """Which nodes have an edge, from or to them, for a mask of edges `(batch, n, n)`."""
    return ops.logical_or(ops.any(mask, axis=2), ops.any(mask, axis=1))


def _on_diagonal(x):
    """bool `(1, n, n, 1)`, True on the diagonal, for edges `x`."""
    nodes = ops.arange(ops.shape(x)[1], dtype="int32")
    return ops.expand_dims(ops.equal(nodes[:, None], nodes[None, :]), (0, 3))


def reduce_edges(x, mask=None, weights=None):
    """What a linear equivariant map can make of edges on nodes and on the whole graph.

    Returns:
        `(nodes, totals)` in the accumulation dtype. `nodes` is a list of three
        `(batch, n, features)`: the diagonal, the mean of every row and of every column;
        `totals` a list of two `(batch, features)`: the means of the diagonal and of all
        edges.
    """
    x = ops.cast(x, accumulation_dtype(x))
    mask, weights = multiplicities(mask, weights, x.dtype)
    x = apply_edge_mask(x, mask)
    batch, n, _, features = ops.shape(x)
    shares = node_shares(x, mask, weights)
    diagonal = ops.sum(ops.where(_on_diagonal(x), x, ops.zeros_like(x)), axis=2)
    rows = ops.reshape(shares[:, None, None, :] @ x, (batch, n, features))
    columns = shares[:, None, :] @ ops.reshape(x, (batch, n, n * features))
    columns = ops.reshape(columns, (batch, n, features))
    totals = [set_mean(nodes, mask, weights) for nodes in (diagonal, rows)]
    return [diagonal, rows, columns], totals


def edges_from_nodes(diagonal, rows, columns):
    """`y_ij = rows_i + columns_j`, and `+ diagonal_i` where i = j."""
    y = ops.expand_dims(rows, 2) + ops.expand_dims(columns, 1)
    diagonal = ops.expand_dims(diagonal, 2)
    return ops.where(_on_diagonal(y), y + diagonal, y)
