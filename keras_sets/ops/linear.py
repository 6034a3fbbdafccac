"""Matrix products and gate arithmetic shared by the layers."""

import functools

from keras import backend
from keras import distribution
from keras import ops

from keras_sets.ops import loops as loop_ops


def linear(x, kernel):
    """`x @ kernel` for `(..., features)` by `(features, units)`.

    All leading axes are merged first: one large product is what every backend runs
    fastest, forward and backward. (`@` rather than `ops.matmul`, which rounds float64 to
    float32 on torch.)
    """
    if len(x.shape) <= 2 or _entities_may_be_sharded():
        return x @ kernel
    shape = ops.shape(x)[:-1] + (kernel.shape[1],)
    if backend.backend() == "torch":  # where Keras takes longer to look at a shape than to use it
        return (x.reshape(-1, kernel.shape[0]) @ kernel).reshape(shape)
    return ops.reshape(ops.reshape(x, (-1, kernel.shape[0])) @ kernel, shape)


def _entities_may_be_sharded():
    """Merged with the batch, a sharded set axis would be gathered on every device."""
    current = distribution.distribution()
    return current is not None and not isinstance(current, distribution.DataParallel)


def add_in_place(total, x):
    """`total + x` for a fresh `total` of the result's shape, in its memory where that helps.

    On torch it does, except in training: there a sum in place of a view is recorded as copies.
    """
    if backend.backend() == "torch" and not total.requires_grad:
        return total.add_(x)
    return total + x


def lstm_update(gates, cell_state, activation, recurrent_activation):
    """New `(h, c)` from the four pre-activations `(..., 4 * units)` in order i, f, c, o.

    `cell_state=None` is the zero state, whose forget gate has nothing to keep.
    """
    i, f, g, o = ops.split(gates, 4, axis=-1)
    c = recurrent_activation(i) * activation(g)
    if cell_state is not None:
        c = recurrent_activation(f) * cell_state + c
    return recurrent_activation(o) * activation(c), c


def take_rows(table, indices):
    """`table[indices]` of a `(rows, units)` table, whose gradient half precision does not slow.

    Many places that name one row add to it one after the other. Accelerators take long for that
    in 16 bits: on JAX the gradient is a product with 0 and 1 there, summed in float32.
    """
    narrow = backend.standardize_dtype(table.dtype) in ("float16", "bfloat16")
    if not narrow or not loop_ops.jax_on_accelerator():
        return ops.take(table, indices, axis=0)
    return _take_rows_on_accelerators()(table, indices)


@functools.cache
def _take_rows_on_accelerators():
    import jax

    @jax.custom_vjp
    def take(table, indices):
        return ops.take(table, indices, axis=0)

    def forward(table, indices):
        # An empty slice tells the number of rows, and the dtype.
        return take(table, indices), (indices, table[:, :0])

    def backward(kept, gradient):
        indices, rows = kept
        which = jax.nn.one_hot(indices.reshape(-1), rows.shape[0], dtype=gradient.dtype)
        gradient = gradient.reshape(-1, gradient.shape[-1])
        total = jax.numpy.matmul(which.T, gradient, preferred_element_type="float32")
        return total.astype(rows.dtype), None

    take.defvjp(forward, backward)
    return take
