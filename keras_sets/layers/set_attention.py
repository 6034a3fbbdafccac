"""The layers of the Set Transformer."""

from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import Initializer
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.attention_block import AttentionBlock
from keras_sets.layers.base import SetLayer
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import entities as entity_ops

NORMALIZATIONS = ("layer", "set", None)
RESIDUALS = ("post", "clean", "projected")


class SetAttention(PartOptions, SetLayer):
    """The arguments that the attention blocks share."""

    def __init__(
        self,
        units: int,
        num_heads: int,
        normalization: str | None = "layer",
        residual: str = "post",
        feed_forward_layers: int = 4,
        feed_forward_units: int | None = None,
        feed_forward_activation: Activation = "relu",
        dropout: float = 0.0,
        epsilon: float = 1e-5,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        seed: int | None = None,
        attention_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        num_heads = validation.positive_integer("num_heads", num_heads)
        validation.check_heads("units", units, num_heads)
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
        attention_dropout = validation.fraction("attention_dropout", attention_dropout)
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
        self.use_bias = validation.boolean("use_bias", use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.seed = seed
        self.attention_dropout = attention_dropout
        self.input_projection = None

    @property
    def _parts(self):
        return self._flatten_layers(include_self=False, recursive=False)

    def _build_input_projection(self, input_shape):
        """Adds a Dense where the width of the inputs is not that of the residual.

        Returns the shape that entities have after it.
        """
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: input_shape[-1]})
        entities = (input_shape[0], None, self.units)
        if input_shape[-1] == self.units or self.residual == "projected":
            return (*entities[:-1], input_shape[-1])
        self.input_projection = self._dense("input_projection")
        self.input_projection.build(input_shape)
        return entities

    def _block(self, name, seed, points=None):
        return AttentionBlock(
            units=self.units,
            num_heads=self.num_heads,
            residual=self.residual,
            normalization=self.normalization,
            epsilon=self.epsilon,
            feed_forward_layers=self.feed_forward_layers,
            feed_forward_units=self.feed_forward_units,
            feed_forward_activation=self.feed_forward_activation,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            seed=seed,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            points=points,
            name=name,
            **self._part_arguments(),
        )

    def _dense(self, name, activation=None):
        """A Dense layer beside the blocks, with the options of the weights."""
        return keras.layers.Dense(
            self.units,
            activation=activation,
            use_bias=self.use_bias,
            kernel_initializer=own_seed(self.kernel_initializer, name),
            bias_initializer=own_seed(self.bias_initializer, name),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            name=name,
            **self._part_arguments(),
        )

    def _project_inputs(self, x, mask):
        """Entities of the width of the residual."""
        if self.input_projection is None:
            return x
        projected = ops.cast(self.input_projection(x), self.compute_dtype)
        return set_ops.apply_mask(projected, mask)

    def _points(self, points, x):
        """`(points, units)` as queries of every set, `(batch, points, units)`."""
        points = ops.expand_dims(self.in_compute_dtype(points), 0)
        return ops.broadcast_to(points, (ops.shape(x)[0], *points.shape[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
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
            "attention_dropout": self.attention_dropout,
        }


@keras.saving.register_keras_serializable(package="keras_sets")
class SetAttentionBlock(SetAttention):
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

    or, with `residual="projected"`, as the authors' code has it, where the residual is the
    projected query, the heads are not projected back, and the scores are divided by the square
    root of `units`,

    ```
    h = norm(query(x) + attention(query(x), key(x), value(x)))
    y = norm(h + feed_forward(h))
    ```

    (`feed_forward_layers=1` and `normalization=None` or `"layer"` make it theirs, see
    `keras_sets.convert.load_torch_set_transformer`.)

    An entity of weight w counts like w copies: the attention scores get `+ log w`. The
    cost is quadratic in the number of entities. Inputs of another width than `units` are
    projected to it first, but with `residual="projected"`, which does that by itself.

    Args:
        units: Positive integer, width of the output, a multiple of `num_heads`.
        num_heads: Positive integer.
        normalization: `"layer"`, `"set"` (`keras_sets.layers.SetNormalization`) or None.
        residual: `"post"`, `"clean"` or `"projected"`, see above.
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
        attention_dropout: Fraction of the attention weights to drop at training, as `dropout`
            of `keras.layers.MultiHeadAttention` does: an entity that is dropped counts 0, the
            others count `1 / (1 - attention_dropout)` times. Every head draws anew; entities
            that attend share what their head drops. Which entities are dropped depends on
            their places, so the symmetry holds for the distribution of the outputs only.

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

    def __init__(self, units: int, num_heads: int, **kwargs: Any) -> None:
        super().__init__(units, num_heads, **kwargs)
        self.block = self._block("block", self.seed)

    def build(self, input_shape: Shape) -> None:
        entities = self._build_input_projection(input_shape)
        self.block.build(entities, entities)
        self._restore_parts()
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        shape = (*ops.shape(x)[:-1], self.units)
        x, mask, weights = entity_ops.flatten_set(x, mask, weights)
        x = self._project_inputs(x, mask)
        y = self.block(x, x, mask, weights, mask, weights, training=training)
        y = set_ops.apply_mask(y, mask)
        return ops.reshape(y, shape)


@keras.saving.register_keras_serializable(package="keras_sets")
class InducedSetAttentionBlock(SetAttention):
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
        bias_initializer, kernel_regularizer, bias_regularizer, seed, attention_dropout: As in
            `keras_sets.layers.SetAttentionBlock`. Every inducing point draws anew.

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
        units: int,
        num_heads: int,
        num_inducing_points: int,
        inducing_points_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        num_inducing_points = validation.positive_integer(
            "num_inducing_points", num_inducing_points
        )
        super().__init__(units, num_heads, **kwargs)
        self.num_inducing_points = num_inducing_points
        self.inducing_points_initializer = keras.initializers.get(inducing_points_initializer)
        self.inducing_block = self._block("inducing_block", self.seed, points="queries")
        seed = None if self.seed is None else self.seed + 1
        self.block = self._block("block", seed, points="keys")

    def build(self, input_shape: Shape) -> None:
        self.inducing_points = self.add_weight(
            name="inducing_points",
            shape=(self.num_inducing_points, self.units),
            initializer=self.inducing_points_initializer,
        )
        entities = self._build_input_projection(input_shape)
        points = (input_shape[0], self.num_inducing_points, self.units)
        self.inducing_block.build(points, entities)
        self.block.build(entities, points)
        self._restore_parts()
        self.built = True

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        shape = (*ops.shape(x)[:-1], self.units)
        x, mask, weights = entity_ops.flatten_set(x, mask, weights)
        x = self._project_inputs(x, mask)
        points = self._points(self.inducing_points, x)
        h = self.inducing_block(points, x, None, None, mask, weights, training=training)
        y = self.block(x, h, mask, weights, training=training)
        y = set_ops.apply_mask(y, mask)
        return ops.reshape(y, shape)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_inducing_points": self.num_inducing_points,
            "inducing_points_initializer": keras.initializers.serialize(
                self.inducing_points_initializer
            ),
        }
