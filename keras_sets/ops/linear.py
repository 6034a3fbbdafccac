"""Matrix products and gate arithmetic shared by the layers."""

from keras import backend
from keras import distribution
from keras import ops


def linear(x, kernel):
    """`x @ kernel` for `(..., features)` by `(features, units)`.

    All leading axes are merged first: one large product is what every backend runs
    fastest, forward and backward. (`@` rather than `ops.matmul`, which rounds float64 to
    float32 on torch.)
    """
    if len(x.shape) <= 2 or _entities_may_be_sharded():
        return x @ kernel
    shape = ops.shape(x)
    flat = ops.reshape(x, (-1, kernel.shape[0])) @ kernel
    return ops.reshape(flat, shape[:-1] + (kernel.shape[1],))


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
