"""Masks that Keras loses without a word, on the way from one layer on sets to the next."""

import warnings

import keras

MERGING = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Concatenate,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Subtract,
)
# Keras' layers whose outputs depend on other entities, and that take a mask.
MIXING = (keras.layers.BatchNormalization, keras.layers.MultiHeadAttention)
# Their output has the entities of one of their inputs, which sizes do not tell.
PRODUCTS = ("Dot", "Einsum", "Matmul", "Tensordot")

# So many operations back the search goes at most: Python's stack is finite.
DEEPEST = 100
MASKED, UNKNOWN = "masked", "unknown"


def warn_of_lost_mask(layer, inputs, set_layer):
    """Warns where symbolic `inputs` depend on padding, or have lost the mask of their entities.

    Keras warns of layers that do not support masks. It says nothing where one input of an `Add`
    or `Concatenate` has a mask and another has none, nor of arithmetic on tensors, nor of
    `GroupNormalization`, which hands the mask on and does not heed it.

    Args:
        layer: The layer that takes `inputs` without another mask.
        set_layer: The class of layers that have looked at their inputs themselves.
    """
    found = _Search(set_layer).state(inputs)
    if not isinstance(found, keras.Operation):
        return
    advice = f"Pass `mask=` to '{layer.name}'."
    if isinstance(found, keras.layers.GroupNormalization):
        reason = "counts it in its means and variances"
        advice = "`keras_sets.layers.SetNormalization` leaves it out."
    elif isinstance(found, keras.layers.Concatenate):
        reason = "makes a mask that is True everywhere, because one of its inputs has no mask"
    elif isinstance(found, MERGING):
        reason = "drops the mask of its inputs, because one of them has no mask"
    else:
        reason = "drops the mask of its inputs"
    warnings.warn(
        f"Padding changes what layer '{layer.name}' gives: '{found.name}' (of type "
        f"{type(found).__name__}) {reason}. {advice}",
        stacklevel=3,
    )


def warn_of_layers_without_mask(layer, inputs, set_layer):
    """Warns where layers before one that is given a mask had none, and mixed the entities.

    Args:
        layer: The layer that takes symbolic `inputs` with an explicit mask.
        set_layer: The class of layers on sets.
    """
    found = _Search(set_layer).unmasked(inputs)
    if found is not None:
        warnings.warn(
            f"Layer '{layer.name}' is given a mask that '{found.name}' (of type "
            f"{type(found).__name__}) before it is not given: padding counts there. Pass "
            f"`mask=` to '{found.name}' as well.",
            stacklevel=3,
        )


class _Search:
    """Goes back through the graph of a functional model."""

    def __init__(self, set_layer):
        self.set_layer = set_layer
        self.known = {}
        self.depth = 0

    def state(self, tensor):
        """MASKED, None for no mask, UNKNOWN, or the operation that has lost the mask."""
        if id(tensor) not in self.known:
            if self.depth == DEEPEST:
                return UNKNOWN
            self.depth += 1
            self.known[id(tensor)] = self._state(tensor)
            self.depth -= 1
        return self.known[id(tensor)]

    def _state(self, tensor):
        masked = MASKED if getattr(tensor, "_keras_mask", None) is not None else None
        history = getattr(tensor, "_keras_history", None)
        operation = getattr(history, "operation", None)
        if operation is None or isinstance(operation, self.set_layer):
            return masked
        if isinstance(operation, keras.Model):
            return masked or UNKNOWN  # the layers inside mask their outputs when they run
        inputs = operation._inbound_nodes[history.node_index].input_tensors
        a_layer = isinstance(operation, keras.layers.Layer)
        merging = isinstance(operation, MERGING)
        if a_layer and not merging:
            inputs = inputs[:1]  # the one whose mask Keras hands on
        elif type(operation).__name__ in PRODUCTS:
            return masked
        states = [self.state(x) for x in inputs if x.shape[:-1] == tensor.shape[:-1]]
        for state in states:
            if isinstance(state, keras.Operation):
                return state
        if merging or not a_layer:
            return self._merged(operation, tensor, masked, states)
        if masked and isinstance(operation, keras.layers.GroupNormalization):
            return operation
        if masked or MASKED not in states:
            return masked or (UNKNOWN if UNKNOWN in states else None)
        # Keras has warned of it, or the layer ends the mask on purpose.
        return None if operation.supports_masking else UNKNOWN

    def unmasked(self, tensor):
        """A layer before `tensor` whose outputs depend on all entities, and that had no mask."""
        seen, waiting = set(), [tensor]
        while waiting:
            tensor = waiting.pop()
            history = getattr(tensor, "_keras_history", None)
            operation = getattr(history, "operation", None)
            masked = getattr(tensor, "_keras_mask", None) is not None
            if id(tensor) in seen or masked or operation is None:
                continue
            seen.add(id(tensor))
            arguments = operation._inbound_nodes[history.node_index].arguments
            inputs = [x for x in arguments.keras_tensors if x.shape[:-1] == tensor.shape[:-1]]
            if isinstance(operation, (self.set_layer, *MIXING)):
                given = any(
                    value is not None
                    for name, value in arguments.kwargs.items()
                    if name == "weights" or name.endswith("mask")
                )
                if inputs and not given and not any(map(self.state, arguments.keras_tensors)):
                    return operation
            if not isinstance(operation, self.set_layer):  # it has looked at its inputs itself
                waiting += inputs
        return None

    @staticmethod
    def _merged(operation, tensor, masked, states):
        if isinstance(operation, keras.layers.Concatenate):
            features = operation.axis in (-1, len(tensor.shape) - 1)
            mixed = features and masked and None in states
            return operation if mixed else masked or (UNKNOWN if UNKNOWN in states else None)
        if masked or UNKNOWN in states:
            return masked or UNKNOWN
        return operation if MASKED in states else None
