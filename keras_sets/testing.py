"""Checks of the laws of layers on sets, for your own layers and models.

Every check calls `layer(inputs, mask=mask, weights=weights)`, with `mask` and `weights`
only where they were given, so that plain Keras layers, models and functions can be checked
as well. Values are compared, and gradients of a random linear function of the outputs
towards the inputs and towards the layer's weights. Errors are relative to the
largest value of an output, and of all gradients together.

>>> import keras, numpy as np, keras_sets
>>> points = np.random.default_rng(0).normal(size=(2, 5, 3))
>>> keras_sets.testing.assert_permutation_invariant(keras_sets.layers.MeanPooling(), points)
>>> keras_sets.testing.assert_permutation_invariant(keras.layers.Flatten(), points)
Traceback (most recent call last):
    ...
AssertionError: not permutation invariant: outputs ...
"""

import math

import keras
import numpy as np
from keras import ops

TOLERANCES = {"float64": 1e-9, "float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}


def assert_permutation_equivariant(
    layer,
    inputs,
    mask=None,
    weights=None,
    training=None,
    num_entity_axes=None,
    permutations=3,
    group=None,
    gradients=True,
    tolerance=None,
    seed=0,
):
    """Checks `f(P x) = P f(x)`: permuting the entities permutes the outputs.

    The permutations are exchanges of neighbours, the reversal, and random ones that differ
    from set to set. Several entity axes are permuted as one, in row-major order.

    Args:
        layer: A layer, a model, or a function of `inputs`, and of `mask` and `weights` where
            these are given. Gradients towards weights are compared if it has
            `trainable_variables`.
        inputs: `(batch, *entities, ...)`. Floating inputs are cast to `keras.config.floatx()`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
        training: Passed on unless None. Random states are the same in all calls.
        num_entity_axes: How many axes after the first are entity axes. None is all but the
            last, or those of `mask` or `weights`.
        permutations: Number of random permutations.
        group: A group of `keras_sets.groups` on the entities: only its permutations are tried,
            which are its generators and random products of these. None is all permutations.
        gradients: Whether to compare gradients too.
        tolerance: Largest relative error. None is a few units of the output's precision.
        seed: Seed of all random choices.

    Raises:
        AssertionError: Says what differed, and by how much.
    """
    check = _Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    _check_permutations(check, permutations, seed, group, equivariant=True)


def assert_permutation_invariant(
    layer,
    inputs,
    mask=None,
    weights=None,
    training=None,
    num_entity_axes=None,
    permutations=3,
    group=None,
    gradients=True,
    tolerance=None,
    seed=0,
):
    """Checks `f(P x) = f(x)`: permuting the entities changes no output.

    Args:
        layer, inputs, mask, weights, training, num_entity_axes, permutations, group,
        gradients, tolerance, seed: As in `assert_permutation_equivariant`.

    Raises:
        AssertionError: Says what differed, and by how much.
    """
    check = _Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    _check_permutations(check, permutations, seed, group, equivariant=False)


def assert_causal(
    layer,
    inputs,
    mask=None,
    weights=None,
    training=None,
    num_entity_axes=None,
    gradients=True,
    tolerance=None,
    seed=0,
):
    """Checks that output t depends on no entity after t, in row-major order.

    The entities after t are replaced, with their mask and weights where these are given;
    outputs up to t must stay. The gradient of output t towards later entities must be 0.

    Args:
        layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance, seed:
            As in `assert_permutation_equivariant`.

    Raises:
        AssertionError: Says what differed, and by how much.
    """
    check = _Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    rng = np.random.default_rng(seed)
    places = check.size
    reference = check.evaluate(check.arguments)
    check.require_entities(reference, "not causal")
    for place in sorted({0, (places - 1) // 2, max(places - 2, 0)}):
        later = np.arange(places) > place
        if gradients:
            at_place = np.arange(places) == place
            cotangents = [
                _where(at_place, check.flat(rng.normal(size=o.shape)), 0.0).reshape(o.shape)
                for o in reference.outputs
            ]
            towards = check.flat(check.evaluate(check.arguments, cotangents).inputs_gradient)
            check.compare(
                f"not causal: gradient of output {place} towards later entities",
                towards[:, later],
                0.0 * towards[:, later],
                scale=np.abs(towards).max(initial=0.0),
            )
        changed = check.evaluate(_replaced(check, later, rng))
        for index, (new, old) in enumerate(zip(changed.outputs, reference.outputs, strict=True)):
            check.compare(
                f"not causal: outputs{_number(index, reference)} up to entity {place}, when "
                "later entities change",
                check.flat(new)[:, ~later],
                check.flat(old)[:, ~later],
            )


def assert_padding_invariant(
    layer,
    inputs,
    mask=None,
    weights=None,
    training=None,
    num_entity_axes=None,
    padding=3,
    zero_outputs=True,
    gradients=True,
    tolerance=None,
    seed=0,
):
    """Checks that masked entities change nothing, whatever they hold.

    Every entity axis grows by `padding`. The new places, and those that `mask` leaves out,
    hold large numbers, then NaN and infinities. Outputs and gradients of the real entities
    must stay, gradients towards the padding must be 0, and so must outputs at padded places.

    Args:
        layer: As in `assert_permutation_equivariant`; it is called with a `mask`.
        inputs, mask, weights, training, num_entity_axes, gradients, tolerance, seed:
            As in `assert_permutation_equivariant`.
        padding: By how much every entity axis grows; 0 for a layer on sets of a fixed size.
        zero_outputs: Whether outputs at padded places have to be 0.

    Raises:
        AssertionError: Says what differed, and by how much.
    """
    check = _Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
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

    shapes = [output.shape for output in check.evaluate(check.arguments).outputs]
    cotangents, padded_cotangents = zip(*(pair(shape) for shape in shapes), strict=True)
    reference = check.evaluate(check.arguments, cotangents)
    for content in ("large numbers", "NaN and infinities"):
        new_weights = None if weights is None else surround(weights, content)
        result = check.evaluate((surround(x, content), real, new_weights), padded_cotangents)
        broken = f"not padding invariant: with {content} in the padding, "
        for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
            outputs = f"outputs{_number(index, reference)}"
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


def assert_multiplicity(
    layer,
    inputs,
    mask=None,
    weights=None,
    training=None,
    num_entity_axes=None,
    scale_invariant=False,
    copies=None,
    gradients=True,
    tolerance=None,
    seed=0,
):
    """Checks that weights say how often an entity occurs.

    Integer weights must equal repetition of the entities, and weight 0 must equal absence,
    in outputs and gradients. Given `weights` are multiplied by the repetitions.

    Args:
        layer: As in `assert_permutation_equivariant`; it is called with `weights`.
        inputs, mask, weights, training, num_entity_axes, gradients, tolerance, seed:
            As in `assert_permutation_equivariant`.
        scale_invariant: Whether a common factor of the weights of a set changes nothing, as
            in a mean.
        copies: Which copies of a repeated entity must have the output of the weighted one:
            `"all"`, `"last"` (causal layers: the copies before it have not seen all), or
            `"none"` (causal layers that pool more than once: repetition is not checked).
            None is `"last"` for a layer whose `symmetry` is `"causal"`, else `"all"`.

    Raises:
        AssertionError: Says what differed, and by how much.
    """
    if copies is None:
        copies = "last" if getattr(layer, "symmetry", None) == "causal" else "all"
    if copies not in ("all", "last", "none"):
        raise ValueError(
            "Received an invalid value for `copies`, expected None, 'all', 'last' or 'none'. "
            f"Received: copies={copies!r}"
        )
    check = _Check(layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance)
    rng = np.random.default_rng(seed)
    if copies != "none":
        _check_repetition(check, copies, rng)
    _check_absence(check, rng)
    if scale_invariant:
        _check_scale(check, rng)


def outputs_and_gradients(
    layer, inputs, cotangents=None, mask=None, weights=None, training=None, gradients=True
):
    """Calls a layer and differentiates it, the same way on every backend.

    Args:
        layer, inputs, mask, weights, training: As in `assert_permutation_equivariant`.
        cotangents: One array per output: the gradients are those of
            `sum(outputs * cotangents)`. None is all ones.
        gradients: If False, only outputs are computed.

    Returns:
        `(outputs, inputs_gradient, weight_gradients)`: a list with an array per output, an
        array, and a list with an array per trainable weight, all in float64. Gradients are
        None and an empty list with `gradients=False`.
    """
    function = _Function(layer, training, gradients)
    x = _numpy(inputs)
    mask = None if mask is None else _numpy(mask)
    weights = None if weights is None else _numpy(weights)
    result, _ = function(x, mask, weights, cotangents)
    if gradients and cotangents is None:
        ones = [np.ones_like(output) for output in result.outputs]
        result, _ = function(x, mask, weights, ones)
    return result.outputs, result.inputs_gradient, result.weight_gradients


class _Result:
    """Outputs as a list of arrays, and gradients, None where they were not asked for."""

    def __init__(self, outputs, inputs_gradient=None, weight_gradients=()):
        self.outputs = outputs
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
        return max((np.abs(g).max(initial=0.0) for g in gradients), default=0.0)


class _Check:
    """The layer and the arguments of one check."""

    def __init__(
        self, layer, inputs, mask, weights, training, num_entity_axes, gradients, tolerance
    ):
        x = _numpy(inputs)
        mask = None if mask is None else _numpy(mask).astype(bool)
        weights = None if weights is None else _numpy(weights).astype("float64")
        if num_entity_axes is None:
            known = mask if mask is not None else weights
            num_entity_axes = (x.ndim - 2) if known is None else known.ndim - 1
        if not 1 <= num_entity_axes < x.ndim:
            raise ValueError(
                "Argument `inputs` must have a batch axis, `num_entity_axes` >= 1 entity axes, "
                f"and features. Received: inputs.shape={x.shape}, "
                f"num_entity_axes={num_entity_axes}"
            )
        self.batch = x.shape[0]
        self.entities = x.shape[1 : 1 + num_entity_axes]
        self.size = math.prod(self.entities)
        self.arguments = (x, mask, weights)
        self.gradients = gradients
        self.tolerance = tolerance
        self.dtype = "float64"
        self._function = _Function(layer, training, gradients)

    def evaluate(self, arguments, cotangents=None):
        """Calls the layer; with cotangents also the gradients of `sum(outputs * them)`."""
        x, mask, weights = arguments
        cotangents = cotangents if self.gradients else None
        result, dtype = self._function(x, mask, weights, cotangents)
        self.dtype = max(self.dtype, dtype, key=TOLERANCES.get)
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
        scale = max(scale, np.abs(expected).max()) or 1.0
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


class _Function:
    """A layer as a function of arrays that gives outputs and gradients as arrays.

    The only place that knows the backends' ways to differentiate. Random states and other
    variables that are not trained have the same values at every call.
    """

    def __init__(self, layer, training, gradients):
        self._layer = layer
        self._gradients = gradients
        self._training = {} if training is None else {"training": training}
        self._built = False
        self._trained = self._states = self._jitted = None

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
        names = [keras.backend.standardize_dtype(output.dtype) for output in outputs]
        lowest = max(
            (name for name in names if name in TOLERANCES), key=TOLERANCES.get, default="float64"
        )
        if cotangents is not None:
            shapes = [tuple(variable.shape) for variable in self._trained]
            gradients = [
                np.zeros(shape) if g is None else _numpy(g).astype("float64")
                for g, shape in zip(gradients, shapes, strict=True)
            ]
            if not floating:
                x_gradient = None
            elif x_gradient is None:
                x_gradient = np.zeros(tuple(x.shape))
            else:
                x_gradient = _numpy(x_gradient).astype("float64")
        else:  # not asked for
            x_gradient, gradients = None, ()
        outputs = [_numpy(output).astype("float64") for output in outputs]
        return _Result(outputs, x_gradient, gradients), lowest

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
        return keras.tree.flatten(self._layer(x, **given, **self._training))

    def _on_tensorflow(self, x, mask, weights, cotangents, floating):
        import tensorflow as tf

        trained = [variable.value for variable in self._trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            if floating:
                tape.watch(x)
            outputs = self._call(x, mask, weights)
            pairs = _differentiable(outputs, cotangents)
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
            pairs = [(o, v) for o, v in _differentiable(outputs, cotangents) if o.requires_grad]
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

        if self._jitted is None:
            self._jitted = jax.jit(differentiate if self._gradients else call)
        trained = values[: len(self._trained)]
        states = values[len(self._trained) :]
        if not self._gradients:
            return self._jitted(trained, x, states, mask, weights), None, []
        if cotangents is None:
            # One compilation for both uses costs less than two.
            shapes = jax.eval_shape(call, trained, x, states, mask, weights)
            cotangents = [np.zeros(output.shape) for output in shapes]
        cotangents = [np.asarray(v, keras.config.floatx()) for v in cotangents]
        gradients, outputs = self._jitted(trained, x, states, mask, weights, cotangents)
        return outputs, gradients[1] if floating else None, gradients[0]


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


def _numpy(x):
    return x if isinstance(x, np.ndarray) else np.asarray(ops.convert_to_numpy(x))


def _number(index, result):
    return "" if len(result.outputs) == 1 else f" {index}"


def _where(condition, x, other):
    """`np.where` with a condition over entities, `(n,)` or `(batch, n)`."""
    condition = np.reshape(condition, (*condition.shape, *(1,) * (x.ndim - 2)))
    return np.where(condition, x, other)


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


def _check_permutations(check, count, seed, group, equivariant):
    rng = np.random.default_rng(seed)
    law = "not permutation " + ("equivariant" if equivariant else "invariant")

    def permuted(array, order):
        if array is None:
            return None
        flat = check.flat(array)
        index = np.reshape(order, (*order.shape, *(1,) * (flat.ndim - 2)))
        return np.reshape(np.take_along_axis(flat, index, axis=1), array.shape)

    outputs = check.evaluate(check.arguments)
    if equivariant:
        check.require_entities(outputs, law)
    cotangents = [rng.normal(size=output.shape) for output in outputs.outputs]
    reference = check.evaluate(check.arguments, cotangents)
    for name, order in _permutations(check.batch, check.size, count, group, rng):
        arguments = tuple(permuted(argument, order) for argument in check.arguments)
        moved = [permuted(v, order) for v in cotangents] if equivariant else cotangents
        result = check.evaluate(arguments, moved)
        for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
            expected = permuted(old, order) if equivariant else old
            what = f"{law}: outputs{_number(index, reference)} under {name}"
            check.compare(what, new, expected)
        if result.inputs_gradient is not None:
            check.compare(
                f"{law}: gradient towards the inputs under {name}",
                result.inputs_gradient,
                permuted(reference.inputs_gradient, order),
                scale=reference.gradient_scale,
            )
        check.compare_weight_gradients(f"{law}: under {name}, ", result, reference)


def _replaced(check, later, rng):
    """The arguments with other content at the entities of `later`."""
    x, mask, weights = check.arguments

    def replace(array, other):
        if array is None:
            return None
        return _where(later, check.flat(other), check.flat(array)).reshape(array.shape)

    if np.issubdtype(x.dtype, np.floating):
        other = (10.0 * rng.normal(size=x.shape)).astype(x.dtype)
    else:
        other = rng.permuted(x.reshape(-1)).reshape(x.shape)
    return (
        replace(x, other),
        replace(mask, rng.random((check.batch, *check.entities)) < 0.5),
        replace(weights, 3 * rng.random((check.batch, *check.entities))),
    )


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


def _check_repetition(check, copies, rng):
    x, mask, weights = check.arguments
    # Along the last entity axis, so that copies follow each other in row-major order.
    axis, size = len(check.entities), check.entities[-1]
    counts = rng.permutation(np.resize([2, 0, 3, 1], size))
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
    cotangents = [], []
    pairs = zip(check.evaluate(weighted).outputs, check.evaluate(repeated).outputs, strict=True)
    for new, old in pairs:
        v = rng.normal(size=old.shape)
        if check.has_entities(new):
            v[(*(slice(None),) * axis, ~compared)] = 0.0
            cotangents[0].append(folded(v, np.zeros(new.shape)))
        else:
            cotangents[0].append(v)
        cotangents[1].append(v)
    result = check.evaluate(weighted, cotangents[0])
    reference = check.evaluate(repeated, cotangents[1])
    for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
        what = f"{broken}outputs{_number(index, reference)}"
        if check.has_entities(new):
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


def _compare_results(check, broken, result, reference):
    for index, (new, old) in enumerate(zip(result.outputs, reference.outputs, strict=True)):
        check.compare(f"{broken}outputs{_number(index, reference)}", new, old)
    if result.inputs_gradient is not None:
        check.compare(
            f"{broken}gradient towards the inputs",
            result.inputs_gradient,
            reference.inputs_gradient,
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
    cotangents = [rng.normal(size=o.shape) for o in check.evaluate(unweighted).outputs]
    _compare_results(
        check,
        "weights are not multiplicities: weight 0 against mask False, ",
        check.evaluate(unweighted, cotangents),
        check.evaluate(masked, cotangents),
    )


def _check_scale(check, rng):
    x, mask, weights = check.arguments
    shape = (check.batch, *check.entities)
    mask = np.ones(shape, bool) if mask is None else mask
    weights = rng.random(shape) if weights is None else weights
    cotangents = [rng.normal(size=o.shape) for o in check.evaluate((x, mask, weights)).outputs]
    reference = check.evaluate((x, mask, weights), cotangents)
    for factor in (0.3, 1000.0):
        _compare_results(
            check,
            f"not invariant to a common factor of the weights ({factor}): ",
            check.evaluate((x, mask, factor * weights), cotangents),
            reference,
        )
