"""What is measured: each function returns `(step, facts)`.

`step()` does the work once and waits for the result. A subject imports its own libraries,
because the backend is chosen for a process.
"""

import concurrent.futures
import os
import tempfile

import numpy as np

from benchmarks.every_layer import LINEAR
from benchmarks.every_layer import every_layer  # noqa: F401, a subject

CLASSES = 10


def _data(sets, points, features):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sets, points, features)).astype("float32")
    return x, rng.integers(0, CLASSES, size=(sets, points))


def original(
    sets,
    points,
    hidden,
    iterations,
    features=2,
    causal=False,
    training=True,
    convolutions=True,
):
    """The original formulation, eager PyTorch."""
    import torch

    from benchmarks.original import Swarm

    device = torch_device()
    model = Swarm(features, CLASSES, hidden, iterations, causal, convolutions).to(device)
    x, y = (torch.from_numpy(array).to(device) for array in _data(sets, points, features))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def train():
        optimizer.zero_grad()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, CLASSES), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer():
        with torch.no_grad():
            return model(x).cpu().numpy()

    return train if training else infer, {"version": torch.__version__}


def torch_device():
    """Where Keras puts tensors on PyTorch."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def network(
    layer,
    sets,
    points,
    hidden,
    iterations,
    features=2,
    causal=False,
    training=True,
    policy="float32",
    remat=None,
    jit_compile="auto",
    keep_memory=False,
):
    """A Keras model of one layer: `swarm`, `lstm` or `isab`, and its projection to classes."""
    import keras

    import keras_sets

    if keep_memory:
        keras_sets.utils.keep_memory()
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((points, features))
    if layer == "swarm":
        outputs = keras_sets.layers.Swarm(
            CLASSES,
            hidden_units=hidden,
            iterations=iterations,
            pooling="causal" if causal else "mean",
            remat=remat,
        )(inputs)
    elif layer == "lstm":
        x = keras.layers.LSTM(hidden, return_sequences=True)(inputs)
        outputs = keras.layers.Dense(CLASSES)(x)
    else:
        x = keras_sets.layers.InducedSetAttentionBlock(hidden, 4, 16)(inputs)
        outputs = keras.layers.Dense(CLASSES)(x)
    outputs = keras.layers.Activation("linear", dtype="float32")(outputs)
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=jit_compile)
    x, y = _data(sets, points, features)

    def train():
        return {"loss": float(np.asarray(model.train_on_batch(x, y)))}

    def infer():
        model.predict_on_batch(x)

    facts = {"version": keras.version(), "parameters": model.count_params()}
    return train if training else infer, facts


def layer(name, entities):
    """Inference with a layer of `LINEAR` and one set of many entities."""
    import keras

    from keras_sets import layers

    x = _data(1, entities, 16)[0]
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, LINEAR[name](layers, 16)(inputs))

    def step():
        model.predict_on_batch(x)

    return step, {}


def chunks(entities, method, chunk=100_000, hidden=32, iterations=10):
    """Inference with a `Swarm` for one set that is never in memory as a whole.

    Args:
        method: `"scratch"` keeps the hidden states in files between the passes, `"anew"`
            computes them anew. `"once"` computes every iteration once in a single pass, as if
            what the set pools to were known. `"passes"` computes one iteration in each of so
            many passes, as if the states before it were in memory.
    """
    import keras

    import keras_sets
    from keras_sets.layers.pooling import ChunkedPoolingScope
    from keras_sets.models.chunk_pass import without_gradients

    model = keras_sets.models.swarm(2, CLASSES, hidden_units=hidden, iterations=iterations)
    known = keras.ops.zeros((1, 1, hidden))

    def parts():
        for start in range(0, entities, chunk):
            rng = np.random.default_rng(start)
            yield rng.normal(size=(1, min(chunk, entities - start), 2)).astype("float32")

    def once():
        for part in parts():
            mask = np.ones(part.shape[:-1], bool)
            with ChunkedPoolingScope(lambda *arguments: known), without_gradients():
                outputs = model({"entities": part, "mask": mask}, training=False)
                yield keras.ops.convert_to_numpy(outputs)

    def passes():
        (swarm,) = (x for x in model.layers if isinstance(x, keras_sets.layers.Swarm))
        pooling = keras_sets.layers.MeanPooling()
        kernels = swarm.kernels()
        for left in reversed(range(iterations)):
            state = pooling.init(1, hidden)
            for part in parts():
                mask = np.ones(part.shape[:-1], bool)
                with without_gradients():
                    zeros = keras.ops.zeros((*part.shape[:-1], hidden))
                    gates = swarm.cell.project_inputs(keras.ops.convert_to_tensor(part))
                    h, c = swarm.step(zeros, zeros, gates, *kernels, lambda h: known)
                    if left:
                        state = pooling.update(state, h, mask)
                    else:
                        yield keras.ops.convert_to_numpy(swarm.project(h, c))

    def step():
        with tempfile.TemporaryDirectory() as folder:
            scratch = folder if method == "scratch" else None
            predict = keras_sets.models.predict_in_chunks
            one_pass = {"once": once, "passes": passes}.get(method)
            outputs = one_pass() if one_pass else predict(model, parts, scratch_dir=scratch)
            assert sum(y.shape[1] for y in outputs) == entities

    return step, {}


def tasks(method, count):
    """Clustering tasks: drawn all at once, or one at a time with SciPy."""
    from examples.amortized_clustering.data import generate_tasks

    def together():
        generate_tasks(count)

    def one_by_one():
        from scipy import stats

        rng = np.random.default_rng(0)
        for _ in range(count):
            clusters, size = rng.integers(3, 11), rng.integers(100, 1001)
            counts = rng.multinomial(size, np.full(clusters, 1 / clusters))
            means = rng.normal(size=(clusters, 2))
            covariances = stats.invwishart.rvs(4, 0.05 * np.eye(2), size=clusters, random_state=rng)
            points = np.concatenate(
                [
                    stats.multivariate_normal.rvs(mean, covariance, n, random_state=rng).reshape(
                        n, 2
                    )
                    for mean, covariance, n in zip(means, covariances, counts, strict=True)
                ]
            )
            order = rng.permutation(size)
            points, _ = points[order], np.repeat(np.arange(clusters), counts)[order]

    return {"together": together, "one_by_one": one_by_one}[method], {}


def epoch(held, tasks=400, hidden=128, iterations=10):
    """An epoch of the clustering example, its batches made on the way or `held` ready."""
    import keras

    from examples.amortized_clustering import data
    from examples.amortized_clustering import model
    from examples.amortized_clustering.__main__ import parse
    from examples.common.datasets import PrefetchedDataset

    arguments = ["--model", "swarm", "--batch-size", 20, "--points", 100, 200]
    arguments += ["--tasks", tasks, "--hidden", hidden, "--iterations", iterations]
    options = parse([str(argument) for argument in arguments])
    network = model.compiled(options)
    training = data.training_data(options)[0]
    dataset = _held(training) if held else PrefetchedDataset(training)

    # What is compiled is traced first, once for each program.
    traces, compute_loss = [], network.compute_loss

    def counted(*arguments, **options):
        traces.append(1)
        return compute_loss(*arguments, **options)

    network.compute_loss = counted

    def step():
        network.fit(dataset, shuffle=False, verbose=0)
        # On JAX Keras traces once more, to make the variables of the metrics.
        backend = keras.config.backend()
        programs = None if backend == "torch" else len(traces) - (backend == "jax")
        return {"steps": len(training), "programs": programs}

    return step, {}


def _held(dataset):
    """The batches of a dataset, all in memory."""
    import keras

    batches = list(dataset)

    class Held(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

    return Held()


def set_epoch(held, sets=1000, hidden=128):
    """An epoch on sets of log-normal sizes, from a `SetDataset` or its batches `held` ready."""
    import keras

    import keras_sets

    targets = np.random.default_rng(1).normal(size=sets)
    dataset = keras_sets.utils.SetDataset(_log_normal_sets(sets, 0.5), targets)
    network = keras_sets.models.deep_sets(2, 1, hidden_units=hidden, output_pooling="mean")
    network.compile(keras.optimizers.SGD(1e-3), "mse")
    shown = _held(dataset) if held else dataset

    def step():
        network.fit(shown, shuffle=False, verbose=0)

    return step, {"steps": len(dataset)}


def padding(sets=1000):
    """The padded share of batches of log-normal sizes, by spread and number of buckets."""
    import keras_sets

    shares = {}
    for spread in (0.25, 0.5, 1.0):
        ragged = _log_normal_sets(sets, spread)
        for buckets in (1, 4, 8):
            dataset = keras_sets.utils.SetDataset(ragged, buckets=buckets, shuffle=True)
            masks = [inputs["mask"] for (inputs,) in dataset]
            real = sum(int(mask.sum()) for mask in masks)
            shares[f"{spread}, {buckets}"] = 1 - real / sum(mask.size for mask in masks)
    return lambda: None, {"shares": shares}


def _log_normal_sets(count, spread):
    """Sets of about 100 points; the logarithms of the sizes have that standard deviation."""
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, np.rint(rng.lognormal(np.log(100), spread, count))).astype(int)
    return [rng.normal(size=(n, 2)) for n in sizes]


def sampling(method, images, side, hidden, iterations, policy="float32"):
    """An image transformer of MNIST's size: `generate`, or one full pass over the images.

    A sampler that runs the whole network for every value makes as many of these passes as an
    image has values, all of the same size.
    """
    import keras

    import keras_sets

    keras.config.set_dtype_policy(policy)
    shape = (side, side, 1)
    model = keras_sets.models.swarm_image_transformer(
        shape, hidden_units=hidden, iterations=iterations
    )
    x = np.random.default_rng(0).integers(0, 256, (images, *shape)).astype("int32")

    def generate():
        return keras_sets.models.generate(model, images, seed=0)

    def full_pass():
        return model.predict_on_batch(x)

    facts = {"version": keras.version(), "values": side * side}
    return generate if method == "generate" else full_pass, facts


def products(
    sets, points, hidden, iterations, causal=False, training=True, policy="float32", **unused
):
    """The matrix products of a step and nothing else, on the Keras backend.

    The first iteration has none, because its state is zero.
    """
    import keras

    backend = keras.config.backend()
    rows, inner = sets * points, hidden * (2 if causal else 1)
    dtype = policy.removeprefix("mixed_")
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=shape).astype("float32")
        for shape in ((rows, inner), (inner, 4 * hidden), (rows, 4 * hidden))
    ]

    def all_products(h, kernel, gates):
        results = []
        for _ in range(iterations - 1):
            results.append(h @ kernel)
            if training:
                results += [gates @ kernel.T, h.T @ gates]
        return results

    if backend == "torch":
        import torch

        to = {"device": torch_device(), "dtype": getattr(torch, dtype)}
        tensors = [torch.from_numpy(array).to(**to) for array in arrays]

        def step():
            with torch.no_grad():
                all_products(*tensors)
            if to["device"] == "cuda":
                torch.cuda.synchronize()
    elif backend == "jax":
        import jax

        tensors = [jax.numpy.asarray(array, dtype) for array in arrays]
        # Every product gets its own scale, or the compiler would do it once.
        scales = jax.numpy.arange(1.0, iterations, dtype=dtype)

        @jax.jit
        def compiled(h, kernel, gates):
            def one(carry, scale):
                results = [(h * scale) @ kernel]
                if training:
                    results += [(gates * scale) @ kernel.T, h.T @ (gates * scale)]
                return [a + b for a, b in zip(carry, results, strict=True)], None

            shapes = [(rows, 4 * hidden), (rows, inner), (inner, 4 * hidden)]
            zeros = [jax.numpy.zeros(s, dtype) for s in shapes[: 3 if training else 1]]
            return jax.lax.scan(one, zeros, scales)[0]

        def step():
            jax.block_until_ready(compiled(*tensors))
    else:
        import tensorflow as tf

        tensors = [tf.constant(array, dtype) for array in arrays]

        def step():
            h, kernel, gates = tensors
            for _ in range(iterations - 1):
                tf.matmul(h, kernel)
                if training:
                    tf.matmul(gates, kernel, transpose_b=True)
                    tf.matmul(h, gates, transpose_a=True)
            tf.test.experimental.sync_devices()

    count = (iterations - 1) * (3 if training else 1)
    return step, {"gigaflop": 2e-9 * rows * inner * 4 * hidden * count, "dtype": dtype}


def traffic(
    sets, points, hidden, iterations, causal=False, training=True, policy="float32", **unused
):
    """The bytes that a step moves if every value is read and written once, copied by NumPy.

    An iteration reads h for the product and writes the gates (1 + 4 times the state), reads
    them, the projected inputs and c (9) and writes h and c (2). The way back reads the gates,
    c and two gradients (7), writes two gradients (5), reads that of the gates and h for two
    products (9), writes the gradient of h (1) and adds to that of the projected inputs (8). A
    running mean is written, read twice and differentiated (3 and 4).
    """
    states = 16 + 3 * causal + (30 + 4 * causal) * training
    width = 4 if policy == "float32" else 2
    moved = width * sets * points * hidden * states * (iterations - 1)
    # Every core copies a part of its own; a copy reads and writes.
    cores = os.cpu_count()
    # Written once: pages that never were are one page of zeros, which the caches hold.
    source = np.ones((cores, max(1, min(moved // 2, 2**26) // cores)), "uint8")
    target = np.ones_like(source)
    pool = concurrent.futures.ThreadPoolExecutor(cores)

    def copy(core):
        left = moved // 2 // cores
        while left > 0:
            np.copyto(target[core, :left], source[core, :left])
            left -= source.shape[1]

    def step():
        list(pool.map(copy, range(cores)))

    return step, {"gigabyte": 1e-9 * moved}
