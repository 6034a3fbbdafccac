"""Attention over the entities of a set."""

from keras import backend
from keras import ops

from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.ops import compensated
from keras_sets.ops import loops
from keras_sets.ops.entities import accumulation_dtype
from keras_sets.ops.entities import largest_over
from keras_sets.ops.entities import log_weights
from keras_sets.ops.entities import lowest
from keras_sets.ops.entities import multiplicities
from keras_sets.ops.entities import safe_ratio
from keras_sets.ops.pooling import finish_mean


def set_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """Softmax attention of every query over the present entities.

    `y_t = sum_i p_ti value_i` with p the softmax over i of
    `query_t . key_i / sqrt(dim) + log w_i`: an entity of weight w counts like w copies.

    Args:
        query: `(batch, queries, heads, dim)`.
        key: `(batch, n, heads, dim)`, finite at absent entities too.
        value: `(batch, n, heads, value_dim)`, the same.
        mask: Optional bool `(batch, n)`.
        weights: Optional float `(batch, n)`, at least 0.
        factors: Optional, of a shape that broadcasts against `(batch, heads, queries, n)`. They
            multiply p, as dropout does.

    Returns:
        `(batch, queries, heads, value_dim)` in the accumulation dtype. Attention to
        nothing is 0.

    On PyTorch the kernels are those of `scaled_dot_product_attention`. Second derivatives, and
    forward mode, need `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` around the call.
    """
    if factors is None and _has_fused_kernels(query, key):
        return _fused_attention(query, key, value, mask, weights)
    _, totals, sums = _attention_sums(query, key, value, mask, weights, factors)
    return ops.transpose(safe_ratio(sums, totals), (0, 2, 1, 3))


def _has_fused_kernels(query, key):
    """Whether PyTorch has kernels that never hold the scores of all pairs."""
    if backend.backend() != "torch" or 0 in query.shape + key.shape:
        return False
    import torch

    # Files of them, such as those of ONNX, fail for sets without entities.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return not (exporting() or torch.jit.is_tracing())


def _fused_attention(query, key, value, mask, weights):
    import torch

    dtype = accumulation_dtype(query)
    mask, weights = multiplicities(mask, weights, dtype)
    query, key, value = (ops.cast(t, dtype).transpose(1, 2) for t in (query, key, value))
    added = None if weights is None else log_weights(weights)
    if mask is not None:
        if added is None:
            added = torch.zeros_like(mask, dtype=query.dtype)
        # Finite, or sets without entities would have no gradient.
        added = torch.where(mask, added, lowest(query) / 2)
    y = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if added is None else added[:, None, None, :],
    ).transpose(1, 2)
    if mask is None:
        return y
    return torch.where(mask.any(dim=1)[:, None, None, None], y, torch.zeros_like(y))


def attention_state(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> State:
    """What a chunk of the entities adds to the attention of the same queries.

    `keras_sets.ops.pooling.merge_softmaxes` merges the states.
    """
    shift, totals, sums = _attention_sums(query, key, value, mask, weights)
    return {
        "shift": shift,
        "count": compensated.exact(totals),
        "sum": compensated.exact(sums),
    }


def finish_attention(state: State) -> Tensor:
    """The attention to all entities in a state, `(batch, queries, heads, value_dim)`."""
    return ops.transpose(finish_mean(state), (0, 2, 1, 3))


def _attention_sums(query, key, value, mask, weights, factors=None):
    """`(shift, totals, sums)`: softmax sums before they are normalised.

    `totals` `(batch, heads, queries, 1)` and `sums` `(batch, heads, queries, value_dim)` are in
    units of `exp(shift)`, of the largest score. The total of nothing is 0.
    """
    dtype = accumulation_dtype(query)
    mask, weights = multiplicities(mask, weights, dtype)
    if 0 in (query.shape[1], key.shape[1]):
        batch, queries, heads, _ = ops.shape(query)
        nothing = ops.zeros((batch, heads, queries, 1), dtype=dtype)
        return nothing, nothing, ops.repeat(nothing, value.shape[-1], axis=-1)
    tensors = query, key, value, mask, weights, factors
    size = _sets_at_a_time(*tensors)
    if size is None:
        return _sums_of_sets(*tensors)
    return loops.in_groups(_sums_of_sets, tensors, size)


def _sets_at_a_time(query, key, *others):
    batch, n = key.shape[:2]
    if not (isinstance(batch, int) and isinstance(n, int)):
        return None
    if any(t is not None and tuple(t.shape[:1]) != (batch,) for t in (query, *others)):
        return None
    # The scores, and their exponentials, of a query.
    return loops.sets_at_a_time(query, 3 * n)


def _sums_of_sets(query, key, value, mask, weights, factors):
    dtype = accumulation_dtype(query)
    query = ops.transpose(ops.cast(query, dtype), (0, 2, 1, 3)) * query.shape[-1] ** -0.5
    key = ops.transpose(ops.cast(key, dtype), (0, 2, 3, 1))
    value = ops.transpose(ops.cast(value, dtype), (0, 2, 1, 3))
    scores = query @ key
    # `(batch, n)` to `(batch, heads, queries, n)`.
    if weights is not None:
        scores = scores + log_weights(weights)[:, None, None, :]
    there = None if mask is None else mask[:, None, None, :]
    if mask is not None:
        scores = ops.where(there, scores, ops.full_like(scores, lowest(scores)))
    shift = ops.stop_gradient(largest_over(scores, -1, keepdims=True))
    terms = ops.exp(scores - shift)
    # The softmax is normalised after the product with the values.
    totals = ops.sum(terms, axis=-1, keepdims=True)
    if mask is not None:
        occupied = ops.any(there, axis=-1, keepdims=True)
        totals = ops.where(occupied, totals, ops.zeros_like(totals))
    if factors is not None:
        terms = terms * ops.cast(factors, dtype)
    return shift, totals, terms @ value
