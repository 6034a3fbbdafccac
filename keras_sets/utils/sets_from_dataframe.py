"""Sets from a table that has a row for every entity."""

import typing
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sets import validation


class FrameSets(typing.NamedTuple):
    """What `sets_from_dataframe` returns, in the order in which `SetDataset` takes it.

    Attributes:
        sets: List of arrays `(n_i, features)`.
        targets: Array `(num_sets,)`, or a list of arrays `(n_i,)`, or None.
        weights: List of arrays `(n_i,)`, or None.
        groups: Array `(num_sets,)`, what the group column holds for each set.
    """

    sets: list[np.ndarray]
    targets: np.ndarray | list[np.ndarray] | None
    weights: list[np.ndarray] | None
    groups: np.ndarray


def sets_from_dataframe(
    frame: Any,
    group: str,
    features: str | Iterable[str],
    target: str | None = None,
    weight: str | None = None,
) -> FrameSets:
    """Makes a set of every group of rows.

    Sets come in the order in which their groups appear first, and entities in the order of
    their rows. A group without rows makes no set. What another table says of the groups, such as
    their targets, is brought to this order by `groups`: `patients.loc[groups, "response"]`.

    Args:
        frame: A pandas or polars data frame, a pyarrow table, or a dict of columns, with a row
            for every entity.
        group: Name of the column that says which set a row belongs to. No value may be
            missing.
        features: Name of a column, or list of names, that hold numbers.
        target: Name of a column. With one value in every group it is a target a set. If it
            differs within any group it is a target an entity. None for no targets.
        weight: Name of the column that says how often an entity counts. None for no weights.

    Returns:
        `(sets, targets, weights, groups)`, a named tuple: a list of arrays `(n_i, features)`;
        an array `(num_sets,)` for targets of sets, or a list of arrays `(n_i,)` for those of
        entities; a list of arrays `(n_i,)`; and an array `(num_sets,)` of the values of the
        group column. Targets and weights that were not asked for are None. Where a model gives
        one number an entity, `SetDataset` takes `[t[:, None] for t in targets]`.

    Raises:
        ValueError: There is no row, or no such column; features or weights are no numbers; a
            row has no group.

    Example:

    >>> import keras_sets
    >>> frame = {
    ...     "bag": ["b", "a", "b"],
    ...     "x": [0.0, 1.0, 2.0],
    ...     "y": [5.0, 6.0, 7.0],
    ...     "positive": [1, 0, 1],
    ... }
    >>> sets, targets, _, groups = keras_sets.utils.sets_from_dataframe(
    ...     frame, group="bag", features=["x", "y"], target="positive"
    ... )
    >>> groups.tolist(), targets.tolist()
    (['b', 'a'], [1, 0])
    >>> sets[0].tolist()
    [[0.0, 5.0], [2.0, 7.0]]
    >>> dataset = keras_sets.utils.SetDataset(sets, targets)
    """
    keys = _column(frame, "group", group)
    if not len(keys):
        raise ValueError("`frame` must have at least one row. Received: none")
    if keys.ndim != 1:
        raise ValueError(
            "`group` must name one column; of several make one first, such as `frame['run'] * "
            f"10**6 + frame['event']`. Received: group={group!r}"
        )
    missing = _missing(keys)
    if missing.any():
        raise ValueError(
            f"The column {group!r}, which `group` names, must say of every row which set it "
            f"belongs to. Received: {missing.sum()} of {len(keys)} rows without a value, the first "
            f"is row {missing.argmax()}"
        )
    names = [features] if isinstance(features, str) else list(features)
    if not names:
        raise ValueError("`features` must name at least one column. Received: none")
    rows = len(keys)
    values = np.stack([_numbers(frame, "features", name, rows) for name in names], axis=-1)

    numbers: dict[Any, int] = {}
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys.tolist()])
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(numbers)))

    def split(column):
        return np.split(column[order], starts[1:])

    targets = None
    if target is not None:
        column = _column(frame, "target", target, rows)
        first = column[order][starts]
        # What is missing equals nothing, not even itself.
        absent, wanted = _missing(column), first[codes]
        there = ~absent
        same = (absent == _missing(wanted)).all() and (column[there] == wanted[there]).all()
        targets = first if same else split(column)
    weights = None if weight is None else split(_numbers(frame, "weight", weight, rows))
    return FrameSets(split(values), targets, weights, keys[order][starts])


def _missing(column):
    """Which values of a column are None, NaN or another one that does not equal itself."""
    if column.dtype.kind in "biuf":
        return column != column

    def equals_itself(value):
        equal = value == value
        return isinstance(equal, (bool, np.bool_)) and equal  # that of pandas' NA is NA

    missing = [value is None or not equals_itself(value) for value in column.ravel().tolist()]
    return np.array(missing, bool).reshape(column.shape)


def _names(frame):
    """The names of the columns of a table."""
    for attribute in ("column_names", "columns"):  # a pyarrow table has other `columns`
        if hasattr(frame, attribute):
            return list(getattr(frame, attribute))
    if isinstance(frame, Mapping):
        return list(frame)
    names = getattr(getattr(frame, "dtype", None), "names", None)  # an array with fields
    if names is None:
        raise ValueError(
            "`frame` must be a data frame, a table or a dict of columns, with a row for every "
            f"entity. Received: {type(frame).__name__}"
        )
    return list(names)


def _column(frame, argument, name, rows=None):
    try:
        column = frame[name]
        # Series of pandas, polars and pyarrow convert themselves. Of a list with words NumPy
        # would make words of all else, of NaN as well.
        words = isinstance(column, (list, tuple)) and any(isinstance(v, str) for v in column)
        array = np.asarray(column, object if words else None)
    except Exception as error:  # every library raises another
        columns = _names(frame)
        if name in columns:  # such as a column of a frame that is not computed yet
            received = f"the column {name!r} of a {type(frame).__name__}, of which NumPy makes none"
            raise ValueError(
                f"`frame` must have columns that are arrays. Received: {received}"
            ) from error
        raise ValueError(
            f"`{argument}` must name a column of `frame`, one of {columns}. Received: "
            f"{argument}={name!r}"
        ) from error
    validation.check_not_masked(argument, column)
    if rows is not None and len(array) != rows:
        raise ValueError(
            f"The columns of `frame` must be of one length, that of the group column, {rows}. "
            f"Received: {len(array)} values in the column {name!r}"
        )
    return array


def _numbers(frame, argument, name, rows):
    column = _column(frame, argument, name, rows)
    if column.ndim != 1:
        raise ValueError(
            f"`{argument}` must name columns with one number a row. Received: {name!r}, of shape "
            f"{column.shape}. Two columns of one name give such a shape"
        )
    if column.dtype.kind not in "biuf":
        raise ValueError(
            f"`{argument}` must name columns of numbers. Received: the column {name!r} of dtype "
            f"{column.dtype}. Words are encoded first, and missing values filled in or dropped"
        )
    return column
