"""Outputs and gradients of a layer as arrays: all that differs from backend to backend."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sets import validation
from keras_sets._typing import Tensor


def outputs_and_gradients(
    layer: Callable[..., Any],
    inputs: Tensor,
    cotangents: Sequence[np.ndarray] | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    training: bool | None = None,
    gradients: bool = True,
) -> tuple[list[np.ndarray], np.ndarray | None, list[np.ndarray]]:
    """Calls a layer and differentiates it, the same way on every backend.

    Args:
        layer, inputs, mask, weights, training: As in all checks, see `keras_sets.testing`.
        cotangents: One array per output: the gradients are those of
            `sum(outputs * cotangents)`. None is all ones.
        gradients: If False, only outputs are computed.

    Returns:
        `(outputs, inputs_gradient, weight_gradients)`: a list with an array per output, an
        array, and a list with an array per trainable weight, all in float64. Gradients are
        None and an empty list with `gradients=False`.
    """
    function = Function(layer, training, gradients)
    x = to_numpy(inputs)
    mask = None if mask is None else to_mask(layer, mask)
    weights = None if weights is None else to_numpy(weights)
    if gradients and cotangents is None:
        cotangents = _ones
    result = function(x, mask, weights, cotangents if gradients else None)
    return result.outputs, result.inputs_gradient, result.weight_gradients


class Result:
    """Outputs as a list of arrays, and gradients, None where they were not asked for.

    All arrays are float64; `dtypes` names the dtypes that the outputs had.
    """

    def __init__(self, outputs, dtypes, inputs_gradient=None, weight_gradients=()):
        self.outputs = outputs
        self.dtypes = dtypes
        self.inputs_gradient = inputs_gradient
        self.weight_gradients = list(weight_gradients)

    @property
    def gradient_scale(self):
        """The largest gradient: what errors of gradients are relative to.

        All gradients of a call are sums of products of the same numbers, and rounding is
        relative to these. A sum in which they cancel, such as the gradient of a bias before a
        softmax, is 0 but for their rounding, and its own largest value says nothing.
        """
        gradients = [g for g in (self.inputs_gradient, *self.weight_gradients) if g is not None]
        return max((largest(g) for g in gradients), default=0.0)


def largest(array):
    """The largest absolute value among those that are finite, 0 if there are none."""
    return np.abs(array[np.isfinite(array)]).max(initial=0.0)


class Function:
    """A layer as a function of arrays that gives outputs and gradients as arrays.

    Random states and other variables that are not trained have the same values at every call.
    Cotangents are arrays, or a function that makes them from the shapes of the outputs.
    """

    def __init__(self, layer, training, gradients):
        self._layer = layer
        self._gradients = validation.boolean("gradients", gradients)
        self._training = {} if training is None else {"training": training}
        self._built = False
        self._trained = self._states = self._compiled = None

    @property
    def names(self):
        return [variable.path for variable in self._trained]

    def __call__(self, x, mask, weights, cotangents):
        floating = np.issubdtype(x.dtype, np.floating) or x.dtype.name == "bfloat16"
        x = ops.convert_to_tensor(x, keras.config.floatx() if floating else None)
        mask = None if mask is None else ops.convert_to_tensor(mask, "bool")
        weights = None if weights is None else ops.convert_to_tensor(weights, keras.config.floatx())
        if not self._built:
            self._build(x, mask, weights)
        saved = [ops.copy(state.value) for state in self._states]
        differentiate = getattr(self, "_on_" + keras.config.backend())
        outputs, x_gradient, gradients = differentiate(x, mask, weights, cotangents, floating)
        for state, value in zip(self._states, saved, strict=True):
            state.assign(value)
        dtypes = [keras.backend.standardize_dtype(output.dtype) for output in outputs]
        if cotangents is not None:
            shapes = [tuple(variable.shape) for variable in self._trained]
            gradients = [
                np.zeros(shape) if g is None else to_numpy(g).astype("float64")
                for g, shape in zip(gradients, shapes, strict=True)
            ]
            if not floating:
                x_gradient = None
            elif x_gradient is None:
                x_gradient = np.zeros(tuple(x.shape))
            else:
                x_gradient = to_numpy(x_gradient).astype("float64")
        else:  # not asked for
            x_gradient, gradients = None, ()
        outputs = [to_numpy(output).astype("float64") for output in outputs]
        return Result(outputs, dtypes, x_gradient, gradients)

    def _build(self, x, mask, weights):
        """Makes the weights, outside any trace and without the cost of a real call."""
        layer = self._layer
        if not getattr(layer, "built", False):
            if isinstance(layer, keras.Layer):
                given = [None if t is None else _symbolic(t) for t in (x, mask, weights)]
                self._call(*given)
            else:
                self._call(x, mask, weights)
        self._trained = list(getattr(layer, "trainable_variables", ()))
        self._states = list(getattr(layer, "non_trainable_variables", ()))
        self._built = True

    def _call(self, x, mask, weights):
        given = {"mask": mask, "weights": weights}
        given = {name: value for name, value in given.items() if value is not None}
        outputs = keras.tree.flatten(self._layer(x, **given, **self._training))
        return [output for output in outputs if output is not None]

    def _on_tensorflow(self, x, mask, weights, cotangents, floating):
        import tensorflow as tf

        trained = [variable.value for variable in self._trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            if floating:
                tape.watch(x)
            outputs = self._call(x, mask, weights)
            pairs = _differentiable(outputs, _drawn(cotangents, outputs))
            # A sum, so that outputs which depend on nothing do no harm.
            total = tf.add_n([tf.reduce_sum(o * v) for o, v in pairs]) if pairs else None
        if total is None:
            return outputs, None, [None] * len(trained)
        gradients = tape.gradient(total, [*trained, x])
        gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        return outputs, gradients[-1], gradients[:-1]

    def _on_torch(self, x, mask, weights, cotangents, floating):
        import torch

        trained = [variable.value for variable in self._trained]
        x = x.detach().clone()
        x.requires_grad_(floating)
        # Layers without a seed of their own draw from the generator of the process.
        with torch.enable_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            outputs = self._call(x, mask, weights)
            pairs = _differentiable(outputs, _drawn(cotangents, outputs))
            pairs = [(o, v) for o, v in pairs if o.requires_grad]
        sources = [source for source in (*trained, x) if source.requires_grad]
        if not pairs or not sources:
            return outputs, None, [None] * len(trained)
        found = torch.autograd.grad(
            [o for o, _ in pairs], sources, [v for _, v in pairs], allow_unused=True
        )
        found = {id(source): gradient for source, gradient in zip(sources, found, strict=True)}
        return outputs, found.get(id(x)), [found.get(id(source)) for source in trained]

    def _on_jax(self, x, mask, weights, cotangents, floating):
        import jax

        variables = [*self._trained, *self._states]
        values = [variable.value for variable in variables]

        def call(trained, x, states, mask, weights):
            values = [*trained, *states]
            with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                return [ops.convert_to_tensor(o) for o in self._call(x, mask, weights)]

        if self._compiled is None:
            # Its trace serves the shapes of the outputs and the gradients.
            call = jax.jit(call, inline=True)

            def differentiate(trained, x, states, mask, weights, cotangents):
                def total(*sources):
                    trained, x = sources if floating else (*sources, x_given)
                    outputs = call(trained, x, states, mask, weights)
                    pairs = _differentiable(outputs, cotangents)
                    return sum((ops.sum(o * v) for o, v in pairs), 0.0), outputs

                x_given = x
                sources = (trained, x) if floating else (trained,)
                gradient = jax.grad(total, argnums=tuple(range(len(sources))), has_aux=True)
                return gradient(*sources)

            self._compiled = call, jax.jit(differentiate)
        call, differentiate = self._compiled
        trained = values[: len(self._trained)]
        states = values[len(self._trained) :]
        if not self._gradients:
            return call(trained, x, states, mask, weights), None, []
        if cotangents is None:
            cotangents = _zeros  # One compilation for both uses costs less than two.
        if callable(cotangents):
            cotangents = _drawn(cotangents, call.eval_shape(trained, x, states, mask, weights))
        cotangents = [np.asarray(v, keras.config.floatx()) for v in cotangents]
        gradients, outputs = differentiate(trained, x, states, mask, weights, cotangents)
        return outputs, gradients[1] if floating else None, gradients[0]


def _ones(shapes):
    return [np.ones(shape) for shape in shapes]


def _zeros(shapes):
    return [np.zeros(shape) for shape in shapes]


def _drawn(cotangents, outputs):
    if callable(cotangents):
        return cotangents([tuple(output.shape) for output in outputs])
    return cotangents


def _differentiable(outputs, cotangents):
    """Pairs of floating outputs and their cotangents, as tensors of the same dtype."""
    if cotangents is None:
        return []
    pairs = []
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype)):
            # Wide, so that the sum over a half-precision output does not overflow.
            wide = ops.cast(output, keras.config.floatx())
            pairs.append((wide, ops.convert_to_tensor(cotangent, keras.config.floatx())))
    return pairs


def _symbolic(tensor):
    return keras.KerasTensor(tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))


def to_mask(layer, mask):
    """`mask` as bool; numbers other than 0 and 1, which are no mask, are an error."""
    mask = to_numpy(mask)
    validation.check_mask(getattr(layer, "name", type(layer).__name__), mask)
    return mask.astype(bool)


def to_numpy(x):
    return x if isinstance(x, np.ndarray) else np.asarray(ops.convert_to_numpy(x))
