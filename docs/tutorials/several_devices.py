"""Several devices.

JAX trains on several devices from one script. This script shares the sets of a batch among four
devices, then the entities of one large set. It makes four virtual devices out of one processor. On
a machine with several accelerators, leave out the line with `XLA_FLAGS`.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

print(keras.distribution.list_devices())

# ## Data and model
#
# The target of a set is the logarithm of its spread. The mask says which points are real.

rng = np.random.default_rng(0)
spreads = rng.uniform(0.3, 3, size=(512, 1))
points = (spreads[..., None] * rng.normal(size=(512, 40, 2))).astype("float32")
mask = np.arange(40) < rng.integers(10, 41, size=(512, 1))
sets = {"entities": points, "mask": mask}
targets = np.log(spreads).astype("float32")


def make_model():
    keras.utils.set_random_seed(0)
    model = keras_sets.models.swarm(2, 1, hidden_units=16, iterations=2, output_pooling="mean")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


# ## One device

model = make_model()
one = model.fit(sets, targets, batch_size=64, epochs=20, verbose=0).history["loss"]

# ## Four devices, each with a quarter of every batch
#
# One line before the model is made is all. Each device holds all weights and 16 of the 64 sets.
# The losses are those of one device up to rounding.

keras.distribution.set_distribution(keras.distribution.DataParallel())
model = make_model()
four = model.fit(sets, targets, batch_size=64, epochs=20, verbose=0).history["loss"]
print(np.abs(np.array(one) - four).max())

# ## Four devices, each with a quarter of one set
#
# A set of 200,000 points may be too large for one device. `ModelParallel` shards arrays by a
# layout. The layout below shards axis 1 of everything that has an entity axis. Only pooled vectors
# travel between the devices.

SIZE = 200_000


class SetParallel(keras.distribution.ModelParallel):
    def get_data_layout(self, data_shape):
        entities = len(data_shape) > 1 and data_shape[1] == SIZE
        axes = ["batch", "set" if entities else None, None][: len(data_shape)]
        return keras.distribution.TensorLayout(axes, self.device_mesh)


mesh = keras.distribution.DeviceMesh((1, 4), ["batch", "set"])
everywhere = keras.distribution.LayoutMap(mesh)
keras.distribution.set_distribution(SetParallel(layout_map=everywhere, batch_dim_name="batch"))

large = make_model()
large.set_weights(model.get_weights())
spread = 1.5
entities = (spread * rng.normal(size=(1, SIZE, 2))).astype("float32")
estimate = large.predict({"entities": entities, "mask": np.ones((1, SIZE), bool)}, verbose=0)
print(estimate.item(), np.log(spread))

figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
axis.semilogy(range(1, 21), one, label="one device", linewidth=4, alpha=0.4)
axis.semilogy(range(1, 21), four, label="four devices", linestyle="--", color="black")
axis.set(xlabel="epoch", ylabel="loss")
axis.legend()
figure.savefig("several_devices.png", dpi=110)

# ![Both losses fall alike](../images/tutorials/several_devices.png)
#
# [Several devices](../devices.md) lists what else is possible, and the limits.
