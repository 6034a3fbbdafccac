"""Multiplicity: weights say how often an entity occurs."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_sets import validation
from keras_sets._typing import Tensor
from keras_sets.testing.check import Check
from keras_sets.testing.check import Drawn
from keras_sets.testing.check import compare_results
from keras_sets.testing.check import fitting
from keras_sets.testing.check import number


def assert_multiplicity(
    layer: Callable[..., Any],
    inputs: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    training: bool | None = None,
    num_entity_axes: int | None = None,
    scale_invariant: bool = False,
    copies: str | None = None,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Checks that weights say how often an entity occurs.

    Integer weights must equal repetition of the entities, and weight 0 must equal absence,
    in outputs and gradients. Given `weights` are multiplied by the repetitions.

    Args:
        layer: It is called with `mask` and `weights`, whether they are given or not.
        scale_invariant: Whether a common factor of the weights of a set changes nothing, as
            in a mean.
        copies: Which copies of a repeated entity must have the output of the weighted one:
            `"all"`, `"last"` (causal layers: the copies before it have not seen all), or
            `"none"` (causal layers that pool more than once: repetition is not checked).
            None is `"last"` for a layer whose `symmetry` is `"causal"`, else `"all"`.

    The other arguments are those of all checks, see `keras_sets.testing`.
    """
    if copies is None:
        copies = "last" if getattr(layer, "symmetry", None) == "causal" else "all"
    if copies not in ("all", "last", "none"):
        raise ValueError(
            "Received an invalid value for `copies`, expected None, 'all', 'last' or 'none'. "
            f"Received: copies={copies!r}"
        )
    scale_invariant = validation.boolean("scale_invariant", scale_invariant)
    check = Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    rng = np.random.default_rng(seed)
    if copies != "none":
        _check_repetition(check, copies, rng)
    _check_absence(check, rng)
    if scale_invariant:
        _check_scale(check, rng)


def _check_repetition(check, copies, rng):
    x, mask, weights = check.arguments
    # Along the last entity axis, so that copies follow each other in row-major order.
    axis, size = len(check.entities), check.entities[-1]
    counts = rng.permutation(np.resize([3, 0, 2, 1], size))
    everywhere = np.ones((check.batch, *check.entities), bool)
    weighted = (
        x,
        everywhere if mask is None else mask,
        (everywhere if weights is None else weights) * counts,
    )
    source = np.repeat(np.arange(size), counts)
    repeated = tuple(None if a is None else np.take(a, source, axis) for a in (x, mask, weights))
    last = np.append(source[1:] != source[:-1], True)[: len(source)]
    compared = last if copies == "last" else np.ones_like(last)

    def select(array, index):
        return array[(*(slice(None),) * axis, index)]

    def folded(array, out):
        np.add.at(out, (*(slice(None),) * axis, source), array)
        return out

    broken = "weights are not multiplicities: integer weights against repetition, "
    pairs = []

    def draw(shapes):
        for shape in shapes:
            if check.has_entities(np.empty(shape)):
                v = rng.normal(size=(*shape[:axis], len(source), *shape[axis + 1 :]))
                v[(*(slice(None),) * axis, ~compared)] = 0.0
                pairs.append((folded(v, np.zeros(shape)), v))
            else:
                v = rng.normal(size=shape)
                pairs.append((v, v))
        return [cotangent for cotangent, _ in pairs]

    result = check.evaluate(weighted, draw)
    reference = check.evaluate(repeated, functools.partial(fitting, pairs))
    for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
        what = f"{broken}outputs{number(index, reference)}"
        if check.has_entities(new) and new.shape != old.shape:
            absent = select(new, counts == 0)
            zeros = np.zeros_like(absent)
            check.compare(f"{what} at weight 0 (expected 0)", absent, zeros, exact=True)
            new, old = select(select(new, source), compared), select(old, compared)
        check.compare(what, new, old)
    if result.inputs_gradient is not None:
        check.compare(
            f"{broken}gradient towards the inputs",
            result.inputs_gradient,
            folded(reference.inputs_gradient, np.zeros(x.shape)),
            scale=reference.gradient_scale,
        )
    check.compare_weight_gradients(broken, result, reference)


def _check_absence(check, rng):
    """Weight 0 against mask False, at places that differ from set to set."""
    x, mask, weights = check.arguments
    shape = (check.batch, *check.entities)
    real = rng.permuted(np.resize([True, False, True], shape).reshape(check.batch, -1), axis=1)
    mask = np.ones(shape, bool) if mask is None else mask
    real = real.reshape(shape) & mask
    weights = np.ones(shape) if weights is None else weights
    masked, unweighted = (x, real, weights), (x, mask, np.where(real, weights, 0.0))
    cotangents = Drawn(rng)
    compare_results(
        check,
        "weights are not multiplicities: weight 0 against mask False, ",
        check.evaluate(unweighted, cotangents),
        check.evaluate(masked, cotangents.arrays),
    )


def _check_scale(check, rng):
    x, mask, weights = check.arguments
    shape = (check.batch, *check.entities)
    mask = np.ones(shape, bool) if mask is None else mask
    weights = rng.random(shape) if weights is None else weights
    cotangents = Drawn(rng)
    reference = check.evaluate((x, mask, weights), cotangents)
    for factor in (0.3, 1000.0):
        compare_results(
            check,
            f"not invariant to a common factor of the weights ({factor}): ",
            check.evaluate((x, mask, factor * weights), cotangents.arrays),
            reference,
        )
