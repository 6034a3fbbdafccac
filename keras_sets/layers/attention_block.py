"""The block of the Set Transformer, on `keras.layers.MultiHeadAttention`."""

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets.layers.over_sets import attention_over_set
from keras_sets.layers.over_sets import mean_over_set
from keras_sets.layers.set_normalization import SetNormalization
from keras_sets.layers.weight_options import own_seed


class SetMultiHeadAttention(keras.layers.MultiHeadAttention):
    """`MultiHeadAttention` to a set: keys have a mask and weights, queries have none.

    Weights, build and projections are those of Keras; the attention itself is
    `keras_sets.ops.set_attention`, because Keras' takes no weights and leaves attention
    to nothing undefined.

    Args:
        to_points: Whether the keys are points of a layer, in place of entities of a set.
    """

    def __init__(self, *args, to_points=False, **kwargs):
        super().__init__(*args, autocast=False, **kwargs)
        self.to_points = to_points
        self._kernels_made = 0

    def _get_common_kwargs_for_sublayer(self):
        # Keras gives the projections clones of one initializer: with a seed they would
        # start as copies of each other.
        kwargs = {**super()._get_common_kwargs_for_sublayer(), "trainable": self.trainable}
        for kind in ("kernel_initializer", "bias_initializer"):
            kwargs[kind] = own_seed(kwargs[kind], f"projection_{self._kernels_made}")
        self._kernels_made += 1
        return kwargs

    def _build_attention(self, rank):
        """Nothing: what Keras' own attention would be made of."""

    def call(self, queries, keys, present=None, weights=None, factors=None):
        """`(queries, attention)`: what the attention is added to, and the attention."""
        context = self._attend(self.query_dense(queries), keys, present, weights, factors)
        return queries, self.output_dense(context)

    def _attend(self, queries, keys, present, weights, factors):
        if self.to_points:
            context = set_ops.set_attention(
                queries, self.key_dense(keys), self.value_dense(keys), present, weights, factors
            )
        else:
            context = attention_over_set(
                queries, keys, self.key_dense, self.value_dense, present, weights, factors
            )
        return ops.cast(context, self.compute_dtype)


class ProjectedAttention(SetMultiHeadAttention):
    """Attention as the authors of the Set Transformer have programmed it.

    It is added to the projected queries and is not projected itself; the scores are divided by
    the square root of the whole width, not of that of a head.
    """

    def _make_output_dense(self, query_shape, common_kwargs, name=None):
        return keras.layers.Identity(name=name, dtype=self.dtype_policy, trainable=self.trainable)

    def call(self, queries, keys, present=None, weights=None, factors=None):
        queries = self.query_dense(queries)
        scaled = queries * self.num_heads**-0.5
        context = self._attend(scaled, keys, present, weights, factors)
        shape = (*ops.shape(queries)[:2], self.num_heads * self.key_dim)
        return ops.reshape(queries, shape), ops.reshape(context, shape)


