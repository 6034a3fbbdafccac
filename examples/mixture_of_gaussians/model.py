"""The networks that the example compares: an encoder of points, a decoder to a mixture."""

import keras

from examples.common import optimizers
from examples.mixture_of_gaussians.data import DIMENSIONS
from keras_sets import layers
from keras_sets import losses
from keras_sets.layers.mixture_refinement import MixtureRefinement
from keras_sets.layers.zero_absent import ZeroAbsent

PARAMETERS = 1 + 2 * DIMENSIONS


def build(options, slot_iterations=None):
    """The network of `options`, from points `(batch, n, 2)` to `(batch, components, 5)`.

    The outputs are the parameters of `keras_sets.losses.GaussianMixtureLoss`. The slots have
    `options.iterations`, or as many as are given: they share their weights.
    """
    points = keras.Input((None, DIMENSIONS), name="entities")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = encode(options, points, mask)
    # In float32 under every policy: likelihoods are sensitive to the means.
    output = {"name": "output", "dtype": "float32"}
    if options.decoder == "mean":
        x = layers.MeanPooling(name="pooling")(x, mask=mask)
        for i in range(3):
            x = keras.layers.Dense(options.hidden, activation="relu", name=f"decoder_{i}")(x)
        x = keras.layers.Dense(options.components * PARAMETERS, **output)(x)
        outputs = keras.layers.Reshape((options.components, PARAMETERS), name="mixture")(x)
    else:
        block = {"feed_forward_layers": 1}
        slots = layers.PoolingByMultiheadAttention(
            options.hidden, options.heads, options.components, name="pooling", **block
        )(x, mask=mask)
        slots = layers.SetAttentionBlock(options.hidden, options.heads, name="seeds", **block)(
            slots
        )
        if options.decoder == "slots":
            iterations = slot_iterations or options.iterations
            slots = MixtureRefinement(iterations, options.heads, name="slots")(
                slots, x, points, mask
            )
        outputs = keras.layers.Dense(PARAMETERS, **output)(slots)
    return keras.Model({"entities": points, "mask": mask}, outputs, name="mixture_of_gaussians")


def compile_for_points(model, options):
    """Minus the log-likelihood of the points, which are their own targets."""
    model.compile(optimizers.make_optimizer(options), loss=losses.GaussianMixtureLoss())
    return model


def compiled(options):
    """The network of the options, ready to train."""
    return compile_for_points(build(options), options)


def encode(options, x, mask):
    """Features of every point: the encoders of Lee et al. 2019, and SWARM."""
    hidden = options.hidden
    if options.model == "deep-sets":
        # Dense layers know nothing of the mask: NaN in the padding would reach their gradients.
        x = ZeroAbsent(name="present")(x, mask=mask)
        for i in range(options.layers):
            x = keras.layers.Dense(hidden, activation="relu", name=f"encoder_{i}")(x)
        return x
    if options.model == "set-transformer":
        for i in range(2):
            x = layers.InducedSetAttentionBlock(
                hidden,
                options.heads,
                options.inducing_points,
                feed_forward_layers=1,
                name=f"encoder_{i}",
            )(x, mask=mask)
        return x
    if options.model in ("equivariant-mean", "equivariant-max"):
        pooling = options.model.removeprefix("equivariant-")
        for i in range(options.layers):
            x = layers.PermutationEquivariantDense(
                hidden, activation="relu", pooling=pooling, name=f"encoder_{i}"
            )(x, mask=mask)
        return x
    pooling = layers.PoolingMaps(options.maps) if options.model == "swarm-maps" else "mean"
    # The initial biases of `keras_sets.models.swarm`, and for its reasons.
    return layers.Swarm(
        hidden,
        iterations=options.iterations,
        pooling=pooling,
        kernel_initializer="lecun_uniform",
        bias_initializer=keras.initializers.RandomUniform(-1.0, 1.0),
        name="encoder",
    )(x, mask=mask)
