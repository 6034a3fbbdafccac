"""Runs one check of `test_devices.py` in a process that has several virtual devices.

python -m tests.devices_worker CHECK ARGUMENT...
"""

import contextlib
import importlib
import inspect
import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent


# The smallest network of every kind. Some numbers of sets are odd, none of those that train but
# with batch normalization: they would count more than on one device.
EXAMPLES = {
    "amortized_clustering": "--model swarm --buckets 1 --entities 20 20 --batch-size 8 --tasks 63",
    "bags": "--models instance-mean --batch-size 2 --validation-bags 5 --test-bags 7",
    "digit_sum": "--models deep-sets --sets 240 --lengths 5",
    "image_transformer": "--conditional --references",
    "max_regression": "--validation-sets 21 --test-sets 9",
    "mixture_of_gaussians": "--decoder mean --validation-sets 7 --views 1",
    "point_clouds": "--dropout 0",
    "population_statistics": "--models log-variances --validation-sets 5",
    "power_spectrum": "--figure 2 --networks note --depths 1 --widths 4 --sample-sizes 7",
    "set_autoencoder": "--share 0.2 --decoder dense",
    "symmetric_elements": "--models mlp --validation-sets 7",
}


class Trained(Exception):
    """Ends a command that has trained."""


def train(name, *arguments):
    """The command of an example, whose errors are raised.

    A busy machine does not change its learning rate.
    """
    command = importlib.import_module(f"examples.{name}.__main__")
    # Muon takes long to trace.
    fixed = "--smoke --optimizer adam --schedule constant --time-budget 60"
    inspect.unwrap(command.main)([*fixed.split(), *EXAMPLES[name].split(), *arguments])


def train_both(directory, *names):
    """Runs examples on two devices, then on one as far as they train.

    Returns:
        Those that have shared their batches, as far as JAX says so.
    """
    import keras

    from examples.common import plots

    def shared_layout(self, data_shape):
        shared.add(name)
        return layout(self, data_shape)

    layout, shared = keras.distribution.DataParallel.get_data_layout, set()
    keras.distribution.DataParallel.get_data_layout = shared_layout
    plots.save = lambda figure, path: plots.plt.close(figure)
    for name in names:
        one, several = (os.path.join(directory, name, part) for part in ("one", "several"))
        train(name, "--output", several, "--devices", "2")
        keras.distribution.set_distribution(None)
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            tf.distribute.experimental_set_strategy(None)
        with stopping():
            train(name, "--output", one)
    keras.distribution.DataParallel.get_data_layout = layout
    return sorted(shared)


@contextlib.contextmanager
def stopping():
    """Ends a command when it has trained."""
    from examples.common import training

    def stop(self):
        raise Trained

    finish, training.Training.finish = training.Training.finish, stop
    try:
        yield
    except Trained:
        pass
    finally:
        training.Training.finish = finish


def documented(part):
    """The code of the documentation that holds a piece of text."""
    text = (ROOT / "docs" / "devices.md").read_text()
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if part in c)
    return code


def documentation():
    """The largest difference of what the documentation computes from one device's result."""
    import keras
    import numpy as np

    import keras_sets

    shown = {}
    exec(documented("class SetParallel"), shown)
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


def jax_checks(directory):
    """One device, then four for an epoch and two for the next; all examples; sharded sets."""
    import keras

    clustering, *others = EXAMPLES
    first, second = (os.path.join(directory, clustering, name) for name in ("one", "several"))
    train(clustering, "--epochs", "2", "--output", first)
    train(clustering, "--epochs", "1", "--output", second, "--devices", "4")
    train(clustering, "--epochs", "2", "--output", second, "--devices", "2", "--resume")
    keras.distribution.set_distribution(None)
    shared = train_both(directory, *others)
    names = ("swarm", "mean", "causal_mean")
    return {
        "shared": shared,
        "documentation": documentation(),
        "sharded": {name: sharded(name) for name in names},
    }