class AttentionBlock(keras.layers.Layer):
    """Attention of queries to a set and a feed-forward network, both with a residual.

    `residual="post"`: `h = norm(q + attention(q, k)); y = norm(h + feed_forward(h))`.
    `residual="clean"`: `h = q + attention(norm(q), norm(k)); y = h + feed_forward(norm(h))`.
    `residual="projected"`: as "post", with the queries and the attention of
    `ProjectedAttention`.

    `points` tells which of the two sides, `"queries"` or `"keys"`, are points of a layer, in
    place of entities of the set. None: the entities attend to themselves.
    """

    def __init__(
        self,
        units,
        num_heads,
        residual,
        normalization,
        epsilon,
        feed_forward_layers,
        feed_forward_units,
        feed_forward_activation,
        dropout,
        attention_dropout,
        seed,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        points=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.residual = residual
        self.points = points
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        drops = dropout > 0 or attention_dropout > 0
        self.seed_generator = keras.random.SeedGenerator(seed) if drops else None
        part_options = {"dtype": self.dtype_policy, "trainable": self.trainable}

        def weight_options(part):
            return {
                "use_bias": use_bias,
                "kernel_initializer": own_seed(kernel_initializer, f"{self.name}/{part}"),
                "bias_initializer": own_seed(bias_initializer, f"{self.name}/{part}"),
                "kernel_regularizer": kernel_regularizer,
                "bias_regularizer": bias_regularizer,
            }

        kinds = {"projected": ProjectedAttention}
        self.attention = kinds.get(residual, SetMultiHeadAttention)(
            num_heads,
            units // num_heads,
            flash_attention=False,
            to_points=points == "keys",
            name="attention",
            **weight_options("attention"),
            **part_options,
        )
        widths = [feed_forward_units or units] * (feed_forward_layers - 1)
        self.feed_forward = [
            keras.layers.Dense(
                width,
                activation=feed_forward_activation,
                name=f"feed_forward_{i}",
                **weight_options(f"feed_forward_{i}"),
                **part_options,
            )
            for i, width in enumerate([*widths, units])
        ]

        def make_normalization(name):
            if normalization is None:
                return None
            cls = {"layer": keras.layers.LayerNormalization, "set": SetNormalization}
            return cls[normalization](epsilon=epsilon, name=name, **part_options)

        self.attention_normalization = make_normalization("attention_normalization")
        self.feed_forward_normalization = make_normalization("feed_forward_normalization")
        self.key_normalization = None
        if residual == "clean" and points is not None:
            self.key_normalization = make_normalization("key_normalization")

    def build(self, queries_shape, keys_shape):
        self.attention.build(queries_shape, keys_shape)
        queries_shape = shape = (*queries_shape[:-1], self.units)
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
        factors = self._attention_factors(queries, keys, training)
        if self.residual != "clean":
            queries, attention = self.attention(queries, keys, keys_present, keys_weights, factors)
            h = ops.cast(queries, self.compute_dtype) + self._drop(attention, training)
            h = self._normalize_queries(before, h, present, weights)
            h = h + self._drop(self._feed_forward(h), training)
            return self._normalize_queries(after, h, present, weights)
        normalized = self._normalize_queries(before, queries, present, weights)
        if self.points is None:
            keys = normalized
        else:
            mean = set_ops.set_mean if self.points == "keys" else mean_over_set
            keys = _normalize(self.key_normalization, keys, keys_present, keys_weights, mean)
        _, attention = self.attention(normalized, keys, keys_present, keys_weights, factors)
        h = queries + self._drop(attention, training)
        normalized = self._normalize_queries(after, h, present, weights)
        return h + self._drop(self._feed_forward(normalized), training)

    def _normalize_queries(self, layer, x, present, weights):
        mean = set_ops.set_mean if self.points == "queries" else mean_over_set
        return _normalize(layer, x, present, weights, mean)

    def _feed_forward(self, x):
        for layer in self.feed_forward:
            x = layer(x)
        return x

    def _attention_factors(self, queries, keys, training):
        """Factors of the attention weights: entities that attend share what they drop."""
        if not training or self.attention_dropout == 0:
            return None
        count = queries.shape[1] if self.points == "queries" else 1
        shape = (ops.shape(keys)[0], self.attention.num_heads, count, ops.shape(keys)[1])
        factors = ops.ones(shape, dtype=set_ops.accumulation_dtype(queries))
        return keras.random.dropout(factors, self.attention_dropout, seed=self.seed_generator)

    def _drop(self, x, training):
        """Drops features of what a part gave; the entities of a set share one mask."""
        x = ops.cast(x, self.compute_dtype)  # the part may have a dtype policy of its own
        if not training or self.dropout == 0:
            return x
        factors = ops.ones((ops.shape(x)[0], 1, self.units), dtype=self.compute_dtype)
        return x * keras.random.dropout(factors, self.dropout, seed=self.seed_generator)


def _normalize(layer, x, present, weights, mean_over):
    if layer is None:
        return x
    if isinstance(layer, SetNormalization):
        # Not `layer(x, mask=...)`: the result would carry a mask on to the Dense layers.
        return ops.cast(layer.normalize(x, present, weights, mean_over), x.dtype)
    return ops.cast(layer(x), x.dtype)
