"""The blocks of the Set Transformer, on `keras.layers.MultiHeadAttention`."""

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets.layers.base import SetLayer
from keras_sets.layers.set_normalization import SetNormalization
from keras_sets.layers.weight_options import reseeded

NORMALIZATIONS = ("layer", "set", None)
RESIDUALS = ("post", "clean")


class _SetMultiHeadAttention(keras.layers.MultiHeadAttention):
    """`MultiHeadAttention` to a set: keys have a mask and weights, queries have none.

    Weights, build and projections are those of Keras; the attention itself is
    `keras_sets.ops.set_attention`, because Keras' takes no weights and leaves attention
    to nothing undefined.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, autocast=False, **kwargs)
        self._kernels_made = 0

    def _get_common_kwargs_for_sublayer(self):
        # Keras gives the projections clones of one initializer: with a seed they would
        # start as copies of each other.
        kwargs = super()._get_common_kwargs_for_sublayer()
        for kind in ("kernel_initializer", "bias_initializer"):
            kwargs[kind] = reseeded(kwargs[kind], self._kernels_made)
        self._kernels_made += 1
        return kwargs

    def call(self, queries, keys, present=None, weights=None):
        context = set_ops.set_attention(
            self.query_dense(queries),
            self.key_dense(keys),
            self.value_dense(keys),
            present,
            weights,
        )
        return self.output_dense(ops.cast(context, self.compute_dtype))


class _AttentionBlock(keras.layers.Layer):
    """Attention of queries to a set and a feed-forward network, both with a residual.

    `residual="post"`: `h = norm(q + attention(q, k)); y = norm(h + feed_forward(h))`.
    `residual="clean"`: `h = q + attention(norm(q), norm(k)); y = h + feed_forward(norm(h))`.
    """

    def __init__(self, owner, to_itself=False, seed_offset=0, **kwargs):
        super().__init__(autocast=False, dtype=owner.dtype_policy, **kwargs)
        self.residual = owner.residual
        self.units = owner.units
        self.dropout = owner.dropout
        self.seed_generator = None
        if owner.dropout > 0:
            seed = None if owner.seed is None else owner.seed + seed_offset
            self.seed_generator = keras.random.SeedGenerator(seed)
        places = 100 * (1 + seed_offset)
        options = {
            "use_bias": owner.use_bias,
            "kernel_regularizer": owner.kernel_regularizer,
            "bias_regularizer": owner.bias_regularizer,
            "dtype": self.dtype_policy,
        }

        def initializers(place):
            return {
                "kernel_initializer": reseeded(owner.kernel_initializer, places + place),
                "bias_initializer": reseeded(owner.bias_initializer, places + place),
            }

        self.attention = _SetMultiHeadAttention(
            owner.num_heads,
            owner.units // owner.num_heads,
            flash_attention=False,
            name="attention",
            **initializers(0),
            **options,
        )
        widths = [owner.feed_forward_units or owner.units] * (owner.feed_forward_layers - 1)
        self.feed_forward = [
            keras.layers.Dense(
                width,
                activation=owner.feed_forward_activation,
                name=f"feed_forward_{i}",
                **initializers(10 + i),
                **options,
            )
            for i, width in enumerate([*widths, owner.units])
        ]

        def normalization(name):
            if owner.normalization is None:
                return None
            cls = {"layer": keras.layers.LayerNormalization, "set": SetNormalization}
            return cls[owner.normalization](
                epsilon=owner.epsilon, dtype=self.dtype_policy, name=name
            )

        self.attention_normalization = normalization("attention_normalization")
        self.feed_forward_normalization = normalization("feed_forward_normalization")
        self.key_normalization = None
        if self.residual == "clean" and not to_itself:
            self.key_normalization = normalization("key_normalization")

    def build(self, queries_shape, keys_shape):
        self.attention.build(queries_shape, keys_shape)
        shape = queries_shape
        for layer in self.feed_forward:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        for layer in (self.attention_normalization, self.feed_forward_normalization):
            if layer is not None:
                layer.build(queries_shape)
        if self.key_normalization is not None:
            self.key_normalization.build(keys_shape)
        self.built = True

    def call(
        self,
        queries,
        keys,
        present=None,
        weights=None,
        keys_present=None,
        keys_weights=None,
        training=None,
    ):
        """Mask and weights of the queries count for their normalisation only."""
        before, after = self.attention_normalization, self.feed_forward_normalization
        if self.residual == "post":
            h = queries + self._drop(
                self.attention(queries, keys, keys_present, keys_weights), training
            )
            h = _normalize(before, h, present, weights)
            h = h + self._drop(self._feed_forward(h), training)
            return _normalize(after, h, present, weights)
        to_itself = keys is queries
        normalized = _normalize(before, queries, present, weights)
        if to_itself:
            keys = normalized
        else:
            keys = _normalize(self.key_normalization, keys, keys_present, keys_weights)
        h = queries + self._drop(
            self.attention(normalized, keys, keys_present, keys_weights), training
        )
        normalized = _normalize(after, h, present, weights)
        return h + self._drop(self._feed_forward(normalized), training)

    def _feed_forward(self, x):
        for layer in self.feed_forward:
            x = layer(x)
        return x

    def _drop(self, x, training):
        """Drops features; the entities of a set share one mask."""
        if not training or self.seed_generator is None:
            return x
        factors = ops.ones((ops.shape(x)[0], 1, self.units), dtype=self.compute_dtype)
        return x * keras.random.dropout(factors, self.dropout, seed=self.seed_generator)


def _normalize(layer, x, present, weights):
    if layer is None:
        return x
    if isinstance(layer, SetNormalization):
        # Not `layer(x, mask=...)`: the result would carry a mask on to the Dense layers.
        return layer.normalize(x, present, weights)
    return layer(x)


class _SetAttention(SetLayer):
    """The arguments that the attention blocks share."""

    def __init__(
        self,
        units,
        num_heads,
        normalization="layer",
        residual="post",
        feed_forward_layers=4,
        feed_forward_units=None,
        feed_forward_activation="relu",
        dropout=0.0,
        epsilon=1e-5,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        seed=None,
        **kwargs,
    ):
        units = validation.positive_integer("units", units)
        num_heads = validation.positive_integer("num_heads", num_heads)
        if units % num_heads:
            raise ValueError(
                "The heads share the width of the layer: expected `units` to be a multiple of "
                f"`num_heads`. Received: units={units}, num_heads={num_heads}"
            )
        validation.one_of("normalization", normalization, NORMALIZATIONS)
        validation.one_of("residual", residual, RESIDUALS)
        feed_forward_layers = validation.positive_integer(
            "feed_forward_layers", feed_forward_layers
        )
        if feed_forward_units is not None:
            feed_forward_units = validation.positive_integer(
                "feed_forward_units", feed_forward_units
            )
        dropout = validation.fraction("dropout", dropout)
        epsilon = validation.positive_number("epsilon", epsilon)
        super().__init__(**kwargs)
        self.units = units
        self.num_heads = num_heads
        self.normalization = normalization
        self.residual = residual
        self.feed_forward_layers = feed_forward_layers
        self.feed_forward_units = feed_forward_units
        self.feed_forward_activation = keras.activations.get(feed_forward_activation)
        self.dropout = dropout
        self.epsilon = epsilon
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.seed = seed
        self.input_projection = None

    def _build_input_projection(self, input_shape):
        """Adds a Dense where the width of the inputs is not that of the residual."""
        if input_shape[-1] == self.units:
            return
        self.input_projection = keras.layers.Dense(
            self.units,
            use_bias=self.use_bias,
            kernel_initializer=reseeded(self.kernel_initializer, 50),
            bias_initializer=self.bias_initializer,
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            dtype=self.dtype_policy,
            name="input_projection",
        )
        self.input_projection.build(input_shape)

    def _prepare_flat(self, inputs, mask, weights, inputs_mask):
        """`prepare`, with the entity axes merged to one, and the projection done."""
        x, present, weights = self.prepare(inputs, mask, weights, inputs_mask)
        x = set_ops.flatten_entities(x)
        if present is not None:
            present = ops.reshape(present, ops.shape(x)[:2])
        if weights is not None:
            weights = ops.reshape(weights, ops.shape(x)[:2])
        if self.input_projection is not None:
            x = set_ops.zero_absent(self.input_projection(x), present)
        return x, present, weights

    def _points(self, points, x):
        """`(points, units)` as queries of every set, `(batch, points, units)`."""
        points = ops.expand_dims(self.in_compute_dtype(points), 0)
        return ops.broadcast_to(points, (ops.shape(x)[0], *points.shape[1:]))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num_heads": self.num_heads,
            "normalization": self.normalization,
            "residual": self.residual,
            "feed_forward_layers": self.feed_forward_layers,
            "feed_forward_units": self.feed_forward_units,
            "feed_forward_activation": keras.activations.serialize(self.feed_forward_activation),
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_sets")
class SetAttentionBlock(_SetAttention):
    """Every entity attends to all entities of its set.

    ```
    h = norm(x + attention(x, x))
    y = norm(h + feed_forward(h))
    ```

    or, with `residual="clean"`, where nothing stands on the way of the residual,

    ```
    h = x + attention(norm(x), norm(x))
    y = h + feed_forward(norm(h))
    ```

    An entity of weight w counts like w copies: the attention scores get `+ log w`. The
    cost is quadratic in the number of entities. Inputs of another width than `units` are
    projected to it first.

    Args:
        units: Positive integer, width of the output, a multiple of `num_heads`.
        num_heads: Positive integer.
        normalization: `"layer"`, `"set"` (`keras_sets.layers.SetNormalization`) or None.
        residual: `"post"` or `"clean"`, see above.
        feed_forward_layers: Positive integer, how many Dense layers the feed-forward
            network has. Each has an activation, the last one too.
        feed_forward_units: Width of these layers but the last. None is `units`.
        feed_forward_activation: Activation function.
        dropout: Fraction of the features of the attention and of the feed-forward network
            to drop at training. The entities of a set share one mask.
        epsilon: Small positive number added to the variances.
        use_bias: Whether the projections and the feed-forward network have biases.
        kernel_initializer, bias_initializer: Initializers.
        kernel_regularizer, bias_regularizer: Regularizers.
        seed: Seed of the dropout.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
        training: Whether to apply dropout.

    Output shape:
        `(batch, *entities, units)`.

    Masking:
        Masked entities change no output but their own, which is 0. Attention to nothing
        is 0. The mask is passed on.

    Symmetry:
        Equivariant to permutations of the entities; a common factor of the weights does
        not matter.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.SetAttentionBlock(8, num_heads=2)
    >>> layer(np.ones((2, 5, 3))).shape == (2, 5, 8)
    True

    Reference:
        [Lee et al., 2019, Set Transformer](https://arxiv.org/abs/1810.00825), equation 8;
        [Zhang et al., 2022, Set Norm and Equivariant Skip
        Connections](https://arxiv.org/abs/2206.11925) for the clean path.
    """

    def __init__(self, units, num_heads, **kwargs):
        super().__init__(units, num_heads, **kwargs)
        self.block = _AttentionBlock(self, to_itself=True, name="block")

    def build(self, input_shape):
        self._build_input_projection(input_shape)
        shape = (input_shape[0], None, self.units)
        self.block.build(shape, shape)
        self.built = True

    def call(self, inputs, mask=None, weights=None, training=None, inputs_mask=None):
        x, present, weights = self._prepare_flat(inputs, mask, weights, inputs_mask)
        y = self.block(x, x, present, weights, present, weights, training=training)
        y = set_ops.zero_absent(y, present)
        return ops.reshape(y, ops.shape(inputs)[:-1] + (self.units,))


@keras.saving.register_keras_serializable(package="keras_sets")
class InducedSetAttentionBlock(_SetAttention):
    """Entities attend to a few points that have attended to the set.

    ```
    h = block(inducing_points, x)
    y = block(x, h)
    ```

    where `block(q, k)` lets q attend to k, as in `keras_sets.layers.SetAttentionBlock`.
    The cost is linear in the number of entities.

    Args:
        units: Positive integer, width of the output, a multiple of `num_heads`.
        num_heads: Positive integer.
        num_inducing_points: Positive integer.
        inducing_points_initializer: Initializer of the points, `(num_inducing_points,
            units)`.
        normalization, residual, feed_forward_layers, feed_forward_units,
        feed_forward_activation, dropout, epsilon, use_bias, kernel_initializer,
        bias_initializer, kernel_regularizer, bias_regularizer, seed: As in
            `keras_sets.layers.SetAttentionBlock`.

    Call arguments, output shape, masking, symmetry:
        As for `keras_sets.layers.SetAttentionBlock`.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.InducedSetAttentionBlock(8, 2, num_inducing_points=4)
    >>> layer(np.ones((2, 50, 3))).shape == (2, 50, 8)
    True

    Reference:
        [Lee et al., 2019, Set Transformer](https://arxiv.org/abs/1810.00825), equations 9
        and 10.
    """

    def __init__(
        self,
        units,
        num_heads,
        num_inducing_points,
        inducing_points_initializer="glorot_uniform",
        **kwargs,
    ):
        num_inducing_points = validation.positive_integer(
            "num_inducing_points", num_inducing_points
        )
        super().__init__(units, num_heads, **kwargs)
        self.num_inducing_points = num_inducing_points
        self.inducing_points_initializer = keras.initializers.get(inducing_points_initializer)
        self.inducing_block = _AttentionBlock(self, name="inducing_block")
        self.block = _AttentionBlock(self, seed_offset=1, name="block")

    def build(self, input_shape):
        self.inducing_points = self.add_weight(
            name="inducing_points",
            shape=(self.num_inducing_points, self.units),
            initializer=self.inducing_points_initializer,
        )
        self._build_input_projection(input_shape)
        entities = (input_shape[0], None, self.units)
        points = (input_shape[0], self.num_inducing_points, self.units)
        self.inducing_block.build(points, entities)
        self.block.build(entities, points)
        self.built = True

    def call(self, inputs, mask=None, weights=None, training=None, inputs_mask=None):
        x, present, weights = self._prepare_flat(inputs, mask, weights, inputs_mask)
        points = self._points(self.inducing_points, x)
        h = self.inducing_block(points, x, None, None, present, weights, training=training)
        y = self.block(x, h, present, weights, training=training)
        y = set_ops.zero_absent(y, present)
        return ops.reshape(y, ops.shape(inputs)[:-1] + (self.units,))

    def get_config(self):
        return {
            **super().get_config(),
            "num_inducing_points": self.num_inducing_points,
            "inducing_points_initializer": keras.initializers.serialize(
                self.inducing_points_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="keras_sets")
class PoolingByMultiheadAttention(_SetAttention):
    """Pools a set to a few vectors: seeds attend to its entities.

    `y = block(seeds, x)`, where `block(q, k)` lets q attend to k, as in
    `keras_sets.layers.SetAttentionBlock`. Inputs may have any width.

    Args:
        units: Positive integer, width of the output, a multiple of `num_heads`.
        num_heads: Positive integer.
        num_seeds: Positive integer, how many vectors to make of a set.
        seeds_initializer: Initializer of the seeds, `(num_seeds, units)`.
        normalization, residual, feed_forward_layers, feed_forward_units,
        feed_forward_activation, dropout, epsilon, use_bias, kernel_initializer,
        bias_initializer, kernel_regularizer, bias_regularizer, seed: As in
            `keras_sets.layers.SetAttentionBlock`.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
        training: Whether to apply dropout.

    Output shape:
        `(batch, num_seeds, units)`.

    Masking:
        Masked entities do not count, whatever they hold. The attention to a set without
        entities is 0. The output has no mask.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.PoolingByMultiheadAttention(8, num_heads=2, num_seeds=4)
    >>> layer(np.ones((2, 50, 3))).shape == (2, 4, 8)
    True

    Reference:
        [Lee et al., 2019, Set Transformer](https://arxiv.org/abs/1810.00825), equation 11.
    """

    symmetry = "invariant"

    def __init__(self, units, num_heads, num_seeds=1, seeds_initializer="glorot_uniform", **kwargs):
        num_seeds = validation.positive_integer("num_seeds", num_seeds)
        super().__init__(units, num_heads, **kwargs)
        self.num_seeds = num_seeds
        self.seeds_initializer = keras.initializers.get(seeds_initializer)
        self.block = _AttentionBlock(self, name="block")

    def build(self, input_shape):
        self.seeds = self.add_weight(
            name="seeds",
            shape=(self.num_seeds, self.units),
            initializer=self.seeds_initializer,
        )
        seeds = (input_shape[0], self.num_seeds, self.units)
        self.block.build(seeds, (input_shape[0], None, input_shape[-1]))
        self.built = True

    def call(self, inputs, mask=None, weights=None, training=None, inputs_mask=None):
        x, present, weights = self._prepare_flat(inputs, mask, weights, inputs_mask)
        seeds = self._points(self.seeds, x)
        return self.block(seeds, x, None, None, present, weights, training=training)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_seeds, self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "num_seeds": self.num_seeds,
            "seeds_initializer": keras.initializers.serialize(self.seeds_initializer),
        }
