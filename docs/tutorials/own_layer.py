"""Write a layer of your own and check its symmetry.

A layer on sets has to respect masks, weights and the order of the entities. The base class
`SetLayer` takes care of the arguments; functions of `keras_sets.ops` take care of the sums. The
layer itself holds a formula.

The layer of this tutorial compares every entity with the mean of its set:
$y_i = \\mathrm{relu}((x_i - \\bar x)\\, W)$. It does not see where the set lies.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sets

keras.utils.set_random_seed(0)

# ## The layer
#
# A subclass of `SetLayer` implements `compute(x, mask, weights, training)`. Absent entities of
# `x` are zeros there. `symmetry` declares what the layer is.


@keras.saving.register_keras_serializable(package="tutorial")
class CenteredDense(keras_sets.layers.SetLayer):
    """`relu((x_i - mean_j x_j) @ kernel)`."""

    symmetry = "equivariant"

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.built = True

    def compute(self, x, mask, weights, training):
        mean = keras_sets.ops.set_mean(x, mask, weights, keepdims=True)
        y = keras.ops.relu(keras.ops.matmul(x - mean, self.in_compute_dtype(self.kernel)))
        return keras_sets.ops.apply_mask(y, mask)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


# ## Check it
#
# Each function compares outputs and gradients. It raises an `AssertionError` when a law is broken.

points = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
layer = CenteredDense(4)
keras_sets.testing.assert_permutation_equivariant(layer, points)
keras_sets.testing.assert_padding_invariant(layer, points)
keras_sets.testing.assert_multiplicity(layer, points, scale_invariant=True)

# ## A layer that fails
#
# The same formula with `keras.ops.mean` ignores mask and weights. Padding then changes the mean.


class Careless(CenteredDense):
    def compute(self, x, mask, weights, training):
        mean = keras.ops.mean(x, axis=1, keepdims=True)
        y = keras.ops.relu(keras.ops.matmul(x - mean, self.kernel))
        return keras_sets.ops.apply_mask(y, mask)


try:
    keras_sets.testing.assert_padding_invariant(Careless(4), points)
except AssertionError as error:
    message = str(error)
print(message)

# ## Use it
#
# The layer works in models and in their files. The output of a set does not change when
# the set moves.

entities = keras.Input((None, 3), name="entities")
present = keras.Input((None,), dtype="bool", name="mask")
x = CenteredDense(16)(entities, mask=present)
outputs = keras.layers.Dense(2)(keras_sets.layers.MaxPooling()(x))
model = keras.Model({"entities": entities, "mask": present}, outputs)
model.save("centered.keras")
loaded = keras.saving.load_model("centered.keras")

mask = np.ones((2, 6), bool)
moves = np.linspace(0, 10, 5)
answers = np.stack(
    [loaded.predict_on_batch({"entities": points + move, "mask": mask}) for move in moves]
)
print(np.ptp(answers, axis=0).max())  # rounding, below 1e-5

# The picture shows the outputs of both sets against the move, beside the coordinates that moved.

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
left.plot(moves, [(points[:, 0, 0] + move) for move in moves], "o-")
left.set(title="first coordinate of a point", xlabel="move")
right.plot(moves, answers.reshape(len(moves), -1), "o-")
right.set(title="outputs of the model", xlabel="move")
figure.savefig("own_layer.png", dpi=110)

# ![Coordinates grow with the move, outputs stay](../images/tutorials/own_layer.png)
#
# [Laws](../concepts/laws.md) lists what else holds for every layer of the package.
