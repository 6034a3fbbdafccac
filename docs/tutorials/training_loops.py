"""Training loops of your own.

`fit` is enough for most work. Where it is not, the layers work in loops of each backend, as all
Keras layers do. This script has one branch for each backend; `KERAS_BACKEND` chooses.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

# ## Data and model
#
# The target is the mean distance of the real points from the origin.

points = rng.normal(size=(640, 30, 2)).astype("float32") * rng.uniform(0.5, 2, size=(640, 1, 1))
mask = np.arange(30) < rng.integers(5, 31, size=(640, 1))
distance = np.linalg.norm(points, axis=-1)
targets = (distance * mask).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
points, targets = points.astype("float32"), targets.astype("float32")

model = keras_sets.models.deep_sets(2, 1, hidden_units=32, num_layers=2, output_pooling="mean")
loss_function = keras.losses.MeanSquaredError()
optimizer = keras.optimizers.Adam(0.003)
losses = []


def batches(epochs=10, size=64):
    for _ in range(epochs):
        order = rng.permutation(len(points))
        for start in range(0, len(points), size):
            chosen = order[start : start + size]
            yield {"entities": points[chosen], "mask": mask[chosen]}, targets[chosen]


# ## PyTorch
#
# `zero_grad`, `backward` and the optimizer's `apply`, as in every Keras loop on PyTorch. A
# `torch.optim` optimizer on `model.parameters()` works as well.

if keras.config.backend() == "torch":
    import torch

    for x, y in batches():
        model.zero_grad()
        loss = loss_function(torch.from_numpy(y), model(x, training=True))
        loss.backward()
        variables = model.trainable_variables
        with torch.no_grad():
            optimizer.apply([variable.value.grad for variable in variables], variables)
        losses.append(loss.item())

# ## JAX
#
# `stateless_call` is a pure function of the variables. `jax.value_and_grad` differentiates it, and
# `jax.jit` compiles the step.

if keras.config.backend() == "jax":
    import jax

    optimizer.build(model.trainable_variables)

    def loss_of(trainable, other, x, y):
        outputs, other = model.stateless_call(trainable, other, x, training=True)
        return loss_function(y, outputs), other

    @jax.jit
    def step(state, x, y):
        trainable, other, slots = state
        (loss, other), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, other, x, y)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return loss, (trainable, other, slots)

    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    )
    for x, y in batches():
        loss, state = step(state, x, y)
        losses.append(float(loss))
    for variable, value in zip(model.trainable_variables, state[0], strict=True):
        variable.assign(value)

# ## TensorFlow
#
# A gradient tape in a `tf.function`.

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    for x, y in batches():
        x = {name: tf.constant(value) for name, value in x.items()}
        losses.append(float(step(x, tf.constant(y))))

# ## The result
#
# All three reach the same loss up to the random start.

print(losses[0], np.mean(losses[-10:]))
figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
axis.semilogy(losses)
axis.set(xlabel="step", ylabel="loss")
figure.savefig("training_loops.png", dpi=110)

# ![The loss falls over the steps](../images/tutorials/training_loops.png)
