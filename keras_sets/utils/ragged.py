"""Sets of different sizes in one array, which is what all padding starts from."""

import dataclasses
import numbers
import sys

import keras
import numpy as np

from keras_sets import validation
from keras_sets.utils.backend_arrays import in_native_order


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Sets whose entities lie one after the other in one array.

    Attributes:
        values: `(total, ...)`, the entities of all sets.
        offsets: int64 `(sets + 1,)`; set i owns `values[offsets[i]:offsets[i + 1]]`.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self):
        return len(self.offsets) - 1

    @property
    def sizes(self):
        """How many entities each set has, `(sets,)`."""
        return np.diff(self.offsets)

    def padded(self, indices, rows, mask, value=0):
        """Some entities of some sets in one array, `(len(indices), size, ...)`.

        Args:
            indices: Which sets.
            rows: int `(len(indices), size)`, which entity of its set stands at each place.
            mask: bool `(len(indices), size)`, False where `value` stands.
            value: Number.
        """
        if not len(self.values):
            shape = (*mask.shape, *self.values.shape[1:])
            return np.full(shape, value, self.values.dtype)
        rows = np.where(mask, self.offsets[indices][:, None] + rows, 0)
        padded = self.values[rows]
        padded[~mask] = value
        return padded

    def position(self, row):
        """The set that owns a row of `values`, and the row's place in it."""
        index = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return index, int(row - self.offsets[index])


def read_ragged(name, sets, dtype=None):
    """`Ragged`, of what a user gives as sets.

    Args:
        name: Of the argument, for errors.
        sets: List of arrays, array of such arrays, one array `(sets, n, ...)`, or
            `tf.RaggedTensor`.
        dtype: Of the values. None: `keras.config.floatx()` for floating-point numbers, and
            that of the sets for others.
    """
    if _is_ragged_tensor(sets):
        sets = sets.numpy()  # an array of arrays, or one array if they are of one size
    if isinstance(sets, np.ndarray) and sets.dtype != object:
        validation.check_not_masked(name, sets)
        sets = np.asarray(sets)
        if sets.ndim < 2:
            raise ValueError(
                f"`{name}` must hold an array `(n, features)` or `(n,)` for every set. "
                f"Received: one array of shape {sets.shape}"
            )
        _check_some(name, sets)
        offsets = sets.shape[1] * np.arange(len(sets) + 1)
        values = sets.reshape(-1, *sets.shape[2:])
    else:
        table = isinstance(sets, dict) or hasattr(sets, "columns")
        if table or isinstance(sets, (str, bytes)) or not hasattr(sets, "__iter__"):
            advice = "`sets_from_dataframe` makes one of a table. " if table else ""
            raise ValueError(
                f"`{name}` must be a list with an array for every set. {advice}Received: "
                f"{type(sets).__name__}"
            )
        sets = list(sets)
        _check_columns(name, sets)
        arrays = [_as_array(name, i, array) for i, array in enumerate(sets)]
        _check_some(name, arrays)
        # A set that is written `[]` has no features to show, nor has an empty list of lists.
        blank = [array.shape in ((0,), (0, 0)) for array in arrays]
        shown = [i for i, is_blank in enumerate(blank) if not is_blank]
        _check_features(name, arrays, shown)
        offsets = np.cumsum([0, *map(len, arrays)])
        values = np.concatenate([arrays[i] for i in shown] or arrays[:1])
    if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
        fields = (
            "`structured_to_unstructured` of `numpy.lib.recfunctions` makes features of fields. "
        )
        raise ValueError(
            f"`{name}` must hold numbers. {fields if values.dtype.names else ''}Received: dtype "
            f"{values.dtype}"
        )
    if dtype is None and values.dtype.kind not in "biu":
        dtype = keras.config.floatx()
    values = in_native_order(values) if dtype is None else _as_dtype(name, values, dtype)
    return Ragged(values, offsets)


def _as_dtype(name, values, dtype):
    """NumPy would wrap integers around, cut fractions off, and make large numbers infinite."""
    with np.errstate(over="raise", invalid="ignore"):
        try:
            stored = values.astype(dtype, copy=False)
            kept = stored.dtype.kind not in "iu" or stored is values or (stored == values).all()
        except FloatingPointError:
            kept = False
    if not kept:
        raise ValueError(
            f"`{name}` must hold numbers that the dtype {np.dtype(dtype)} can hold. Received: "
            f"dtype {values.dtype}, from {values.min():g} to {values.max():g}"
        )
    return stored


def listed(values):
    """`values`, in a list if they are an iterable of which NumPy makes no array."""
    known = (list, tuple, dict, str, np.ndarray)
    if isinstance(values, known) or _is_ragged_tensor(values) or not hasattr(values, "__iter__"):
        return values
    if hasattr(values, "__array__"):
        try:
            np.asarray(values)
            return values
        except ValueError:  # rows of different lengths
            pass
    return list(values)


