"""A loop over a fixed number of steps that every backend can differentiate, made fast."""

import math

import keras
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


def iterate(step, state, count, constants=(), unroll=None, remat=False, return_all=False):
    """The states after 0 to `count` steps `state = step(index, *state, *constants)`.

    Args:
        step: The function; `index` goes from 1 to `count`.
        state: A tuple of tensors whose shapes and dtypes stay the same.
        count: A Python integer.
        constants: Tensors that all steps share, and Nones.
        unroll: Whether the steps are written out rather than a loop of the graph. None is what
            runs fastest.
        remat: Whether only the states are kept for the backward pass.
        return_all: If False, the result holds the last state only.

    Returns:
        A list of states.
    """
    if unroll is None:
        unroll = not prefers_loop(state[0])
    if remat:
        step, constants = _rematerialised(step, constants)
    # TensorFlow's loops cannot scatter into buffers of sets without places.
    if unroll or count == 0 or 0 in state[0].shape[1:-1]:
        states = [state]
        for index in range(1, count + 1):
            # A tensor: rematerialisation takes tensors only.
            index = ops.convert_to_tensor(index, "int32") if remat else index
            states.append(tuple(step(index, *states[-1], *constants)))
        return states if return_all else states[-1:]
    if return_all:
        return [state, *_loop_of_all(step, state, count, constants)]
    body = lambda index, *state: step(index + 1, *state, *constants)  # noqa: E731
    return [tuple(static_loop(count, body, state))]


def _rematerialised(step, constants):
    """`keras.remat(step)`, which takes tensors only, and the constants as it takes them."""
    tensors = [None if t is None else ops.convert_to_tensor(t) for t in constants]
    dtypes = [None if t is None else backend.standardize_dtype(t.dtype) for t in tensors]
    # TensorFlow's rematerialisation adds zeros to its arguments: no bool among them.
    packed = [
        ops.cast(t, "int32") if dtype == "bool" else t
        for t, dtype in zip(tensors, dtypes, strict=True)
        if dtype is not None
    ]

    def unpacked(index, *arguments):
        state = arguments[: len(arguments) - len(packed)]
        rest = iter(arguments[len(state) :])
        constants = (None if dtype is None else ops.cast(next(rest), dtype) for dtype in dtypes)
        return step(index, *state, *constants)

    return keras.remat(unpacked), packed


def _loop_of_all(step, state, count, constants):
    """The states after 1 to `count` steps, from one loop that fills a buffer with them."""
    # `scatter_update` is what TensorFlow differentiates.
    buffers = [ops.zeros_like(ops.stack([s] * count, axis=0)) for s in state]

    def body(index, *carried):
        new = step(index + 1, *carried[: len(state)], *constants)
        place = ops.reshape(ops.cast(index, "int32"), (1, 1))
        filled = (
            ops.scatter_update(buffer, place, ops.expand_dims(s, 0))
            for buffer, s in zip(carried[len(state) :], new, strict=True)
        )
        return (*new, *filled)

    buffers = static_loop(count, body, (*state, *buffers))[len(state) :]
    return [tuple(buffer[i] for buffer in buffers) for i in range(count)]


def prefers_loop(x):
    """Whether steps on a tensor like `x` run fastest as one loop of the graph.

    In what JAX compiles, a loop uses its memory again in every step, where the same steps
    written out take fresh pages for each. Elsewhere, JAX's own eager mode included, it only
    costs.
    """
    if backend.backend() != "jax":
        return False
    import jax

    return isinstance(x, jax.core.Tracer)


def jax_on_accelerator():
    """Whether the backend is JAX, and computes on something else than the processor."""
    if backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() != "cpu"


def remat_in_loop(function, x, *arguments):
    """`function(x, *arguments)`, of which a JAX loop keeps the arguments only.

    For what the backward pass does again in less time than it takes to read its intermediate
    results back.
    """
    if not prefers_loop(x):
        return function(x, *arguments)
    import jax

    return jax.checkpoint(function, prevent_cse=False)(x, *arguments)


# The C library maps what is larger than 32 MiB anew for every step, and the system fills every
# page of it with zeros. A little is left for what stands beside.
KEPT_BYTES = 20 * 2**20
# Products of fewer rows are slow. Of fewer groups, each saves too little memory.
MIN_ROWS, MIN_GROUPS = 2000, 4


def sets_at_a_time(x, kept):
    """How many sets of a batch like `x` train fastest together; None is all of them.

    Args:
        x: `(batch, *entities, features)`.
        kept: How many numbers the forward pass keeps of an entity for the backward pass.
    """
    if not prefers_loop(x) or jax_on_accelerator():
        return None
    sizes = x.shape[:-1]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    import jax

    if jax.device_count() > 1:  # of which each may hold a part of the batch
        return None
    batch, entities = sizes[0], math.prod(sizes[1:])
    by_memory = KEPT_BYTES // (entities * kept * x.dtype.itemsize)
    most = max(1, by_memory, min(MIN_ROWS // entities, batch // MIN_GROUPS))
    if batch <= most:
        return None
    # Sets that only fill the last group are computed in vain.
    return min(range(most, (most - 1) // 2, -1), key=lambda size: -batch % size)


def in_groups(function, tensors, size):
    """`function(*tensors)` for `size` sets after the other, with JAX.

    The forward pass keeps nothing but `tensors`: the backward pass computes a group again before
    it goes through it. All groups use the same memory, a small one.

    Args:
        function: Of tensors whose first axis is `size`, and Nones. Gives one or more of them.
        tensors: Tensors whose first axis is the batch, the first of them no None, and Nones.
        size: At most the batch.
    """
    import jax

    batch = tensors[0].shape[0]
    filling = -batch % size

    def split(t):
        # Sets that are there: others, such as zeros, might have no gradient.
        t = jax.numpy.concatenate([t, t[:filling]]) if filling else t
        return t.reshape(-1, size, *t.shape[1:])

    parts = [None if t is None else split(t) for t in tensors]
    outputs = jax.lax.map(lambda tensors: remat_in_loop(function, *tensors), parts)
    return jax.tree.map(lambda t: t.reshape(-1, *t.shape[2:])[:batch], outputs)
