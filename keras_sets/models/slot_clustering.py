"""Clustering by a swarm of slots."""

import keras

from keras_sets import layers
from keras_sets import validation
from keras_sets.models.inputs import STRIDE
from keras_sets.models.inputs import set_inputs


def slot_clustering(
    features: int,
    units: int = 10,
    hidden_units: int = 32,
    iterations: int = 8,
    em_steps: int = 3,
    num_starts: int = 1,
    criterion: str = "evidence",
    weighted: bool = False,
    return_iterations: bool = False,
    name: str = "slot_clustering",
) -> keras.Model:
    """A network that clusters sets: their principal axes, then a swarm of slots.

    It finds the number of clusters itself: slots that it does not need end up without
    entities. Location, unit and rotation of a set make no difference. Train it with
    `return_iterations=True` and `keras_sets.losses.MatchedCrossentropy`, which then scores the
    logits of several steps, and `num_starts=1`. For use, take the same weights without the one and
    with `num_starts=8`.

    Args:
        features: Number of coordinates of an entity.
        units: Number of slots, the largest number of clusters.
        hidden_units: Width of the state of a slot.
        iterations, em_steps, num_starts, criterion: As in `keras_sets.layers.SlotRefinement`.
        weighted: Whether the model takes weights as a third input.
        return_iterations: Whether the output is that of several steps: of the last one, and of
            every fourth one before it. By default these are the steps 3, 7 and 11. They carry no
            mask: mark padding by labels of -1 or by `sample_weight`.
        name: Name of the model.

    Returns:
        A functional `keras.Model` with logits `(batch, n, units)`, or
        `(batch, steps, n, units)`.

    Symmetry:
        Equivariant to the order of the entities; invariant to translation, rotation, reflection
        and scale.

    Example:

    >>> import keras_sets
    >>> model = keras_sets.models.slot_clustering(2)
    >>> model.count_params()
    9763

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """
    units = validation.positive_integer("units", units)
    hidden_units = validation.positive_integer("hidden_units", hidden_units)
    inputs = set_inputs(features, weighted)
    context = {"mask": inputs["mask"], "weights": inputs.get("weights")}
    x = layers.PrincipalAxes(name="principal_axes")(inputs["entities"], **context)
    logits = layers.SlotRefinement(
        units,
        hidden_units,
        iterations,
        em_steps,
        num_starts=num_starts,
        criterion=criterion,
        return_iterations=return_iterations,
        name="slots",
    )(x, **context)
    if return_iterations:
        logits = logits[:, (iterations + em_steps - 1) % STRIDE :: STRIDE]
    return keras.Model(inputs, logits, name=name)
