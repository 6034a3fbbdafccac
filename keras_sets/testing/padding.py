"""Padding: masked entities change nothing, whatever they hold."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_sets import validation
from keras_sets._typing import Tensor
from keras_sets.testing.check import Check
from keras_sets.testing.check import fitting
from keras_sets.testing.check import number


def assert_padding_invariant(
    layer: Callable[..., Any],
    inputs: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    training: bool | None = None,
    num_entity_axes: int | None = None,
    padding: int = 3,
    zero_outputs: bool = True,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Checks that masked entities change nothing, whatever they hold.

    Every entity axis grows by `padding` at its end. The new places, and those that `mask` leaves
    out, hold large numbers, then NaN and infinities. Outputs and gradients of the real entities
    must stay, gradients towards the padding must be 0, and so must outputs at padded places.
    Give a `mask` that leaves out entities in between, if the layer should bear those.

    Args:
        layer: It is called with a `mask`, whether one is given or not.
        padding: By how much every entity axis grows; 0 for a layer on sets of a fixed size.
        zero_outputs: Whether outputs at padded places have to be 0.

    The other arguments are those of all checks, see `keras_sets.testing`.
    """
    zero_outputs = validation.boolean("zero_outputs", zero_outputs)
    check = Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    rng = np.random.default_rng(seed)
    axes = check.entities
    padded = tuple(size + padding for size in axes)
    corner = (slice(None), *(slice(size) for size in axes))
    x, mask, weights = check.arguments
    real = np.zeros((check.batch, *padded), bool)
    real[corner] = True if mask is None else mask

    def surround(array, content):
        """The array where it is real, and other content elsewhere."""
        filling = _garbage((*real.shape, *array.shape[real.ndim :]), array, content, rng)
        filling[real] = array[real[corner]]
        return filling

    def pair(shape_of_output):
        """A cotangent of a real output, and of the padded one."""
        cotangent = rng.normal(size=shape_of_output)
        if shape_of_output[1 : 1 + len(axes)] != axes:
            return cotangent, cotangent
        # Outputs at padded places are the constant 0, so that any cotangent will do there.
        beyond = rng.normal(size=(*real.shape, *shape_of_output[1 + len(axes) :]))
        if not zero_outputs:
            beyond[~real] = 0.0
            cotangent[~real[corner]] = 0.0
        beyond[corner] = cotangent
        return cotangent, beyond

    pairs = []

    def draw(shapes):
        pairs.extend(pair(shape) for shape in shapes)
        return [cotangent for cotangent, _ in pairs]

    fit = functools.partial(fitting, pairs)
    reference = check.evaluate(check.arguments, draw)
    for content in ("large numbers", "NaN and infinities"):
        new_weights = None if weights is None else surround(weights, content)
        result = check.evaluate((surround(x, content), real, new_weights), fit)
        broken = f"not padding invariant: with {content} in the padding, "
        for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
            outputs = f"outputs{number(index, reference)}"
            if old.shape[1 : 1 + len(axes)] == axes and new.shape[1 : 1 + len(axes)] == padded:
                if zero_outputs:
                    check.compare(
                        f"{broken}{outputs} at padded places (expected 0)",
                        new[~real],
                        0.0 * new[~real],
                        scale=0.0,
                        exact=True,
                    )
                new, old = new[real], old[real[corner]]
            check.compare(broken + outputs, new, old)
        if result.inputs_gradient is not None:
            beyond = result.inputs_gradient[~real]
            check.compare(
                f"{broken}gradient towards the padding (expected 0)",
                beyond,
                np.zeros_like(beyond),
                exact=True,
            )
            check.compare(
                f"{broken}gradient towards the real entities",
                result.inputs_gradient[corner],
                reference.inputs_gradient,
                scale=reference.gradient_scale,
            )
        check.compare_weight_gradients(broken, result, reference)


def _garbage(shape, like, content, rng):
    """What padding may hold: anything of the dtype of `like`."""
    if not np.issubdtype(like.dtype, np.floating):
        # Integers are mostly indices: any that occurs.
        values = like.reshape(-1) if like.size else np.zeros(1, like.dtype)
        return rng.choice(values, size=shape).astype(like.dtype)
    if content == "large numbers":
        return (100.0 + 100.0 * rng.random(shape)).astype(like.dtype)
    cycle = np.array([np.nan, np.inf, -np.inf])
    return np.resize(cycle, math.prod(shape)).reshape(shape).astype(like.dtype)
