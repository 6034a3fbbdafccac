"""Arrays of the original implementation, and gradients on every backend."""

import contextlib
import pathlib

import keras
import numpy as np
from keras import ops

DATA = pathlib.Path(__file__).parent / "data"


@contextlib.contextmanager
def double_precision():
    """float64 for layers made and called inside; JAX has to be told."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def load_arrays(name):
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def torch_weights(arrays):
    """The entries `w:NAME` as a state dict."""
    return {key[2:]: value for key, value in arrays.items() if key.startswith("w:")}


def gradients(layer, x, loss):
    """`(dx, [dw, ...])` of the scalar `loss(x)`, as NumPy, for trainable weights."""
    variables = layer.trainable_variables
    x = ops.convert_to_tensor(x)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        grads = tape.gradient(
            value, [x, *(v.value for v in variables)], unconnected_gradients="zero"
        )
    elif backend == "jax":
        import jax

        def stateless(x, values):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                return loss(x)

        values = [v.value for v in variables]
        dx, dw = jax.jit(jax.grad(stateless, argnums=(0, 1)))(x, values)
        grads = [dx, *dw]
    else:
        import torch

        x = x.clone().requires_grad_(True)
        values = [x, *(v.value for v in variables)]
        grads = torch.autograd.grad(loss(x), values, allow_unused=True)
        grads = [
            torch.zeros_like(v) if g is None else g for v, g in zip(values, grads, strict=True)
        ]
    grads = [ops.convert_to_numpy(g) for g in grads]
    return grads[0], grads[1:]
