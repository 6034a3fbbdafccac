"""Summaries for BayesFlow.

Simulation-based inference finds the parameters that may have made a data set. BayesFlow learns the
posterior from simulations. Where a data set is a set, its summary network should ignore the order.
This script builds one of two layers. Install BayesFlow with `pip install bayesflow`.
"""

import bayesflow as bf
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# ## A simulator
#
# A galaxy cluster has 5 to 50 members. Their velocities are normal, with unknown mean and spread.
# The mask says which members were seen.


def simulate(count):
    mean = rng.normal(size=(count, 1))
    log_spread = rng.normal(-0.5, 0.5, size=(count, 1))
    mask = np.arange(50) < rng.integers(5, 51, size=(count, 1))
    velocity = mean + np.exp(log_spread) * rng.normal(size=(count, 50))
    velocity = np.where(mask, velocity, 0)[..., None]
    numbers = {"mean": mean, "log_spread": log_spread, "velocity": velocity}
    return {name: value.astype("float32") for name, value in numbers.items()} | {"mask": mask}


# ## A summary network
#
# `Swarm` lets the members exchange pooled states. `LogSumExpPooling` also knows how many there are:
# a posterior is narrower with more members.


@keras.saving.register_keras_serializable(package="tutorial")
class SetSummary(bf.networks.SummaryNetwork):
    def __init__(self, summary_dim=8, **kwargs):
        super().__init__(**kwargs)
        self.swarm = keras_sets.layers.Swarm(32, hidden_units=32, iterations=3)
        self.pooling = keras_sets.layers.LogSumExpPooling()
        self.projection = keras.layers.Dense(summary_dim)

    def call(self, x, mask=None):
        return self.projection(self.pooling(self.swarm(x, mask=mask), mask=mask))

    def compute_mask(self, x, previous_mask=None):
        return None  # a summary has no members


# ## Train
#
# The adapter tells BayesFlow which array has which role. The mask goes to the summary network.

adapter = (
    bf.Adapter()
    .concatenate(["mean", "log_spread"], into="inference_variables")
    .rename("velocity", "summary_variables")
    .rename("mask", "summary_mask")
)
workflow = bf.BasicWorkflow(
    simulator=bf.simulators.LambdaSimulator(lambda shape: simulate(*shape), is_batched=True),
    adapter=adapter,
    summary_network=SetSummary(),
    inference_network=bf.networks.CouplingFlow(
        depth=4, subnet_kwargs={"widths": (64, 64), "dropout": None}
    ),
    initial_learning_rate=0.002,
)
workflow.fit_online(epochs=10, num_batches_per_epoch=100, batch_size=64, verbose=0)

# ## Infer
#
# 200 new clusters, 300 samples of each posterior. The 90 % intervals should hold 90 % of the truth.

test = simulate(200)
observed = {name: test[name] for name in ("velocity", "mask")}
samples = workflow.sample(num_samples=300, conditions=observed)
low, high = np.quantile(samples["mean"][..., 0], [0.05, 0.95], axis=1)
truth = test["mean"][:, 0]
coverage = np.mean((low < truth) & (truth < high))
print(coverage)

members = test["mask"].sum(axis=1)
few, many = (np.mean((high - low)[chosen]) for chosen in (members < 15, members > 35))
print(few, many)  # width of the interval

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
middle = samples["mean"][..., 0].mean(axis=1)
error = [middle - low, high - middle]
axis.errorbar(truth, middle, error, fmt=".", alpha=0.5, linewidth=0.8)
axis.plot([-3, 3], [-3, 3], color="black", linewidth=0.8)
axis.set(xlabel="true mean", ylabel="posterior: mean, 90 % interval")
figure.savefig("bayesflow_summary.png", dpi=110)

# ![Posterior means and intervals against the truth](../images/tutorials/bayesflow_summary.png)
#
# `python -m examples.simulation_based_inference` compares such a network with an exact posterior.
# See [the examples](../examples.md).