def set_axis(process=0, processes=1, size=32):
    """Losses of a training in which every process holds its part of each set."""
    import keras
    import numpy as np

    import keras_sets

    if processes > 1:

        class SetParallel(keras.distribution.ModelParallel):
            def get_data_layout(self, data_shape):
                entities = len(data_shape) > 1 and data_shape[1] == size // processes
                axes = ["batch", "set" if entities else None, None][: len(data_shape)]
                return keras.distribution.TensorLayout(axes, self.device_mesh)

        mesh = keras.distribution.DeviceMesh((1, processes), ["batch", "set"])
        layout = keras.distribution.LayoutMap(mesh)
        options = {"layout_map": layout, "batch_dim_name": "batch", "auto_shard_dataset": False}
        keras.distribution.set_distribution(SetParallel(**options))
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(16, size, 2)).astype("float32")
    y = (x - x.mean(axis=1, keepdims=True))[..., :1]
    mask = np.broadcast_to(np.arange(size) < 25, x.shape[:2])
    model = keras_sets.models.swarm(2, 1, hidden_units=8, iterations=3)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    own = np.s_[:, process * size // processes : (process + 1) * size // processes]
    inputs = {"entities": x[own], "mask": mask[own]}
    history = model.fit(inputs, y[own], batch_size=8, epochs=2, shuffle=False, verbose=0)
    return history.history["loss"]


def jax_process(example, *folders):
    """The documented training of one of several processes, in a folder after the other.

    In the last of several folders process 1 dies after the second epoch. Where there is one, the
    run of an example goes on that the processes began where there were several.

    Returns:
        The losses of every folder, what process 0 sees of the death, and the losses of
        `set_axis`.
    """
    import jax
    import keras

    name = next(iter(EXAMPLES))
    run = ("--output", example, "--devices", "2", "--epochs")
    # The default since JAX 0.6.2, as the documentation says.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    code = documented("keras.distribution.initialize()")
    histories, error = [], None
    if len(folders) == 1:
        train(name, *run, "2", "--resume", "--evaluation-tasks", "1")
        sys.stdout = sys.__stdout__
        code = code.replace("keras.distribution.initialize()", "pass")
    for folder in folders:
        dies = len(folders) > 1 and folder == folders[-1]
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        shown = {}
        try:
            with dying_after(1 if dies else None):
                exec(code, shown)
        except Exception as failure:
            error = str(failure)
        else:
            histories.append(shown["history"].history["loss"])
        if folder == folders[0]:
            parts = set_axis(jax.process_index(), jax.process_count())
            if len(folders) > 1:
                keras.distribution.initialize = lambda: None
                with stopping():
                    train(name, *run, "1")
        code = code.replace("keras.distribution.initialize()", "pass")
    return {"losses": histories, "error": error, "set_axis": parts}


@contextlib.contextmanager
def dying_after(epoch):
    """Makes process 1 end without a word after an epoch of `fit`."""
    import jax
    import keras

    fit = keras.Model.fit

    def end(index, logs):
        if index == epoch and jax.process_index() == 1:
            os._exit(1)

    def fit_until(*arguments, callbacks=(), **options):
        last = keras.callbacks.LambdaCallback(on_epoch_end=end)
        return fit(*arguments, callbacks=[*callbacks, last], **options)

    keras.Model.fit = fit_until
    try:
        yield
    finally:
        keras.Model.fit = fit


def torch_process():
    """The documented training of one of several processes, after which process 1 dies."""
    shown = {}
    exec(documented("torch.distributed.init_process_group"), shown)
    if shown["process"] == 1:
        os._exit(1)
    try:
        shown["torch"].distributed.all_reduce(shown["mean"])
    except RuntimeError as error:
        return {"losses": shown["losses"], "error": str(error)}


CHECKS = {
    "train_both": train_both,
    "jax": jax_checks,
    "sharded": sharded,
    "jax_process": jax_process,
    "torch_process": torch_process,
}


if __name__ == "__main__":
    check, *arguments = sys.argv[1:]
    result = CHECKS[check](*arguments)
    print("\n" + json.dumps(result))
    if "process" in check:  # the others may be dead, and are not waited for
        sys.stdout.flush()
        os._exit(0)
