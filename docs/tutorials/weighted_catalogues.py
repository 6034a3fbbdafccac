"""Weighted catalogues and deep mixtures.

A catalogue often misses entities: faint stars, rare cells, expensive samples. If the probability
of being observed is known, a weight of one over that probability repairs the catalogue. A network
whose layers take weights can use such a catalogue, although it was trained on complete ones.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# ## A network for complete catalogues
#
# Every catalogue holds 100 draws from a normal distribution. The network estimates the mean and the
# standard deviation. All poolings are means, so the set size makes no difference.


def draw(sets, entities):
    """Catalogues `(sets, entities, 1)`, and mean and standard deviation of each."""
    parameters = np.stack([rng.uniform(-1, 1, sets), rng.uniform(0.5, 1.5, sets)], axis=1)
    x = parameters[:, None, :1] + parameters[:, None, 1:] * rng.normal(size=(sets, entities, 1))
    return x.astype("float32"), parameters.astype("float32")


def inputs_of(x, weights=None):
    mask = np.ones(x.shape[:2], bool)
    weights = np.ones(x.shape[:2]) if weights is None else weights
    return {"entities": x, "mask": mask, "weights": weights.astype("float32")}


model = keras_sets.models.deep_sets(
    1, 2, hidden_units=32, num_layers=2, pooling="mean", output_pooling="mean", weighted=True
)
x, parameters = draw(1000, 100)
model.compile(keras.optimizers.Adam(0.005), "mse")
model.fit(inputs_of(x), parameters, batch_size=50, epochs=12, verbose=0)

# ## Catalogues with a selection
#
# Here large values are missed more often: an entity is observed with probability
# $1 / (1 + e^{x})$. Complete catalogues, selected ones, and selected ones with weights:

complete, truth = draw(100, 500)
probability = 1 / (1 + np.exp(complete[..., 0]))
observed = rng.random(probability.shape) < probability
selected = np.where(observed[..., None], complete, 0.0)
weights = observed / probability

answers = {
    "complete": model.predict(inputs_of(complete), verbose=0),
    "selected": model.predict(inputs_of(selected, observed), verbose=0),
    "selected, weighted": model.predict(inputs_of(selected, weights), verbose=0),
}
errors = {
    name: float(np.sqrt(np.mean((answer[:, 0] - truth[:, 0]) ** 2)))
    for name, answer in answers.items()
}
print(errors)

figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
for axis, (name, answer) in zip(axes, answers.items(), strict=True):
    axis.plot([-1, 1], [-1, 1], color="gray")
    axis.scatter(truth[:, 0], answer[:, 0], s=8)
    axis.set(title=f"{name}: error {errors[name]:.2f}", xlabel="true mean")
axes[0].set_ylabel("estimate")
figure.savefig("weighted_catalogues.png", dpi=110)

# ![Estimates against true means](../images/tutorials/weighted_catalogues.png)
#
# *The selection pulls the estimates down. The weights repair them. Some scatter remains, because
# few entities carry large weights.*
#
# ## Deep mixtures
#
# Weights may be fractions. Three catalogues with shares 1/3, 1/2 and 1/6 make a mixture: every
# entity gets the share of its catalogue, divided by the size of its catalogue.

shares, sizes = np.array([1 / 3, 1 / 2, 1 / 6]), np.array([1000, 300, 2000])
means = np.array([-1.0, 0.5, 1.0])
parts = [mean + 0.5 * rng.normal(size=size) for mean, size in zip(means, sizes, strict=True)]
mixture = np.concatenate(parts)[None, :, None].astype("float32")
share_of_entity = np.repeat(shares / sizes, sizes)[None]
estimate = model.predict(inputs_of(mixture, share_of_entity), verbose=0)[0, 0]

# The mean of the mixture is the mean of the means, with the shares.

print(estimate, np.sum(shares * means))

# The same answer comes from copies: 2 entities for a share of 1/3 are 3 for 1/2 and 1 for 1/6.

three = np.array([[[-1.0], [0.5], [1.0]]], "float32")
copies = np.repeat(three, [2, 3, 1], axis=1)
by_shares = model.predict(inputs_of(three, shares[None]), verbose=0)
by_copies = model.predict(inputs_of(copies), verbose=0)
print(np.abs(by_shares - by_copies).max())  # rounding, below 1e-5

# [Weights](../concepts/weights.md) has the rules. Keras carries no weights from layer to layer: in
# a model of your own, give `weights=` to every layer.
