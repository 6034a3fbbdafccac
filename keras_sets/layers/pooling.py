"""Poolings: what a set has in common, as one vector."""

import contextlib
import threading

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.base import SetLayer


class _Elsewhere(threading.local):
    """What answers instead of the poolings while a network sees a chunk of a set only.

    Each thread has its own. No `ContextVar`: torch compiles nothing that asks one.
    """

    pool = None


_ELSEWHERE = _Elsewhere()


@contextlib.contextmanager
def pooling_elsewhere(pool):
    """Inside, layers call `pool(pooling, x, mask, weights)` instead of their poolings."""
    before, _ELSEWHERE.pool = _ELSEWHERE.pool, pool
    try:
        yield
    finally:
        _ELSEWHERE.pool = before


def pooled_elsewhere():
    """Whether poolings are answered from outside now."""
    return _ELSEWHERE.pool is not None


class Pooling(SetLayer):
    """Base class of poolings over all entity axes.

    A subclass implements `pool(x, mask, weights, keepdims)` with a function of
    `keras_sets.ops`. See `MeanPooling` for the arguments that all poolings share.

    A set that is larger than memory, or spread over machines, is pooled chunk by chunk:

    ```
    state = pooling.init(batch_size, features)
    for inputs, mask, weights in chunks:
        state = pooling.update(state, inputs, mask, weights)
    pooled = pooling.finish(state)
    ```

    - `init(batch_size, features)`: the state of sets without entities.
    - `update(state, inputs, mask=None, weights=None)`: the state with a chunk added.
    - `merge(a, b)`: the state of two disjoint parts of the same sets together. It is
      commutative and associative up to rounding.
    - `finish(state)`: what the whole has in common, `(batch, features)`; for `PoolingMaps`
      the summaries `(batch, num_maps, values)`, for `CausalMeanPooling` the mean so far.
    - `read(finished, inputs, mask=None, weights=None)`: what the call gives at the places of a
      chunk when the whole set is known: `pooling(whole)` is `read` of its chunks, one after
      the other.
    - `scan(state, inputs, mask=None, weights=None)`, causal poolings only: the outputs for
      the next chunk, and the state after it. They need no second pass.

    States are dicts of float32 (or float64) tensors under every dtype policy. Sums keep
    their rounding errors, softmax-like ones a shift, so that neither the number of chunks
    nor their sizes matter. A subclass implements `chunk_state`, `merge` and `finish`.
    """

    symmetry = "invariant"

    def __init__(self, keepdims=False, **kwargs):
        super().__init__(**kwargs)
        self.keepdims = bool(keepdims)

    def pool(self, x, mask, weights, keepdims):
        raise NotImplementedError

    def build(self, input_shape):
        self.built = True

    def compute(self, x, mask, weights, training):
        elsewhere = _ELSEWHERE.pool
        if elsewhere is not None:
            return elsewhere(self, x, mask, weights)
        pooled = self.pool(x, mask, weights, self.keepdims)
        return ops.cast(pooled, self.compute_dtype)

    def chunk_state(self, x, mask, weights):
        """The state of a chunk alone."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be computed in chunks: it needs the methods "
            "`chunk_state(x, mask, weights)`, `merge(a, b)` and `finish(state)`."
        )

    def init(self, batch_size, features):
        """The state of `batch_size` sets without entities of `features` features."""
        batch_size = validation.positive_integer("batch_size", batch_size)
        features = validation.positive_integer("features", features)
        return self.chunk_state(
            ops.zeros((batch_size, 0, features), self.compute_dtype), None, None
        )

    def update(self, state, inputs, mask=None, weights=None):
        """The state with the entities of a chunk added."""
        added = self.chunk_state(*self._prepare_chunk(inputs, mask, weights))
        self._check_state(state, added)
        return self.merge(state, added)

    def merge(self, a, b):
        """The state of two parts of the same sets together."""
        raise NotImplementedError(f"{type(self).__name__} has no method `merge(a, b)`.")

    def finish(self, state):
        """What the entities of a state have in common."""
        raise NotImplementedError(f"{type(self).__name__} has no method `finish(state)`.")

    def read(self, finished, inputs, mask=None, weights=None):
        """The output of the call at the places of `inputs`, a part of a finished set."""
        return (
            set_ops.expand_over_entities(finished, len(inputs.shape)) if self.keepdims else finished
        )

    def _check_state(self, state, added):
        """Raises a ValueError unless a chunk holds the same sets as a state."""
        before, after = (
            [validation.shape_of(tensor) for tensor in keras.tree.flatten(tree)]
            for tree in (state, added)
        )
        if len(before) != len(after) or not all(map(validation.compatible_shapes, before, after)):
            raise ValueError(
                f"Layer '{self.name}' expects chunks with as many sets and features as its "
                f"`state`, whose tensors have the shapes {before}. Received: a chunk with {after}"
            )

    def _prepare_chunk(self, inputs, mask, weights):
        self.check_arguments(inputs, mask, weights)
        return self.prepare(ops.convert_to_tensor(inputs), mask, weights)

    def compute_output_shape(self, input_shape):
        if self.keepdims:
            ones = (1,) * (len(input_shape) - 2)
            return (input_shape[0], *ones, input_shape[-1])
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "keepdims": self.keepdims}


@keras.saving.register_keras_serializable(package="keras_sets")
class MeanPooling(Pooling):
    """Mean over the entities of a set.

    `y = sum_i w_i x_i / sum_i w_i`, and 0 for a set without entities.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        `(batch, features)`, or `(batch, 1, ..., 1, features)` with `keepdims=True`.

    Masking:
        Masked entities do not count, whatever they hold. The output has no mask.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.array([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    >>> pooling = keras_sets.layers.MeanPooling()
    >>> pooling(points, mask=np.array([[True, True, False]])).shape == (1, 2)
    True

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), section 2.
    """

    def pool(self, x, mask, weights, keepdims):
        return set_ops.set_mean(x, mask, weights, keepdims)

    def chunk_state(self, x, mask, weights):
        return set_ops.mean_state(x, mask, weights)

    def merge(self, a, b):
        return set_ops.merge_means(a, b)

    def finish(self, state):
        return ops.cast(set_ops.finish_mean(state), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_sets")
class SumPooling(Pooling):
    """Sum over the entities of a set.

    `y = sum_i w_i x_i`, and 0 for a set without entities. The sum runs in float32 and
    is then cast, so in float16 a large set can exceed 65504: prefer the mean there.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.SumPooling()(np.ones((2, 5, 3))).shape == (2, 3)
    True

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), theorem 2.
    """

    def pool(self, x, mask, weights, keepdims):
        return set_ops.set_sum(x, mask, weights, keepdims)

    def chunk_state(self, x, mask, weights):
        return set_ops.sum_state(x, mask, weights)

    def merge(self, a, b):
        return set_ops.merge_sums(a, b)

    def finish(self, state):
        return ops.cast(set_ops.finish_sum(state), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_sets")
class MaxPooling(Pooling):
    """Largest value of every feature over the entities of a set.

    `y = max_{i: w_i > 0} x_i`, and 0 for a set without entities. Of the weights only
    their support counts.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities and to how often each one occurs.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.MaxPooling(keepdims=True)(np.ones((2, 5, 3))).shape == (2, 1, 3)
    True

    Reference:
        [Qi et al., 2017, PointNet](https://arxiv.org/abs/1612.00593), equation 1.
    """

    def pool(self, x, mask, weights, keepdims):
        return set_ops.set_max(x, mask, weights, keepdims)

    def chunk_state(self, x, mask, weights):
        return set_ops.max_state(x, mask, weights)

    def merge(self, a, b):
        return set_ops.merge_maxima(a, b)

    def finish(self, state):
        return ops.cast(set_ops.finish_max(state), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_sets")
class LogSumExpPooling(Pooling):
    """Smooth maximum over the entities of a set.

    `y = log sum_i w_i exp(x_i)`, and 0 for a set without entities.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking:
        As for `keras_sets.layers.MeanPooling`.

    Symmetry:
        Invariant to the order of the entities. A common factor of the weights adds its
        logarithm.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.LogSumExpPooling()(np.zeros((2, 5, 3))).shape == (2, 3)
    True

    Reference:
        [Zaheer et al., 2017, Deep Sets](https://arxiv.org/abs/1703.06114), section 2.
    """

    def pool(self, x, mask, weights, keepdims):
        return set_ops.set_logsumexp(x, mask, weights, keepdims)

    def chunk_state(self, x, mask, weights):
        return set_ops.logsumexp_state(x, mask, weights)

    def merge(self, a, b):
        return set_ops.merge_logsumexps(a, b)

    def finish(self, state):
        return ops.cast(set_ops.finish_logsumexp(state), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_sets")
class CausalMeanPooling(Pooling):
    """Running mean over an entity and all entities before it.

    `y_t = sum_{i <= t} w_i x_i / sum_{i <= t} w_i` in row-major order over the entity
    axes, and 0 while no entity has been seen.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        That of the inputs: every entity has its own mean.

    Masking:
        Masked entities do not count and get 0. The mask is passed on.

    Symmetry:
        Causal: output t does not depend on entities after t. Invariant to the order of
        the entities before t.

    Example:

    >>> import keras, numpy as np, keras_sets
    >>> x = np.array([[[1.0], [3.0], [5.0]]])
    >>> means = keras_sets.layers.CausalMeanPooling()(x)
    >>> keras.ops.convert_to_numpy(means).ravel().tolist()
    [1.0, 2.0, 3.0]

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    symmetry = "causal"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if self.keepdims:
            raise ValueError(
                "CausalMeanPooling keeps the entity axes as they are: `keepdims` does not "
                f"apply. Received: keepdims={self.keepdims}"
            )

    def pool(self, x, mask, weights, keepdims):
        return set_ops.set_causal_mean(x, mask, weights)

    def chunk_state(self, x, mask, weights):
        return set_ops.causal_mean_state(x, mask, weights)

    def merge(self, a, b):
        return set_ops.merge_sums(a, b)

    def finish(self, state):
        return ops.cast(set_ops.finish_causal_mean(state), self.compute_dtype)

    def scan(self, state, inputs, mask=None, weights=None):
        """`(outputs, state)`: the running means of the next chunk, and the state after it."""
        x, present, weights = self._prepare_chunk(inputs, mask, weights)
        self._check_state(state, self.chunk_state(x[:, :0], None, None))
        means, state = set_ops.scan_causal_mean(state, x, present, weights)
        return ops.cast(means, self.compute_dtype), state

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        config = super().get_config()
        del config["keepdims"]
        return config


@keras.saving.register_keras_serializable(package="keras_sets")
class PoolingMaps(Pooling):
    """Pools a set under several learned maps and deals the results out by gates.

    The features split into values v, `num_maps` keys k and `num_maps` gates g:

    ```
    map[s, j] = softmax over entities j of k[j, s] + log w[j]
    y[e] = sum_s g[e, s] * sum_j map[s, j] * v[j]
    ```

    It is attention with `num_maps` queries for the whole set: every entity chooses its own
    mixture of a few summaries, at a cost linear in the number of entities.

    Args:
        num_maps: Positive integer, how many maps there are.

    Call arguments:
        inputs: `(batch, *entities, features)` with more than `2 * num_maps` features.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.

    Output shape:
        `(batch, *entities, features - 2 * num_maps)`: every entity has its own mixture.

    Masking:
        Masked entities do not count and get 0. The mask is passed on.

    Symmetry:
        Equivariant to permutations of the entities.

    Example:

    >>> import numpy as np, keras_sets
    >>> keras_sets.layers.PoolingMaps(num_maps=4)(np.ones((2, 5, 15))).shape == (2, 5, 7)
    True

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """

    symmetry = "equivariant"

    def __init__(self, num_maps=4, **kwargs):
        num_maps = validation.positive_integer("num_maps", num_maps)
        super().__init__(**kwargs)
        if self.keepdims:
            raise ValueError(
                "PoolingMaps keeps the entity axes as they are: `keepdims` does not apply. "
                f"Received: keepdims={self.keepdims}"
            )
        self.num_maps = num_maps

    def build(self, input_shape):
        self._check_features(input_shape)
        super().build(input_shape)

    def pool(self, x, mask, weights, keepdims):
        return set_ops.set_pooling_maps(x, self.num_maps, mask, weights)

    def chunk_state(self, x, mask, weights):
        return set_ops.pooling_maps_state(x, self.num_maps, mask, weights)

    def merge(self, a, b):
        return set_ops.merge_pooling_maps(a, b)

    def finish(self, state):
        return set_ops.finish_pooling_maps(state)

    def read(self, finished, inputs, mask=None, weights=None):
        x, present, _ = self._prepare_chunk(inputs, mask, weights)
        pooled = set_ops.deal_out_maps(finished, x, self.num_maps, present)
        return ops.cast(pooled, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        self._check_features(input_shape)
        return (*input_shape[:-1], input_shape[-1] - 2 * self.num_maps)

    def _check_features(self, input_shape):
        if input_shape[-1] <= 2 * self.num_maps:
            raise ValueError(
                f"PoolingMaps splits the features of its inputs into values, {self.num_maps} "
                f"keys and {self.num_maps} gates: with num_maps={self.num_maps} it expects "
                f"more than {2 * self.num_maps} features. Received: {input_shape[-1]} features "
                f"(input shape {tuple(input_shape)})"
            )

    def get_config(self):
        config = super().get_config()
        del config["keepdims"]
        return {**config, "num_maps": self.num_maps}


POOLINGS = {
    "mean": MeanPooling,
    "sum": SumPooling,
    "max": MaxPooling,
    "logsumexp": LogSumExpPooling,
    "causal_mean": CausalMeanPooling,
    "causal": CausalMeanPooling,
    "pooling_maps": PoolingMaps,
}


def get_pooling(identifier, **kwargs):
    """Resolves a name, a configuration, a layer or a callable to a pooling.

    Args:
        identifier: A name such as `"mean"`, a serialised layer, a layer, or any callable
            `pooling(inputs, mask=None, weights=None)`.
        **kwargs: Arguments for a pooling that is made from its name.

    Example:

    >>> import keras_sets
    >>> keras_sets.layers.get_pooling("max", keepdims=True).keepdims
    True
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in POOLINGS:
        return POOLINGS[identifier](**kwargs)
    if callable(identifier) and not isinstance(identifier, type):
        return identifier
    names = ", ".join(repr(name) for name in POOLINGS)
    raise ValueError(
        f"Received an invalid value for `pooling`, expected one of {names}, or a layer or "
        f"callable `pooling(inputs, mask=None, weights=None)`. Received: pooling={identifier!r}"
    )


def serialize_pooling(pooling, dtype=None):
    """Inverse of `get_pooling`: the name of a plain pooling, else its configuration.

    `dtype` is the dtype policy that a pooling made from its name will get, None for any.
    """
    same_dtype = dtype is None or getattr(pooling, "dtype_policy", None) == dtype
    for name, cls in POOLINGS.items():
        if type(pooling) is cls and same_dtype and _options(pooling) == _options(cls(name=name)):
            return name
    return serialize_part(pooling)


def serialize_part(layer):
    """The configuration of a layer whose owner builds it, so without a shape of its own."""
    config = keras.saving.serialize_keras_object(layer)
    if isinstance(config, dict):
        config.pop("build_config", None)
    return config


def _options(pooling):
    """The configuration of a pooling but for what every layer has."""
    common = ("name", "trainable", "dtype")
    return {key: value for key, value in pooling.get_config().items() if key not in common}


def build_pooling(pooling, input_shape):
    if isinstance(pooling, keras.layers.Layer) and not pooling.built:
        pooling.build(input_shape)


def pooled_features(pooling, features):
    """Width of what a pooling makes of `features` features."""
    if isinstance(pooling, keras.layers.Layer):
        return pooling.compute_output_shape((None, None, features))[-1]
    return pooling(keras.KerasTensor((2, 3, features))).shape[-1]


def equivariance_of(pooling):
    """The symmetry of a layer that shares a pooled vector among its entities."""
    return "causal" if getattr(pooling, "symmetry", None) == "causal" else "equivariant"


def apply_pooling(pooling, x, mask, weights):
    """The pooled vector at every entity's place, broadcastable against `x`.

    `(batch, features)` becomes `(batch, 1, ..., 1, features)`; a causal pooling's
    `(batch, *entities, features)` stays. Its dtype is that of `x`: a pooling that was made
    elsewhere has a dtype policy of its own.
    """
    elsewhere = _ELSEWHERE.pool
    if elsewhere is not None:
        pooled = elsewhere(pooling, x, mask, weights)
    else:
        pooled = pooling(x, mask=mask, weights=weights)
    if len(pooled.shape) == 2:
        pooled = set_ops.expand_over_entities(pooled, len(x.shape))
    return pooled if pooled.dtype == x.dtype else ops.cast(pooled, x.dtype)


def pool_alone(pooling, x):
    """What every entity pools to as a set of its own, `(batch, *entities, features)`."""
    with pooling_elsewhere(None):
        alone = ops.reshape(x, (-1, 1, x.shape[-1]))
        pooled = apply_pooling(pooling, alone, None, None)
    return ops.reshape(pooled, ops.shape(x)[:-1] + (pooled.shape[-1],))
