"""Export a model and serve it.

A trained model can leave Python's Keras: other programs serve the exported file. This script trains
a small model, exports it, and asks the file. [Export and serving](../export.md) has all formats.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# ## Train
#
# Is the spread of a set larger along the first or along the second axis?

spreads = rng.uniform(0.5, 2.0, size=(512, 1, 2))
points = (spreads * rng.normal(size=(512, 40, 2))).astype("float32")
mask = np.arange(40) < rng.integers(10, 41, size=(512, 1))
labels = spreads[:, 0].argmax(axis=1)

model = keras_sets.models.deep_sets(2, 2, hidden_units=32, num_layers=2, output_pooling="mean")
model.compile(
    keras.optimizers.Adam(0.003),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit({"entities": points, "mask": mask}, labels, epochs=12, verbose=0)
print(history.history["accuracy"][-1])

# ## Export
#
# TensorFlow and JAX write a SavedModel. PyTorch writes a file of `torch.export`. Both take every
# batch size and set size. The export asks the file the model's questions before it returns.

backend = keras.config.backend()
format = "torch" if backend == "torch" else "tf_saved_model"
path = keras_sets.export.export_model(model, f"served_{backend}", format=format)

# ## Serve
#
# The process that serves needs TensorFlow or PyTorch, but neither Keras nor this package.

if backend == "torch":
    import torch

    served = torch.export.load(path).module()

    def ask(points, mask):
        return served({"entities": torch.from_numpy(points), "mask": torch.from_numpy(mask)})

else:
    import tensorflow as tf

    served = tf.saved_model.load(str(path))

    def ask(points, mask):
        return served.serve({"entities": points, "mask": mask})


# ## Sets of other sizes
#
# The mask is required. Fill sets up to a few sizes, so that a compiler makes few programs.


def fill_up(one_set, sizes=(64, 128, 256)):
    n = len(one_set)
    size = next(size for size in sizes if size >= n)
    entities = np.zeros((1, size, 2), "float32")
    entities[0, :n] = one_set
    return entities, np.arange(size)[None] < n


wide = (np.array([2.0, 0.7]) * rng.normal(size=(100, 2))).astype("float32")
logits = np.asarray(ask(*fill_up(wide)).detach() if backend == "torch" else ask(*fill_up(wide)))
expected = model.predict_on_batch({"entities": wide[None], "mask": np.ones((1, 100), bool)})
print(np.abs(logits - expected).max())  # rounding, below 1e-4

figure, axis = plt.subplots(figsize=(4, 2.8), layout="constrained")
axis.scatter(*wide.T, s=8)
axis.set(title=f"served answer: axis {logits[0].argmax() + 1}", aspect="equal")
figure.savefig("export_and_serve.png", dpi=110)

# ![A wide set and the served answer](../images/tutorials/export_and_serve.png)
