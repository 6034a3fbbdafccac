"""Initializers, regularizers and constraints of a layer's weights, in one place."""

import keras

_KINDS = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


class WeightOptions:
    """Mixin: resolves, serialises and applies `<weight>_<kind>` arguments."""

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

    def _add_optioned_weight(self, name, shape, prefix=None, initializer=None):
        """Adds weight `name` with the options `<prefix>_initializer` and so on.

        Weights that share one initializer with a seed would start as copies of each
        other, so all but the layer's first weight get a seed of their own.
        """
        prefix = prefix or name
        if initializer is None:
            initializer = reseeded(getattr(self, f"{prefix}_initializer"), len(self.weights))
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            regularizer=getattr(self, f"{prefix}_regularizer", None),
            constraint=getattr(self, f"{prefix}_constraint", None),
        )


def reseeded(initializer, index):
    """The same initializer with a seed derived from its own and from `index`."""
    if index == 0 or not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    seed = config.get("seed")
    if isinstance(seed, int):
        config["seed"] = (seed + 0x9E3779B1 * index) % 2**31
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
