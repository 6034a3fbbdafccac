"""The layer and the arguments of a check, and how their results are compared."""

import math

import numpy as np

from keras_sets.testing.gradients import Function
from keras_sets.testing.gradients import largest
from keras_sets.testing.gradients import to_mask
from keras_sets.testing.gradients import to_numpy

TOLERANCES = {"float64": 1e-9, "float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}


class Check:
    """The layer and the arguments of one check."""

    def __init__(
        self, layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance
    ):
        x = to_numpy(inputs)
        mask = None if mask is None else to_mask(layer, mask)
        weights = None if weights is None else to_numpy(weights).astype("float64")
        if num_entity_axes is None:
            known = mask if mask is not None else weights
            num_entity_axes = x.ndim - 2 if known is None else max(known.ndim - 1, 1)
        if not 1 <= num_entity_axes < x.ndim:
            raise ValueError(
                "Argument `inputs` must have a batch axis, `num_entity_axes` >= 1 entity axes, "
                f"and features. Received: inputs.shape={x.shape}, "
                f"num_entity_axes={num_entity_axes}"
            )
        for name, array in (("mask", mask), ("weights", weights)):
            if array is not None and array.shape != x.shape[: 1 + num_entity_axes]:
                raise ValueError(
                    f"Argument `{name}` must have the shape (batch, *entities), here "
                    f"{x.shape[: 1 + num_entity_axes]}. Received: {name}.shape={array.shape}"
                )
        self.batch = x.shape[0]
        self.entities = x.shape[1 : 1 + num_entity_axes]
        self.size = math.prod(self.entities)
        self.arguments = (x, mask, weights)
        self.gradients = gradients
        self.tolerance = tolerance
        self.dtype = "float64"
        self._function = Function(layer, training, gradients)

    def evaluate(self, arguments, cotangents=None):
        """Calls the layer; with cotangents also the gradients of `sum(outputs * them)`.

        Cotangents are arrays, or a function that makes them from the shapes of the outputs.
        """
        x, mask, weights = arguments
        cotangents = cotangents if self.gradients else None
        result = self._function(x, mask, weights, cotangents)
        known = [dtype for dtype in result.dtypes if dtype in TOLERANCES]
        self.dtype = max([self.dtype, *known], key=TOLERANCES.get)
        return result

    def flat(self, array):
        """`(batch, *entities, ...)` to `(batch, n, ...)`, row-major."""
        rest = array.shape[1 + len(self.entities) :]
        return np.reshape(array, (self.batch, self.size, *rest))

    def has_entities(self, array):
        return array.shape[1 : 1 + len(self.entities)] == self.entities

    def require_entities(self, result, broken):
        for output in result.outputs:
            if not self.has_entities(output):
                raise AssertionError(
                    f"{broken}: expected outputs of shape (batch, *entities, ...) with entity "
                    f"axes {self.entities}. Received: outputs.shape={output.shape}"
                )

    def compare(self, what, received, expected, scale=0.0, exact=False):
        """Raises unless all values are equal up to the tolerance, relative to the scale."""
        if received.shape != expected.shape:
            raise AssertionError(f"{what} have shape {received.shape}, expected {expected.shape}")
        if received.size == 0:
            return
        if not np.isfinite(received).all() and np.isfinite(expected).all():
            wrong = int((~np.isfinite(received)).sum())
            raise AssertionError(f"{what}: {wrong} of {received.size} values are not finite")
        with np.errstate(invalid="ignore"):
            difference = np.where(received == expected, 0.0, np.abs(received - expected))
        tolerance = 0.0 if exact else self.tolerance
        tolerance = TOLERANCES[self.dtype] if tolerance is None else tolerance
        # Beside infinity, any error would be none.
        scale = max(scale, largest(expected)) or 1.0
        worst = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), received.shape)
        error = difference[worst] / scale
        if not error <= tolerance:
            raise AssertionError(
                f"{what} differ by {difference[worst]:.3g} at {tuple(map(int, worst))}: received "
                f"{received[worst]:.6g}, expected {expected[worst]:.6g}. Relative error "
                f"{error:.3g}, tolerance {tolerance:.3g}"
            )

    def compare_weight_gradients(self, broken, result, reference):
        pairs = zip(result.weight_gradients, reference.weight_gradients, strict=True)
        for name, (new, old) in zip(self._function.names, pairs, strict=False):
            check = f"{broken}gradient towards the weight '{name}'"
            self.compare(check, new, old, scale=reference.gradient_scale)


class Drawn:
    """Random cotangents, drawn when the first call has said which shapes its outputs have."""

    def __init__(self, rng):
        self._rng = rng
        self.arrays = []

    def __call__(self, shapes):
        self.arrays = [self._rng.normal(size=shape) for shape in shapes]
        return self.arrays


def compare_results(check, broken, result, reference):
    for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
        check.compare(f"{broken}outputs{number(index, reference)}", new, old)
    if result.inputs_gradient is not None:
        check.compare(
            f"{broken}gradient towards the inputs",
            result.inputs_gradient,
            reference.inputs_gradient,
            scale=reference.gradient_scale,
        )
    check.compare_weight_gradients(broken, result, reference)


def number(index, result):
    return "" if len(result.outputs) == 1 else f" {index}"


def fitting(pairs, shapes):
    """Of every pair of cotangents the one that has the shape of the output."""
    # Features, as many as entities by chance, stay as many where the entities become more.
    pairs = zip(pairs, shapes, strict=True)
    return [one if one.shape == shape else other for (one, other), shape in pairs]


def where(condition, x, other):
    """`np.where` with a condition over entities, `(n,)` or `(batch, n)`."""
    condition = np.reshape(condition, (*condition.shape, *(1,) * (x.ndim - 2)))
    return np.where(condition, x, other)
