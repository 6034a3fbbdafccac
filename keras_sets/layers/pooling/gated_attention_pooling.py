from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Initializer
from keras_sets._typing import Shape
from keras_sets._typing import State
from keras_sets._typing import Tensor
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.pooling.base import Pooling
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import moments
from keras_sets.ops import pooling as pooling_ops


@keras.saving.register_keras_serializable(package="keras_sets")
class GatedAttentionPooling(PartOptions, Pooling):
    """Mean of the entities under an attention that a small gated network gives them.

    ```
    e_i = score(tanh(value(x_i)) * sigmoid(gate(x_i)))
    y = sum_i softmax(e + log w)_i x_i
    ```

    and 0 for a set without entities. The attention says which entities an answer is due to: the
    instances of a bag in multiple instance learning.

    Args:
        units: Positive integer, width of the network.
        gated: Whether there is a gate. Without it the attention is `score(tanh(value(x)))`.
        kernel_initializer: Initializer of the three kernels.
        keepdims: If True, the entity axes stay with size 1.

    Call arguments:
        inputs, mask, weights: As for `keras_sets.layers.MeanPooling`.
        return_attention_scores: Whether to return the attention as well.

    Output shape:
        `(batch, features)`, or `(batch, 1, ..., 1, features)` with `keepdims=True`. With
        `return_attention_scores=True` a pair of this and the attention, `(batch, *entities)`,
        which sums to 1 over every set.

    Masking:
        Masked entities do not count and have attention 0. The output has no mask.

    Symmetry:
        Invariant to the order of the entities, and to a common factor of the weights.

    Example:

    >>> import numpy as np, keras_sets
    >>> pooling = keras_sets.layers.GatedAttentionPooling(units=8)
    >>> bags = np.random.default_rng(0).normal(size=(2, 5, 3))
    >>> y, attention = pooling(bags, return_attention_scores=True)
    >>> tuple(y.shape), tuple(attention.shape)
    ((2, 3), (2, 5))

    Reference:
        [Ilse, Tomczak and Welling, 2018, Attention-based Deep Multiple Instance
        Learning](https://arxiv.org/abs/1802.04712), equations 7 to 9.
    """

    def __init__(
        self,
        units: int = 64,
        gated: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        keepdims: bool = False,
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        super().__init__(keepdims, **kwargs)
        self.units = units
        self.gated = validation.boolean("gated", gated)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

        def dense(name, units, **options):
            return keras.layers.Dense(
                units,
                kernel_initializer=own_seed(self.kernel_initializer, name),
                name=name,
                **options,
                **self._part_arguments(),
            )

        self.value = dense("value", units, activation="tanh")
        self.gate: Any = dense("gate", units, activation="sigmoid") if self.gated else None
        self.score = dense("score", 1, use_bias=False)

    @property
    def _parts(self):
        return [part for part in (self.value, self.gate, self.score) if part is not None]

    def build(self, input_shape: Shape) -> None:
        self.value.build(input_shape)
        if self.gated:
            self.gate.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))
        self._restore_parts()
        self._set_features(input_shape)

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        training: bool | None = None,
        inputs_mask: Tensor | None = None,
        return_attention_scores: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        x, mask, weights = self.read_call(inputs, mask, weights, inputs_mask)
        pooled = self.compute(x, mask, weights, training)
        if not validation.boolean("return_attention_scores", return_attention_scores):
            return pooled
        attention = moments.softmax_shares(self._exponents(x), mask, weights)
        return pooled, ops.cast(attention[..., 0], self.compute_dtype)

    def _exponents(self, x):
        hidden = self.value(x)
        if self.gated:
            hidden = hidden * self.gate(x)
        exponents = self.score(hidden)
        return ops.cast(exponents, set_ops.accumulation_dtype(exponents))

    def chunk_state(self, x: Tensor, mask: Tensor | None, weights: Tensor | None) -> State:
        return moments.softmax_state(x, self._exponents(x), mask, weights)

    def merge(self, a: State, b: State) -> State:
        return pooling_ops.merge_softmaxes(a, b)

    def finish(self, state: State) -> Tensor:
        return ops.cast(pooling_ops.finish_mean(state), self.compute_dtype)

    def compute_output_spec(
        self, inputs: Tensor, *args: Any, return_attention_scores: bool = False, **kwargs: Any
    ) -> Any:
        shape = self.compute_output_shape(inputs.shape)
        pooled = keras.KerasTensor(shape, self.compute_dtype)
        if not validation.boolean("return_attention_scores", return_attention_scores):
            return pooled
        return pooled, keras.KerasTensor(inputs.shape[:-1], self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "gated": self.gated,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
