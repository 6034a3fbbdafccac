"""What sets are trained on: targets of sets or of entities, of one output or of several."""

import keras
import numpy as np

from keras_sets import validation
from keras_sets.utils import ragged
from keras_sets.utils.backend_arrays import check_integers
from keras_sets.utils.backend_arrays import in_native_order


def read_targets(sets, targets, sample_weight):
    """`Targets`, `OutputTargets`, or None without targets.

    Args:
        sets: `Ragged`.
        targets, sample_weight: As `SetDataset` has them.
    """
    if targets is None:
        if sample_weight is not None:
            raise ValueError("`sample_weight` weights a loss, which needs `targets` as well.")
        return None
    if isinstance(targets, dict):
        return OutputTargets(sets, targets, sample_weight)
    if isinstance(sample_weight, dict):
        raise ValueError(
            "`sample_weight` is a dict where `targets` is one. Received: `sample_weight` with the "
            f"keys {list(sample_weight)}, and `targets` of one output"
        )
    return Targets(sets, targets, sample_weight)


class OutputTargets:
    """The targets of several outputs, and how much they count in their losses.

    Args:
        sets: `Ragged`.
        targets: Dict of targets of one output each.
        sample_weight: Dict with some of the keys of `targets`, numbers for every set, or None.
    """

    def __init__(self, sets, targets, sample_weight):
        if not targets:
            raise ValueError("`targets` must have those of one output at least. Received: {}")
        names = list(targets)
        if not isinstance(sample_weight, dict):
            sample_weight = ragged.listed(sample_weight)
            if sample_weight is not None and ragged.is_entitywise(sample_weight):
                raise ValueError(
                    "With a dict of targets, `sample_weight` of entities must be a dict with some "
                    f"of the keys {names}. Received: an array for every set"
                )
            sample_weight = dict.fromkeys(names, sample_weight)
        unknown = [name for name in sample_weight if name not in targets]
        if unknown:
            raise ValueError(
                f"`sample_weight` must have keys that `targets` has, {names}. Received: the keys "
                f"{list(sample_weight)}"
            )
        self._outputs = {
            name: Targets(sets, values, sample_weight.get(name), f"[{name!r}]")
            for name, values in targets.items()
        }

    def padded(self, indices, rows, mask, weights=None):
        """As `Targets.padded`, dicts by the names of the outputs."""
        targets, counts = {}, {}
        for name, output in self._outputs.items():
            targets[name], counts[name] = output.padded(indices, rows, mask, weights)
        if all(count is None for count in counts.values()):
            return targets, None
        # Keras expects weights of every output, or of none.
        ones = np.ones(len(indices), keras.config.floatx())
        return targets, {name: ones if c is None else c for name, c in counts.items()}


class Targets:
    """The targets of one output, and how much they count in its loss.

    Args:
        sets: `Ragged`.
        targets, sample_weight: As `SetDataset` has them.
        key: What follows the names of these arguments in errors.
    """

    def __init__(self, sets, targets, sample_weight, key=""):
        self._sets = sets
        self._values, self._of_entities = self._read("targets" + key, ragged.listed(targets))
        self._weights = self._read_weights(
            "sample_weight" + key, ragged.listed(sample_weight), "targets" + key
        )

    def padded(self, indices, rows, mask, weights=None):
        """The targets of some sets, and their weights or None.

        Args:
            indices, rows, mask: As in `Ragged.padded`.
            weights: How often each of the entities counts, `(len(indices), size)`, or None.
        """
        counts = self._weights
        if not self._of_entities:
            return self._values[indices], None if counts is None else counts[indices]
        targets = self._values.padded(indices, rows, mask)
        if isinstance(counts, ragged.Ragged):
            return targets, counts.padded(indices, rows, mask).astype("float64")
        # Keras' losses multiply by the mask of the outputs in place, which torch does to a
        # tensor of their dtype: the metrics come after them.
        present = mask.astype("float64")
        if weights is not None:
            present *= weights > 0
        if counts is not None:
            present *= counts[indices][:, None]
        return targets, present

    def _read(self, name, targets):
        """The targets, and whether they are those of entities."""
        if ragged.is_entitywise(targets):
            targets = ragged.read_ragged(name, targets)
            advice = (
                "Targets of sets are one array, such as `np.stack(targets)`. Those that are sets "
                "of other sizes are padded, and added to every batch by overriding `batch`. "
            )
            ragged.check_sizes(name, targets, self._sets, advice)
            check_integers(name, targets.values)
            return targets, True
        targets = self._read_numbers(name, targets)
        check_integers(name, targets)
        return targets, False

    def _read_weights(self, name, sample_weight, targets):
        if sample_weight is None:
            return None
        ready = getattr(sample_weight, "ndim", 1) > 1
        if not ready and not ragged.is_entitywise(sample_weight):
            weights = self._read_numbers(name, sample_weight, "float64")
            held = weights.astype(keras.config.floatx())
            validation.check_weights("SetDataset", held, argument=name)
            if weights.any() and not held.any():
                raise ValueError(
                    f"`{name}` must be of a size that {held.dtype} can hold: divide it by "
                    f"its largest. Received: at most {weights.max():.2g}, so that no set counts"
                )
            return held
        if not self._of_entities:
            raise ValueError(
                f"`{name}` must be a number for every set, `(num_sets,)`, because `{targets}` are "
                "those of sets. Received: an array for every set"
            )
        return read_weights(name, sample_weight, self._sets)

    def _read_numbers(self, name, values, dtype=None):
        """An array whose first axis is that of the sets."""
        validation.check_not_masked(name, values)
        kind, values = type(values).__name__, np.asarray(values)
        if values.ndim == 0 or values.dtype.kind not in "biuf":
            words = "`np.unique(labels, return_inverse=True)` numbers words. "
            raise ValueError(
                f"`{name}` must hold numbers, one or an array of them for every set. "
                f"{words if name.startswith('targets') else ''}Received: {kind} of dtype "
                f"{values.dtype}, shape {values.shape}"
            )
        ragged.check_length(name, len(values), len(self._sets))
        if dtype is None and values.dtype.kind == "f":
            dtype = keras.config.floatx()
        return in_native_order(values) if dtype is None else values.astype(dtype, copy=False)


def read_weights(name, weights, sets):
    """`Ragged`, numbers of the entities of `sets`, at least 0."""
    given = ragged.read_ragged(name, weights, "float64")
    weights = ragged.Ragged(given.values.astype(keras.config.floatx()), given.offsets)
    if weights.values.ndim != 1:
        raise ValueError(
            f"`{name}` must hold an array `(n,)` for every set. Received: arrays with the "
            f"further axes {weights.values.shape[1:]}"
        )
    ragged.check_sizes(name, weights, sets)
    validation.check_weights("SetDataset", weights.values, argument=name)
    if weights.values.dtype != "float64" and len(given.values):
        filled = given.sizes > 0
        largest = np.maximum.reduceat(given.values, given.offsets[:-1][filled])
        validation.check_weights_in_range("SetDataset", largest, name)
    return weights
