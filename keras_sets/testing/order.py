"""Order: what permutations of the entities change, and what comes after an entity."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_sets._typing import Tensor
from keras_sets.groups import PermutationGroup
from keras_sets.testing.check import Check
from keras_sets.testing.check import Drawn
from keras_sets.testing.check import number
from keras_sets.testing.check import where
from keras_sets.testing.gradients import largest


def assert_permutation_equivariant(
    layer: Callable[..., Any],
    inputs: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    training: bool | None = None,
    num_entity_axes: int | None = None,
    permutations: int = 3,
    group: PermutationGroup | None = None,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Checks `f(P x) = P f(x)`: permuting the entities permutes the outputs.

    The permutations are exchanges of neighbours, the reversal, and random ones that differ
    from set to set. Several entity axes are permuted as one, in row-major order.

    Args:
        permutations: Number of random permutations.
        group: A group of `keras_sets.groups` on the entities: only its permutations are tried,
            which are its generators and random products of these. None is all permutations.

    The other arguments are those of all checks, see `keras_sets.testing`.
    """
    check = Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    _check_permutations(check, permutations, seed, group, equivariant=True)


def assert_permutation_invariant(
    layer: Callable[..., Any],
    inputs: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    training: bool | None = None,
    num_entity_axes: int | None = None,
    permutations: int = 3,
    group: PermutationGroup | None = None,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Checks `f(P x) = f(x)`: permuting the entities changes no output.

    The arguments are those of `assert_permutation_equivariant`.
    """
    check = Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    _check_permutations(check, permutations, seed, group, equivariant=False)


def assert_causal(
    layer: Callable[..., Any],
    inputs: Tensor,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    training: bool | None = None,
    num_entity_axes: int | None = None,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Checks that output t depends on no entity after t, in row-major order.

    The entities after t are replaced, with their mask and weights where these are given;
    outputs up to t must stay. The gradient of output t towards later entities must be 0.
    Every set has a t of its own, in three to eight calls: the ends, the middle, and random
    ones. Larger batches try more of them, all where eight calls are enough.

    The arguments are those of all checks, see `keras_sets.testing`.
    """
    check = Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    rng = np.random.default_rng(seed)
    reference = check.evaluate(check.arguments)
    check.require_entities(reference, "not causal")
    entities = np.arange(check.size)
    for places in _places(check.batch, check.size, rng):
        later = entities > places[:, None]
        if gradients:
            at_place = entities == places[:, None]
            cotangents = [
                where(at_place, check.flat(rng.normal(size=o.shape)), 0.0).reshape(o.shape)
                for o in reference.outputs
            ]
            towards = check.evaluate(check.arguments, cotangents).inputs_gradient
            # Integers have no gradient.
            for index, gradient in enumerate([] if towards is None else check.flat(towards)):
                check.compare(
                    f"not causal: in set {index}, gradient of output {places[index]} towards later "
                    "entities",
                    where(later[index], gradient[None], 0.0)[0],
                    np.zeros_like(gradient),
                    scale=largest(towards),
                )
        changed = check.evaluate(_replaced(check, later, rng))
        for index, (new, old) in enumerate(zip(changed.outputs, reference.outputs, strict=True)):
            new, old = (check.flat(array) for array in (new, old))
            scale = largest(old)
            for batch_index, place in enumerate(places):
                check.compare(
                    f"not causal: in set {batch_index}, outputs{number(index, reference)} up to "
                    f"entity {place}, when later entities change",
                    new[batch_index, : place + 1],
                    old[batch_index, : place + 1],
                    scale=scale,
                )


def _places(batch, size, rng):
    """Entities t, one for each set, `(batch,)`, of a few calls: the ends, the middle, others."""
    first = list(dict.fromkeys([0, max(size - 2, 0), (size - 1) // 2]))
    others = np.setdiff1d(np.arange(size - 1), first)
    order = np.concatenate([first, rng.permutation(others)]).astype(int)
    calls = min(max(3, math.ceil(len(order) / batch)), 8, len(order))
    for call in range(calls):
        yield order[(call + calls * np.arange(batch)) % len(order)]


def _check_permutations(check, count, seed, group, equivariant):
    rng = np.random.default_rng(seed)
    symmetry = "not permutation " + ("equivariant" if equivariant else "invariant")

    def permuted(array, order):
        if array is None:
            return None
        flat = check.flat(array)
        index = np.reshape(order, (*order.shape, *(1,) * (flat.ndim - 2)))
        return np.reshape(np.take_along_axis(flat, index, axis=1), array.shape)

    cotangents = Drawn(rng)
    reference = check.evaluate(check.arguments, cotangents)
    if equivariant:
        check.require_entities(reference, symmetry)
    for name, order in _permutations(check.batch, check.size, count, group, rng):
        arguments = tuple(permuted(argument, order) for argument in check.arguments)
        moved = cotangents.arrays
        if equivariant:
            moved = [permuted(v, order) for v in moved]
        result = check.evaluate(arguments, moved)
        for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
            expected = permuted(old, order) if equivariant else old
            what = f"{symmetry}: outputs{number(index, reference)} under {name}"
            check.compare(what, new, expected)
        if result.inputs_gradient is not None:
            check.compare(
                f"{symmetry}: gradient towards the inputs under {name}",
                result.inputs_gradient,
                permuted(reference.inputs_gradient, order),
                scale=reference.gradient_scale,
            )
        check.compare_weight_gradients(f"{symmetry}: under {name}, ", result, reference)


def _permutations(batch, size, count, group, rng):
    """Permutations `(batch, size)` with a name each: neighbours, reversal, random."""
    identity = np.tile(np.arange(size), (batch, 1))
    if group is not None:
        yield from _permutations_of(group, identity, count, rng)
        return
    for place in sorted({0, max(size - 2, 0)}):
        exchanged = identity.copy()
        exchanged[:, place : place + 2] = exchanged[:, place : place + 2][:, ::-1]
        yield f"exchange of entities {place} and {place + 1}", exchanged
    yield "reversed order", identity[:, ::-1]
    for _ in range(count):
        yield "random order", rng.permuted(identity, axis=1)


def _permutations_of(group, identity, count, rng):
    batch, size = identity.shape
    if group.degree != size:
        raise ValueError(
            f"`group` acts on {group.degree} entities, expected the {size} of `inputs`. "
            f"Received: group={group!r}"
        )
    for index, generator in enumerate(group.generators):
        yield f"generator {index} of the group", identity[:, list(generator)]
    # So many factors leave no part of a small group out.
    factors = 2 * size * bool(len(group.generators))
    for _ in range(count):
        order = identity
        for _ in range(factors):
            chosen = np.array(group.generators)[rng.integers(len(group.generators), size=batch)]
            order = np.take_along_axis(order, chosen, axis=1)
        yield "a random permutation of the group", order


def _replaced(check, later, rng):
    """The arguments with other content at the entities of `later`."""
    x, mask, weights = check.arguments

    def replace(array, other):
        if array is None:
            return None
        return where(later, check.flat(other), check.flat(array)).reshape(array.shape)

    if np.issubdtype(x.dtype, np.floating):
        other = (10.0 * rng.normal(size=x.shape)).astype(x.dtype)
    else:
        other = rng.permuted(x.reshape(-1)).reshape(x.shape)
    return (
        replace(x, other),
        replace(mask, rng.random((check.batch, *check.entities)) < 0.5),
        replace(weights, 3 * rng.random((check.batch, *check.entities))),
    )
