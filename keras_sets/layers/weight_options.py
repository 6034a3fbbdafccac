"""Initializers, regularizers and constraints of a layer's weights, in one place."""

import functools
import zlib
from typing import Any

import keras

from keras_sets._typing import DType
from keras_sets._typing import Initializer
from keras_sets._typing import Shape

_KINDS = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


class WeightOptions:
    """Mixin: resolves and serialises `<weight>_<kind>` arguments."""

    variable_dtype: str  # of the layer

    def _set_weight_options(self, **options):
        """Stores every option as an attribute of its own name, as Keras layers do."""
        for option, value in options.items():
            setattr(self, option, _KINDS[option.rsplit("_", 1)[1]].get(value))
        self._weight_option_names = tuple(options)

    def _weight_options_config(self):
        return {
            option: _KINDS[option.rsplit("_", 1)[1]].serialize(getattr(self, option))
            for option in self._weight_option_names
        }

    def add_weight(
        self,
        shape: Shape | None = None,
        initializer: Initializer = None,
        dtype: DType = None,
        **kwargs: Any,
    ) -> Any:
        """As `keras.layers.Layer.add_weight`; values of 16 bits are drawn in float32.

        No backend draws orthogonal matrices in 16 bits.
        """
        dtype = keras.backend.standardize_dtype(dtype or self.variable_dtype)
        if callable(initializer) and dtype in ("float16", "bfloat16"):
            initializer = functools.partial(_rounded, initializer)
        return super().add_weight(shape, initializer, dtype, **kwargs)  # type: ignore[misc]


def _rounded(initializer, shape, dtype):
    return keras.ops.cast(initializer(shape, dtype="float32"), dtype)


def own_seed(initializer, name):
    """The same initializer with a seed of its own for the weight or part of this name.

    An initializer gives the same values whenever it is called. Weights that share one would
    start as copies of each other, so all but the first of a layer take it with another seed.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    seed = config.get("seed")
    if isinstance(seed, int):
        config["seed"] = (seed + zlib.crc32(name.encode())) % 2**31
    elif "seed" not in config or seed is not None:
        return initializer
    return type(initializer).from_config(config)


def reseeded_config(config, index):
    """A layer's configuration whose integer seeds, at any depth, are all other ones."""
    if isinstance(config, dict):
        return {
            key: (value + 0x9E3779B1 * index) % 2**31
            if key == "seed" and isinstance(value, int)
            else reseeded_config(value, index)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(reseeded_config(value, index) for value in config)
    return config
