"""What all layers on sets have in common."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sets import validation
from keras_sets._typing import Tensor
from keras_sets.layers.chunked_pooling_scope import ChunkedPoolingScope
from keras_sets.layers.chunked_pooling_scope import get_chunked_pooling_scope
from keras_sets.layers.lost_masks import warn_of_layers_without_mask
from keras_sets.layers.lost_masks import warn_of_lost_mask
from keras_sets.ops import accumulation_dtype
from keras_sets.ops import apply_mask
from keras_sets.ops import multiplicities
from keras_sets.ops.entities import fit_mask
from keras_sets.prepared import PreparedScope


class SetLayer(keras.layers.Layer):
    """Base class of layers that are called as `layer(inputs, mask=None, weights=None)`.

    It checks the three arguments before any weight is made, lets an explicit `mask`
    win over the mask that Keras carries along with `inputs`, and keeps `weights` in
    float32 under every dtype policy, so that counts above 256 survive bfloat16.

    A subclass implements `compute(x, mask, weights, training)`, which holds mathematics only:
    `call` has found the mask and `prepare` has made the arguments ready. It declares its
    symmetry in the attribute `symmetry`: `"equivariant"`, `"invariant"` or `"causal"`.

    Call arguments:
        inputs: `(batch, *entities, features)`.
        mask: bool `(batch, *entities)`, True for a real entity; zeros and ones of another
            dtype will do, other numbers are an error.
        weights: float `(batch, *entities)`, at least 0: how often every entity counts. Keras
            carries masks from layer to layer, but no weights: every layer is given its own.
            Negative and NaN weights, and masks of other numbers than zeros and ones, are
            errors where their values can be seen, and give NaN inside compiled graphs.
        training: Whether this is training.
        inputs_mask: Filled by Keras, not by users: the implicit mask of `inputs`.
    """

    symmetry = "equivariant"

    def __init__(self, **kwargs: Any) -> None:
        # Casting is done in `prepare`: Keras would round the weights as well.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.supports_masking = True

    def __call__(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        self.check_arguments(inputs, mask, weights)
        if isinstance(mask, (list, tuple)):
            mask = ops.convert_to_tensor(mask)
        if isinstance(inputs, keras.KerasTensor):
            if mask is not None:
                warn_of_layers_without_mask(self, inputs, SetLayer)
            elif weights is None:
                warn_of_lost_mask(self, inputs, SetLayer)
        scope = get_chunked_pooling_scope()
        if weights is not None and scope is None and self.compute_dtype != "float64":
            self._check_weights_in_range(weights)
        if scope is not None and self in scope.whole:
            with ChunkedPoolingScope(None):
                return super().__call__(inputs, mask=mask, weights=weights, **kwargs)
        return super().__call__(inputs, mask=mask, weights=weights, **kwargs)

    def check_arguments(
        self, inputs: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Raises a ValueError unless the arguments are a batch of sets."""
        validation.check_set(self.name, inputs, mask, weights)

    def _check_weights_in_range(self, weights):
        """Of float64 whose values can be seen: they are about to become float32."""
        weights = np.asarray(weights) if isinstance(weights, (list, tuple)) else weights
        if "float64" not in str(getattr(weights, "dtype", "")):
            return
        values = validation.visible_array(weights)
        if values is not None and values.size:
            largest = values.reshape(len(values), -1).max(axis=1)
            validation.check_weights_in_range(f"Layer '{self.name}'", largest)

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        training: bool | None = None,
        inputs_mask: Tensor | None = None,
    ) -> Tensor:
        x, mask, weights = self.read_call(inputs, mask, weights, inputs_mask)
        # Without a mask there are no weights either. What torch compiles may set nothing within
        # rematerialised steps, and leaves out by itself what it has computed before.
        if mask is None or validation.torch_compiles():
            return self.compute(x, mask, weights, training)
        with PreparedScope(x, mask, weights):
            return self.compute(x, mask, weights, training)

    def read_call(
        self,
        inputs: Tensor,
        mask: Tensor | None,
        weights: Tensor | None,
        inputs_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The arguments of a call as `compute` takes them."""
        # Keras hands the implicit mask over as `mask` where `inputs` is the only tensor of the
        # call, else as `inputs_mask`. An explicit mask is in `mask`, and wins.
        return self.prepare(inputs, inputs_mask if mask is None else mask, weights)

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        """The outputs, from what `prepare` returns.

        Args:
            x: `(batch, *entities, features)` in the compute dtype, exact zeros at absent entities.
            mask: bool `(batch, *entities)`, or None when every entity is there. An entity of
                weight 0 is not.
            weights: float32 or wider `(batch, *entities)`, or None when every entity that is
                there counts once.
            training: Whether this is training.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no method `compute(x, mask, weights, training)`."
        )

    def prepare(
        self, inputs: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns `(x, mask, weights)` as `compute` takes them."""
        if mask is not None:
            # It may be one that Keras carries along, which `__call__` has not seen.
            mask = self.fit_mask(mask, inputs)
            self.check_arguments(inputs, mask)
        x = self.cast_inputs(inputs)
        mask, weights = multiplicities(mask, weights, accumulation_dtype(x))
        return apply_mask(x, mask), mask, weights

    def cast_inputs(self, inputs: Tensor) -> Tensor:
        """`inputs` in the dtype of the computation."""
        return ops.cast(inputs, self.compute_dtype)

    def fit_mask(self, mask: Tensor, inputs: Tensor) -> Tensor:
        """A mask of the entities, of the one that Keras carries along with `inputs`.

        Keras' layers hand a mask on as it is, also where they take or add axes.
        """
        return fit_mask(mask, ops.shape(inputs)[:-1])

    def in_compute_dtype(self, weight: Tensor) -> Tensor:
        """A weight, as a tensor of the compute dtype."""
        return ops.cast(ops.convert_to_tensor(weight), self.compute_dtype)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        if previous_mask is None or self.symmetry == "invariant":
            return None
        return self.fit_mask(previous_mask, inputs)
