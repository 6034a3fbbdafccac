"""Runs one check of `test_devices.py` in a process that has several virtual devices.

python -m tests.devices_worker CHECK ARGUMENT...
"""

import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent


def train(*arguments):
    """The clustering command."""
    from examples.amortized_clustering import __main__ as command

    command.main(list(arguments))


def documentation():
    """The largest difference of what the documentation computes from one device's result."""
    import keras
    import numpy as np

    import keras_sets

    text = (ROOT / "docs" / "devices.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown = {}
    exec(code, shown)
    keras.distribution.set_distribution(None)
    single = keras_sets.models.swarm(2, 3, hidden_units=16, iterations=3)
    single.set_weights(shown["model"].get_weights())
    inputs = {"entities": shown["points"], "mask": shown["mask"]}
    return float(np.abs(single.predict(inputs, verbose=0) - shown["outputs"]).max())


def sharded(name):
    """Outputs and gradients of a layer whose set axis is sharded, against one device.

    Returns:
        Dict of the largest difference of outputs and of gradients, in units of the largest
        value, and of the shapes that the compiled step gathers.
    """
    import jax
    import keras
    import numpy as np

    from keras_sets import layers

    makers = {
        "swarm": lambda: layers.Swarm(6, hidden_units=8, iterations=3),
        "dense_logsumexp": lambda: layers.PermutationEquivariantDense(6, pooling="logsumexp"),
        "dense_max": lambda: layers.PermutationEquivariantDense(6, pooling="max"),
        "mean": layers.MeanPooling,
        "sum": layers.SumPooling,
        "normalization": layers.SetNormalization,
        "attention_pooling": lambda: layers.PoolingByMultiheadAttention(8, 2),
        "induced_attention": lambda: layers.InducedSetAttentionBlock(8, 2, 3),
        "attention": lambda: layers.SetAttentionBlock(8, 2),
        "causal_mean": layers.CausalMeanPooling,
    }
    layer = makers[name]()
    size = 128
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, size, 5)).astype("float32")
    mask = np.arange(size) < np.array([[size], [50], [0]])
    weights = rng.uniform(0, 3, (3, size)).astype("float32")
    layer(x, mask=mask, weights=weights)
    variables = [v.value for v in layer.trainable_variables]
    rest = [v.value for v in layer.non_trainable_variables]

    def step(variables, x, mask, weights):
        outputs, _ = layer.stateless_call(variables, rest, x, mask=mask, weights=weights)
        return keras.ops.sum(keras.ops.square(outputs)), outputs

    gradients = jax.jit(jax.value_and_grad(step, argnums=(0, 1), has_aux=True))
    mesh = keras.distribution.DeviceMesh((1, 4), ["batch", "set"])
    distribution = keras.distribution.ModelParallel(
        layout_map=keras.distribution.LayoutMap(mesh), batch_dim_name="batch"
    )

    def shard(array):
        layout = keras.distribution.TensorLayout((None, "set", None)[: array.ndim], mesh)
        return keras.distribution.distribute_tensor(jax.numpy.asarray(array), layout)

    parts = [shard(array) for array in (x, mask, weights)]
    with distribution.scope():
        compiled = gradients.lower(variables, *parts).compile()
    (_, outputs), found = compiled(variables, *parts)
    (_, expected), wanted = gradients(variables, x, mask, weights)

    def largest(trees, of=lambda *leaves: leaves[0]):
        leaves = zip(*map(jax.tree.leaves, trees), strict=True)
        return max(float(np.abs(of(*map(np.asarray, pair))).max()) for pair in leaves)

    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", compiled.as_text())
    return {
        "outputs": largest([outputs, expected], np.subtract) / largest([expected]),
        "gradients": largest([found, wanted], np.subtract) / largest([wanted]),
        "stays": "set" in str(outputs.sharding.spec),
        "gathers": sorted({shape for shape in gathered if str(size) in shape.split(",")}),
    }


def jax_checks(directory, *arguments):
    """One device, then four for an epoch and two for the next; then sets that are sharded."""
    import keras

    first, second = (os.path.join(directory, name) for name in ("one", "several"))
    train(*arguments, "--epochs", "2", "--output", first)
    train(*arguments, "--epochs", "1", "--output", second, "--devices", "4")
    train(*arguments, "--epochs", "2", "--output", second, "--devices", "2", "--resume")
    keras.distribution.set_distribution(None)
    names = ("swarm", "mean", "causal_mean")
    return {
        "documentation": documentation(),
        "sharded": {name: sharded(name) for name in names},
    }


if __name__ == "__main__":
    check, *arguments = sys.argv[1:]
    result = {"train": train, "jax": jax_checks, "sharded": sharded}[check](*arguments)
    print("\n" + json.dumps(result))
