"""A loop over a fixed number of steps that every backend can differentiate."""

from keras import backend
from keras import ops


def static_loop(count, body, state):
    """Runs `state = body(step, *state)` for step 0..count-1 as one loop of the graph.

    `count` is a Python integer, `state` a tuple of tensors whose shapes and dtypes
    stay the same. JAX differentiates a `fori_loop` with static bounds but no
    `while_loop`; TensorFlow under XLA differentiates a `while_loop` with a maximum
    number of iterations but no `fori_loop`.
    """
    if backend.backend() == "jax":
        return ops.fori_loop(0, count, lambda step, state: tuple(body(step, *state)), state)
    step = ops.convert_to_tensor(0, "int32")
    return ops.while_loop(
        lambda step, *_: ops.less(step, count),
        lambda step, *state: (ops.add(step, 1), *body(step, *state)),
        (step, *state),
        maximum_iterations=count,
    )[1:]
