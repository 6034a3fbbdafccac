"""A loop over a fixed number of steps that every backend can differentiate, made fast."""

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


def loop_is_faster(x):
    """Whether steps on a tensor like `x` run fastest as one loop of the graph.

    In what JAX compiles, a loop uses its memory again in every step, where the same steps
    written out take fresh pages for each. Elsewhere, JAX's own eager mode included, it only
    costs.
    """
    if backend.backend() != "jax":
        return False
    import jax

    return isinstance(x, jax.core.Tracer)


def recompute_cheaply(function, x, *arguments):
    """`function(x, *arguments)`, of which a JAX loop keeps the arguments only.

    For arithmetic that the backward pass does again in less time than it takes to read its
    intermediate results back.
    """
    if not loop_is_faster(x):
        return function(x, *arguments)
    import jax

    return jax.checkpoint(function, prevent_cse=False)(x, *arguments)
