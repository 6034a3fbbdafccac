"""Stacks of SWARM layers."""

import keras

from keras_sets import layers as set_layers
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Initializer
from keras_sets._typing import PoolingLike
from keras_sets.layers.weight_options import own_seed
from keras_sets.models.inputs import STRIDE
from keras_sets.models.inputs import pooling_of_layer
from keras_sets.models.inputs import set_inputs
from keras_sets.models.inputs import stack


def swarm(
    features: int,
    units: int,
    hidden_units: int = 128,
    iterations: int = 10,
    num_layers: int = 1,
    pooling: PoolingLike = "mean",
    context: str = "swarm",
    activation: Activation = "relu",
    dropout: float = 0.0,
    output_pooling: PoolingLike | None = None,
    weighted: bool = False,
    unroll: bool | None = None,
    remat: bool | None = None,
    kernel_initializer: Initializer = "lecun_uniform",
    bias_initializer: Initializer = None,
    principal_axes: bool = False,
    return_iterations: bool = False,
    name: str = "swarm",
) -> keras.Model:
    """Stack of `Swarm` layers; one is often enough.

    Args:
        features: Width of the entities.
        units: Width of the output.
        hidden_units: Width of the cells, and of the layers before the last.
        iterations: How often each layer runs its cell.
        num_layers: Number of `Swarm` layers.
        pooling, context, dropout, unroll, remat: As in `keras_sets.layers.Swarm`. Of a pooling
            layer with weights every further layer has a copy, with weights of its own.
        activation: Between the layers.
        output_pooling: None for one output an entity, `(batch, n, units)`. The name of a
            pooling for one output a set, `(batch, units)`: pooled, then a dense layer.
        weighted: Whether the model takes weights as a third input.
        kernel_initializer, bias_initializer: Of the cells. Biases are uniform in [-1, 1] by
            default (None). Keras' usual `glorot_uniform` and zeros would hardly move the
            gates when entities have few features, and would centre all gates on the
            origin; points in the plane then learn slowly.
        principal_axes: Whether the first layer is a `keras_sets.layers.PrincipalAxes`: then
            location, unit and rotation of a set make no difference.
        return_iterations: Whether the output is that of several iterations of the last layer,
            `(batch, steps, n, units)`: of every fourth one, the last included; of all but the
            first where there are at most four. Train with it and
            `keras_sets.losses.MatchedCrossentropy`, and use the same weights without. Such outputs
            carry no mask: mark padding by labels of -1 or by `sample_weight`. It needs
            `output_pooling=None`.
        name: Name of the model.

    Returns:
        A functional `keras.Model`.

    Symmetry:
        Equivariant to the order of the entities; invariant with `output_pooling`.

    Example:

    >>> import keras_sets
    >>> model = keras_sets.models.swarm(2, 10, hidden_units=128, iterations=10)
    >>> model.count_params()
    135178

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400).
    """
    principal_axes = validation.boolean("principal_axes", principal_axes)
    return_iterations = validation.boolean("return_iterations", return_iterations)
    inputs = set_inputs(features, weighted)
    given_biases = bias_initializer is not None
    if not given_biases:  # which have a seed of their own in every layer
        bias_initializer = keras.initializers.RandomUniform(-1.0, 1.0)

    if return_iterations and output_pooling is not None:
        raise ValueError(
            "`return_iterations` is for models with one output an entity. "
            f"Received: return_iterations=True, output_pooling={output_pooling!r}"
        )

    def own(initializer, depth):
        """One that is given once starts no two layers as copies."""
        return own_seed(initializer, f"swarm_{depth}") if depth else initializer

    def make_layer(width, depth):
        layer = set_layers.Swarm(
            width,
            hidden_units=hidden_units,
            iterations=iterations,
            pooling=pooling_of_layer(pooling, depth),
            context=context,
            dropout=dropout,
            return_iterations="outputs" if return_iterations and depth == num_layers - 1 else False,
            unroll=unroll,
            remat=remat,
            kernel_initializer=own(kernel_initializer, depth),
            bias_initializer=own(bias_initializer, depth) if given_biases else bias_initializer,
            name=f"swarm_{depth}",
        )
        return _some_outputs(layer) if layer.return_iterations else layer

    first = set_layers.PrincipalAxes(name="principal_axes") if principal_axes else None
    return stack(
        name, inputs, make_layer, units, hidden_units, num_layers, activation, output_pooling, first
    )


def _some_outputs(layer):
    """Calls a `Swarm` that returns the outputs of every iteration, of which some are scored."""

    def call(x, **context):
        last = layer.iterations - 1
        stride = STRIDE if last >= STRIDE else 1
        # The first iteration has no pooled state: it counts where it is the only one.
        return layer(x, **context)[:, last % stride or min(stride, last) :: stride]

    return call
