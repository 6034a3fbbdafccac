"""The networks that the example compares."""

from examples.amortized_clustering.data import MAX_CLUSTERS
from examples.common import optimizers
from keras_sets import losses
from keras_sets import metrics
from keras_sets import models

# Which networks accept weights, and give a point of vanishing weight an output that
# leaves all others alone: with those the confidence can be drawn between the points.
PROBED = ("slots", "swarm", "deep-sets-mean")


def build(options, weighted=False, steps=False):
    """The network of `options.model`, from points to ten logits for every point.

    With `steps` a network of slots or a swarm answers after several of its steps, for training;
    the weights are those of the network without.
    """
    if options.model == "slots":
        return models.slot_clustering(
            options.dimensions,
            MAX_CLUSTERS,
            hidden_units=options.hidden,
            iterations=options.iterations,
            em_steps=options.em_steps,
            num_starts=1 if steps else options.starts,
            # The clusters of the broad prior have many shapes.
            criterion="icl" if options.prior == "broad" else "evidence",
            weighted=weighted,
            return_iterations=steps,
        )
    shared = {
        "features": options.dimensions,
        "units": MAX_CLUSTERS,
        "hidden_units": options.hidden,
        "num_layers": options.layers,
        "dropout": options.dropout,
    }
    if options.model in ("lstm", "sorted-lstm"):
        return models.bidirectional_lstm(**shared, sort=options.model == "sorted-lstm")
    if options.model == "set-transformer":
        return models.set_transformer(
            **shared, num_heads=options.heads, num_inducing_points=options.inducing_points
        )
    shared.update(activation=options.activation, weighted=weighted)
    if options.model == "swarm":
        return models.swarm(
            **shared,
            iterations=options.iterations,
            pooling=options.pooling,
            context=options.context,
            remat=options.remat,
            principal_axes=True,
            return_iterations=steps,
        )
    return models.deep_sets(**shared, pooling=options.model.removeprefix("deep-sets-"))


def compiled(options):
    """The network of the options, ready to train."""
    model = build(options, steps=True)
    model.compile(
        optimizer=optimizers.make_optimizer(options),
        loss=losses.MatchedCrossentropy(),
        # Accuracy takes a matching of its own, at the cost of a step of the slots.
        weighted_metrics=[metrics.AdjustedRandIndex(name="ari")],
    )
    return model


def for_use(model, options):
    """The trained network, with the answer of its last step only; one of slots from all starts."""
    if options.model not in ("slots", "swarm"):
        return model
    network = build(options)
    network.set_weights(model.get_weights())
    return network
