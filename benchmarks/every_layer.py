"""Every kind of layer in training and inference, in two precisions, on one backend."""

import time

import numpy as np

POLICIES = ("float32", "mixed_bfloat16")
FEATURES = 16
CLASSES = 10
ITERATIONS = 3


def _swarm(make_pooling):
    return lambda layers, units: layers.Swarm(
        units, iterations=ITERATIONS, pooling=make_pooling(layers)
    )


# How to make every layer whose cost is linear in the entities, from `keras_sets.layers` and for
# so many units.
LINEAR = {
    "Swarm": _swarm(lambda layers: "mean"),
    "Swarm, causal": _swarm(lambda layers: "causal"),
    "Swarm, pooling maps": _swarm(lambda layers: layers.PoolingMaps(4)),
    "PermutationEquivariantDense": lambda layers, units: layers.PermutationEquivariantDense(units),
    "DSSDense": lambda layers, units: layers.DSSDense(units),
    "SetNormalization": lambda layers, units: layers.SetNormalization(),
    "InducedSetAttentionBlock": lambda layers, units: layers.InducedSetAttentionBlock(units, 4, 16),
    "PoolingByMultiheadAttention": lambda layers, units: layers.PoolingByMultiheadAttention(
        units, 4
    ),
    "MeanPooling": lambda layers, units: layers.MeanPooling(),
    "SumPooling": lambda layers, units: layers.SumPooling(),
    "MaxPooling": lambda layers, units: layers.MaxPooling(),
    "LogSumExpPooling": lambda layers, units: layers.LogSumExpPooling(),
    "CausalMeanPooling": lambda layers, units: layers.CausalMeanPooling(),
    "PoolingMaps": lambda layers, units: layers.PoolingMaps(4),
}
LAYERS = {
    **LINEAR,
    "Swarm, max": _swarm(lambda layers: "max"),
    "SetAttentionBlock": lambda layers, units: layers.SetAttentionBlock(units, 4),
    "GatedAttentionPooling": lambda layers, units: layers.GatedAttentionPooling(units),
    "MedianPooling": lambda layers, units: layers.MedianPooling(),
    "SortPooling": lambda layers, units: layers.SortPooling(16),
}
# Beside them: what a model has around each, a loss, and references of a `Swarm`.
ALONE, MATCHED, PRODUCTS, ORIGINAL = (
    "nothing between",
    "MatchedCrossentropy",
    "bare products",
    "original, torch",
)
NAMES = (ALONE, *LAYERS, MATCHED)


def every_layer(name, sets, entities, units):
    """A model of a dense layer, the one of the name, a mean over entities and a dense layer.

    `step()` returns seconds by precision and kind, `{"float32, training": ...}`: the medians of
    all steps so far. The facts hold those of the first of all, which compiles (`"float32,
    training, first"`) and does not count.
    """
    steps, facts = {}, {}
    for policy in POLICIES:
        for training in (True, False):
            kind = "training" if training else "inference"
            step = _step(name, sets, entities, units, policy, training, facts)
            if step is not None:
                steps[f"{policy}, {kind}"] = step
    taken = {key: [] for key in steps}

    def seconds(step):
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    def measured():
        for key, step in steps.items():
            if not taken[key]:
                facts[f"{key}, first"] = seconds(step)
            taken[key].append(seconds(step))
        return {key: float(np.median(values)) for key, values in taken.items()}

    return measured, facts


def _step(name, sets, entities, units, policy, training, facts):
    from benchmarks import subjects

    size = {"sets": sets, "points": entities, "hidden": units, "iterations": ITERATIONS}
    if name == PRODUCTS:
        step, products = subjects.products(**size, training=training, policy=policy)
        facts[f"{policy}, {'training' if training else 'inference'}, gigaflop"] = products[
            "gigaflop"
        ]
        return step
    if name == ORIGINAL:
        if policy != "float32":
            return None
        return subjects.original(**size, features=FEATURES, training=training)[0]
    model, x, y = _model(name, sets, entities, units, policy)
    if not training:
        return lambda: model.predict_on_batch(x)
    return lambda: float(np.asarray(model.train_on_batch(x, y)))


def _model(name, sets, entities, units, policy):
    import keras

    from keras_sets import layers
    from keras_sets import losses

    keras.config.set_dtype_policy(policy)
    rng = np.random.default_rng(0)
    inputs = keras.Input((entities, FEATURES))
    x = keras.layers.Dense(units)(inputs)
    if name == MATCHED:
        outputs, loss = keras.layers.Dense(CLASSES)(x), losses.MatchedCrossentropy()
        y = rng.integers(0, CLASSES, (sets, entities))
    else:
        if name in LAYERS:
            x = LAYERS[name](layers, units)(x)
        if len(x.shape) == 3:
            x = keras.layers.GlobalAveragePooling1D()(x)
        outputs, loss = keras.layers.Dense(1)(x), "mse"
        y = rng.normal(size=(sets, 1)).astype("float32")
    outputs = keras.layers.Activation("linear", dtype="float32")(outputs)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model, rng.normal(size=(sets, entities, FEATURES)).astype("float32"), y
