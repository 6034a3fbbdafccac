"""What all layers on sets have in common."""

import keras
from keras import ops

from keras_sets import validation
from keras_sets.ops import accumulation_dtype
from keras_sets.ops import multiplicities
from keras_sets.ops import zero_absent


class SetLayer(keras.layers.Layer):
    """Base class of layers that are called as `layer(inputs, mask=None, weights=None)`.

    It checks the three arguments before any weight is made, lets an explicit `mask`
    win over the mask that Keras carries along with `inputs`, and keeps `weights` in
    float32 under every dtype policy, so that counts above 256 survive bfloat16.

    A subclass implements `call(inputs, mask, weights, training, inputs_mask)` and
    starts it with `self.prepare(...)`. It declares its symmetry in the attribute
    `symmetry`: `"equivariant"`, `"invariant"` or `"causal"`.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: bool `(batch, *entities)`, True for a real entity; zeros and ones of another
            dtype will do, other numbers are an error.
        weights: float `(batch, *entities)`, at least 0: how often every entity counts. Keras
            carries masks from layer to layer, but no weights: every layer is given its own.
            Negative and NaN weights, and masks of other numbers than zeros and ones, are
            errors where their values can be seen, and give NaN inside compiled graphs.
        inputs_mask: filled by Keras with the implicit mask of `inputs`.
    """

    symmetry = "equivariant"

    def __init__(self, **kwargs):
        # Casting is done in `prepare`: Keras would round the weights as well.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True

    def __call__(self, inputs, mask=None, weights=None, **kwargs):
        self.check_arguments(inputs, mask, weights)
        return super().__call__(inputs, mask=mask, weights=weights, **kwargs)

    def check_arguments(self, inputs, mask=None, weights=None):
        """Raises a ValueError unless the arguments are a batch of sets."""
        validation.check_set(self.name, inputs, mask, weights)

    def prepare(self, inputs, mask=None, weights=None, inputs_mask=None):
        """Returns `(x, present, weights)`.

        `x` has the compute dtype and exact zeros at absent entities; `present` is bool
        `(batch, *entities)` or None; `weights` is float32 or wider, or None.
        """
        if mask is None and inputs_mask is not None:
            mask = inputs_mask
            self.check_arguments(inputs, mask)
        x = ops.cast(inputs, self.compute_dtype)
        present, weights = multiplicities(mask, weights, accumulation_dtype(x))
        return zero_absent(x, present), present, weights

    def in_compute_dtype(self, weight):
        """A weight, as a tensor of the compute dtype."""
        return ops.cast(ops.convert_to_tensor(weight), self.compute_dtype)

    def compute_mask(self, inputs, previous_mask=None):
        return None if self.symmetry == "invariant" else previous_mask