def is_entitywise(values):
    """Whether `values` hold an array for every set, rather than a number for each of them."""
    if _is_ragged_tensor(values):
        return True
    if not isinstance(values, (list, tuple)):
        values = np.asarray(values)
        if values.dtype != object or values.ndim == 0:
            return False
    return any(isinstance(value, (list, tuple)) or np.ndim(value) > 0 for value in values)


def check_sizes(name, ragged, sets, advice=""):
    """Raises unless `ragged` has a row for every entity of `sets`."""
    check_length(name, len(ragged), len(sets))
    wrong = np.flatnonzero(ragged.sizes != sets.sizes)
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"`{name}` must hold one row for every entity of a set. {advice}Received: "
            f"{ragged.sizes[i]} rows for set {i}, which has {sets.sizes[i]} entities"
        )


def check_length(name, received, expected):
    if received != expected:
        raise ValueError(f"`{name}` must be as long as `sets`, {expected}. Received: {received}")


def check_finite(name, ragged, advice):
    """Raises where values are NaN or infinite, and says where."""
    if ragged.values.dtype.kind in "biu":
        return
    finite = np.isfinite(ragged.values)
    if finite.all():
        return
    finite = finite.reshape(len(finite), -1)
    rows = np.flatnonzero(~finite.all(axis=1))
    index, place = ragged.position(rows[0])
    raise ValueError(
        f"`{name}` must be finite. {advice} Received: {len(rows)} of {len(finite)} entities with "
        f"NaN or infinite values, the first is entity {place} of set {index}"
    )


def _is_ragged_tensor(sets):
    # Without TensorFlow, which this module does not import, nobody has such a tensor.
    return isinstance(sets, getattr(sys.modules.get("tensorflow"), "RaggedTensor", ()))


def _as_array(name, index, array):
    validation.check_not_masked(name, array)
    values, cause = None, None
    try:
        values = np.asarray(array)
    except ValueError as error:  # nested lists of different lengths
        cause = error
    if values is None or values.ndim == 0 or values.dtype == object:
        raise ValueError(
            f"`{name}` must hold an array of numbers, `(n, features)` or `(n,)`, for every set. "
            f"Received: set {index} {_what_it_is(array, values)}"
        ) from cause
    return values


def _what_it_is(array, values):
    """Says of a set why it is no array of numbers, for errors; `values` is what NumPy makes."""
    if isinstance(array, tuple) and any(hasattr(part, "columns") for part in array):
        return "is a tuple with a table; `sets_from_dataframe` groups the rows of a table itself"
    if values is None:
        return "is ragged itself"
    if values.ndim == 0 and values.dtype == object:
        return f"is of type {type(array).__name__}"
    if values.ndim == 0:
        return f"is the number {values}"
    for value in values.flat:
        if isinstance(value, (list, tuple, np.ndarray)):
            return "is ragged itself"
        if not isinstance(value, (numbers.Number, np.bool_)):
            return f"has dtype object and holds {value!r}, which is no number"
    return "has dtype object; `.astype('float32')` makes it an array of numbers"


def _check_some(name, sets):
    if not len(sets):
        raise ValueError(f"`{name}` must hold at least one set. Received: none")


def _check_columns(name, sets):
    """Raises where data frames have their columns in different orders: arrays have no names."""
    frames = [(i, list(frame.columns)) for i, frame in enumerate(sets) if hasattr(frame, "columns")]
    frames = [(i, columns) for i, columns in frames if columns]  # an empty frame may have none
    for i, columns in frames:
        if columns != frames[0][1]:
            raise ValueError(
                f"`{name}` must all have the same columns in the same order. Received: set {i} "
                f"with the columns {columns}, set {frames[0][0]} with {frames[0][1]}"
            )


def _check_features(name, arrays, shown):
    """Raises unless the sets differ in their first axis alone."""
    shapes = {arrays[i].shape[1:] for i in shown}
    if len(shapes) < 2:
        return
    first = shown[0]
    wrong = next(i for i in shown if arrays[i].shape[1:] != arrays[first].shape[1:])
    a, b = arrays[wrong].shape, arrays[first].shape
    if len(arrays) == 2 and a == b[:-1] and arrays[wrong].dtype == bool:
        raise ValueError(
            f"`{name}` must be a list with an array for every set. Received: two arrays of shapes "
            f"{b} and {a}, as if padded already. `[x[real] for x, real in zip(entities, mask)]` "
            "are the sets"
        )
    if len(a) == len(b) == 2:
        raise ValueError(
            f"`{name}` must all have the same number of features. Received: set {wrong} has "
            f"{a[1]}, set {first} has {b[1]}"
        )
    raise ValueError(
        f"`{name}` must all have the same shape but for the number of entities. Received: set "
        f"{wrong} of shape {a}, set {first} of shape {b}"
    )
