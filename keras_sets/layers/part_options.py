"""What is set on the parts that a layer makes for itself: frozen, of another dtype, quantised."""

from typing import Self

import keras

from keras_sets._typing import Config


class PartOptions:
    """Mixin of layers that make sub-layers of their own.

    A configuration holds the arguments of such a layer, not its parts. Beside them it names
    every part that is frozen, or not, apart from its owner, or has a dtype policy of its own,
    as quantised ones have. A layer names its parts in `_parts`, makes them with
    `**self._part_arguments()`, and calls `_restore_parts` at the end of a `build` that makes
    some.
    """

    # What a configuration says of parts that are not made yet: pairs of a path and options.
    _to_restore = ()

    @property
    def _parts(self):
        """The parts that the layer makes itself, those of them that are there by now."""
        raise NotImplementedError

    def _part_arguments(self):
        return {"dtype": self.dtype_policy, "trainable": self.trainable}

    def get_config(self) -> Config:
        config = super().get_config()  # type: ignore[misc]
        changed = {}
        for path, part, owner in _walk(self, self._parts):
            options = {}
            if part.trainable != owner.trainable:
                options["trainable"] = part.trainable
            if not same_policy(part.dtype_policy, owner.dtype_policy):
                options["dtype"] = keras.dtype_policies.serialize(part.dtype_policy)
            if options:
                changed[path] = options
        return {**config, "part_options": changed} if changed else config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        options = config.pop("part_options", {})
        layer = super().from_config(config)  # type: ignore[misc]
        layer._to_restore = tuple(options.items())
        layer._restore_parts()
        return layer

    def _restore_parts(self):
        """Sets the options of those parts that are there by now."""
        if not self._to_restore:
            return
        remaining = dict(self._to_restore)
        for path, part, _ in _walk(self, self._parts):
            options = remaining.pop(path, {})
            # Quantised first: that changes which weights there are.
            if "dtype" in options:
                part.dtype_policy = options["dtype"]
            if "trainable" in options:
                part.trainable = options["trainable"]
        self._to_restore = tuple(remaining.items())


def _walk(owner, parts, prefix=""):
    """`(path, part, owner)` of parts, of their parts, and so on."""
    for part in parts:
        path = prefix + part.name
        yield path, part, owner
        yield from _walk(part, part._flatten_layers(False, False), f"{path}/")


def same_policy(a, b):
    """Whether two dtype policies are equal, maps of policies too, which Keras cannot compare."""
    maps = [isinstance(p, keras.dtype_policies.DTypePolicyMap) for p in (a, b)]
    if not any(maps):
        return a == b
    return all(maps) and a.default_policy == b.default_policy and dict(a) == dict(b)


def freeze_with(owner, *parts):
    """Parts that were given to a frozen layer are frozen too, as setting `trainable` does."""
    for part in parts:
        if isinstance(part, keras.layers.Layer) and not owner.trainable:
            part.trainable = False


def build_part(part, input_shape):
    """Builds a part of a layer; callables, names and None are parts that need no building."""
    if isinstance(part, keras.layers.Layer) and not part.built:
        part.build(input_shape)


def serialize_part(layer):
    """The configuration of a layer whose owner builds it, so without a shape of its own."""
    config = keras.saving.serialize_keras_object(layer)
    if isinstance(config, dict):
        config.pop("build_config", None)
    return config
