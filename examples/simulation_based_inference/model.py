"""The summary network, and the BayesFlow workflow that trains it."""

import bayesflow as bf
import keras

from examples.simulation_based_inference.data import PARAMETERS
from examples.simulation_based_inference.data import simulate
from keras_sets import layers


@keras.saving.register_keras_serializable(package="simulation_based_inference")
class SwarmSummary(bf.networks.SummaryNetwork):
    """Summarises a set: a `Swarm` layer, pooled over the entities.

    `LogSumExpPooling` also knows how many entities there are, which a mean does not, and
    the width of a posterior depends on that.
    """

    def __init__(self, summary_dim=8, hidden_units=32, iterations=3, **kwargs):
        super().__init__(**kwargs)
        self.swarm = layers.Swarm(hidden_units, hidden_units=hidden_units, iterations=iterations)
        self.pooling = layers.LogSumExpPooling()
        self.projection = keras.layers.Dense(summary_dim)

    def call(self, x, mask=None):
        return self.projection(self.pooling(self.swarm(x, mask=mask), mask=mask))

    def compute_mask(self, x, previous_mask=None):
        return None  # a summary has no entities


def workflow(rng, learning_rate):
    """Neural posterior estimation of the parameters given a set of draws."""
    return bf.BasicWorkflow(
        simulator=bf.simulators.LambdaSimulator(
            lambda batch_shape: simulate(rng, *batch_shape), is_batched=True
        ),
        adapter=bf.Adapter()
        .concatenate(PARAMETERS, into="inference_variables")
        .rename("points", "summary_variables")
        .rename("mask", "summary_mask"),
        summary_network=SwarmSummary(),
        inference_network=bf.networks.CouplingFlow(
            depth=4, subnet_kwargs={"widths": (64, 64), "dropout": None}
        ),
        initial_learning_rate=learning_rate,
    )
