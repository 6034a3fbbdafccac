"""Many workers.

A catalogue of sets, or a single set, can be too large for one machine. Dask sends the parts to
workers, on this machine or on many. This script starts two workers here. Install Dask with
`pip install distributed`.
"""

import functools
import os
import pathlib

import distributed
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

# Of this process and of its workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# ## A network
#
# A set is a patch of the sky: a cluster of stars before a background. The network says of every
# star whether it belongs to the cluster. It learns from small sets.

keras.utils.set_random_seed(0)


def draw(rng, size):
    """Stars `(size, 2)`, and which of them are members of the cluster."""
    member = rng.random(size) < rng.uniform(0.2, 0.6)
    stars = rng.uniform(-3, 3, size=(size, 2))
    stars[member] = rng.uniform(-2, 2, size=2) + 0.3 * rng.normal(size=(member.sum(), 2))
    return stars.astype("float32"), member.astype("int32")


rng = np.random.default_rng(0)
stars, member = map(np.stack, zip(*(draw(rng, 200) for _ in range(1000)), strict=True))
mask = np.ones(stars.shape[:2], bool)
model = keras_sets.models.swarm(2, 2, hidden_units=32, iterations=4)
model.compile(
    keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
model.fit({"entities": stars, "mask": mask}, member, batch_size=50, epochs=12, verbose=0)

# ## Two workers
#
# On a cluster, start `dask scheduler` and one `dask worker` a host, and connect with
# `Client("tcp://scheduler:8786")`. An executor repeats the work of a worker that was lost.

cluster = distributed.SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
client = distributed.Client(cluster)
executor = client.get_executor(pure=False, retries=3)

# ## A catalogue of sets
#
# Each task predicts one part of the catalogue. Dask pickles the network with the function.


def predict(part):
    sets = [draw(np.random.default_rng([1, part, i]), 200 + 10 * i)[0] for i in range(20)]
    dataset = keras_sets.utils.SetDataset(sets, shuffle=False, buckets=1)
    logits = model.predict(dataset, verbose=0)
    return [float(logits[i, : len(x)].argmax(axis=-1).mean()) for i, x in enumerate(sets)]


shares = np.concatenate(list(executor.map(predict, range(10))))
print(shares.shape, shares.mean())  # share of members in each of 200 sets

# ## One set of a million stars
#
# The set lies in ten files. A function stands for each chunk, so that the workers read them.
# Workers send pooled states back, a few numbers a chunk. The process merges them, and sends the
# result along with the next pass.

large, true = draw(np.random.default_rng(2), 1_000_000)
folder = pathlib.Path("sky").resolve()
folder.mkdir(exist_ok=True)
for i, part in enumerate(np.split(large, 10)):
    np.save(folder / f"{i}.npy", part[None])  # one set

readers = [functools.partial(np.load, folder / f"{i}.npy") for i in range(10)]
outputs = keras_sets.models.predict_in_chunks(model, readers, executor=executor)
answers = np.concatenate(list(outputs), axis=1)[0].argmax(axis=-1)
accuracy = np.mean(answers == true)
print(accuracy)

alone = keras_sets.models.predict_in_chunks(model, readers)
same = np.mean(np.concatenate(list(alone), axis=1)[0].argmax(axis=-1) == answers)
print(same)  # share of stars with the same answer without workers
client.close()
cluster.close()

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True, layout="constrained")
for axis, chosen, title in zip(
    axes, (answers == 1, answers == 0), ("members", "others"), strict=True
):
    axis.hist2d(*large[chosen].T, bins=120, range=[[-3, 3], [-3, 3]], cmap="magma")
    axis.set(aspect="equal", xticks=[], yticks=[], title=title)
figure.savefig("many_workers.png", dpi=110)

# ![Densities of the members and of the others](../images/tutorials/many_workers.png)
#
# [Chunks](../concepts/chunks.md) says what each pass computes.
