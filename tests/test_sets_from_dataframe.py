"""Sets from tables that have a row for every entity."""

import numpy as np
import pytest

from keras_sets.utils import SetDataset
from keras_sets.utils import sets_from_dataframe

COLUMNS = {
    "group": ["b", "a", "b", "c"],
    "x": [1.0, 2.0, 3.0, 4.0],
    "y": [5, 6, 7, 8],
    "of_set": [1, 0, 1, 1],
    "of_entity": [1, 0, 0, 1],
}


def make_frame(library):
    if library == "dict":
        return COLUMNS
    return pytest.importorskip(library).DataFrame(COLUMNS)


def test_many_rows_stay_in_order():
    frame = {"group": np.arange(999) % 3, "x": np.arange(999.0)}
    sets, *_ = sets_from_dataframe(frame, "group", "x")
    np.testing.assert_array_equal(np.concatenate(sets, axis=1), np.arange(999.0).reshape(-1, 3))


class TestDataFrames:
    @pytest.mark.parametrize("library", ["dict", "pandas", "polars"])
    def test_groups(self, library):
        frame = make_frame(library)
        sets, targets, weights, groups = sets_from_dataframe(
            frame, "group", ["x", "y"], target="of_set", weight="y"
        )
        assert [points.tolist() for points in sets] == [[[1, 5], [3, 7]], [[2, 6]], [[4, 8]]]
        assert targets.tolist() == [1, 0, 1] and groups.tolist() == ["b", "a", "c"]
        assert [w.tolist() for w in weights] == [[5, 7], [6], [8]]
        inputs, labels = SetDataset(sets, targets, weights, shuffle=False)[0]
        assert inputs["weights"].tolist() == [[5, 7], [6, 0], [8, 0]]

        sets, targets, weights, _ = sets_from_dataframe(frame, "group", "x", "of_entity")
        assert [points.shape for points in sets] == [(2, 1), (1, 1), (1, 1)] and weights is None
        assert [labels.tolist() for labels in targets] == [[1, 0], [0], [1]]
        assert sets_from_dataframe(frame, "group", "x").targets is None

    @pytest.mark.parametrize(
        ("changes", "arguments", "message"),
        [
            ({}, dict(group="g"), r"`group` must name a column.*'group'.*Received: group='g'"),
            ({}, dict(features=["x", "z"]), "`features` must name a column.*features='z'"),
            ({}, dict(features=[]), "`features` must name at least one column"),
            ({}, dict(features="group"), "`features` must name columns of numbers.*'group'"),
            ({}, dict(weight="group"), "`weight` must name columns of numbers"),
            ({}, dict(target="t"), "`target` must name a column"),
            ({"x": np.eye(4, 2)}, {}, r"one number a row. Received: 'x', of shape \(4, 2\)"),
            ({name: [] for name in COLUMNS}, {}, "`frame` must have at least one row"),
            ({"group": ["a", None, "b", "b"]}, {}, "1 of 4 rows without a value.*row 1"),
            ({"group": [0.0, 1.0, 1.0, np.nan]}, {}, "1 of 4 rows without a value.*row 3"),
            ({"group": ["b", "a", "b", np.nan]}, {}, "1 of 4 rows without a value.*row 3"),
            ({"group": np.eye(4, 2)}, {}, "`group` must name one column.*Received: group='group'"),
            ({"x": [1.0, 2.0, 3.0, 4.0, 5.0]}, {}, "one length.*4. Received: 5 values.*'x'"),
            ({"y": [1, 2, 3]}, dict(weight="y"), "one length.*4. Received: 3 values.*'y'"),
            ({"y": [1, 2, 3, 4, 5]}, dict(target="y"), "one length.*Received: 5 values.*'y'"),
            ({"x": np.ma.masked_equal([1, 2, 3, 9], 9)}, {}, "`features` .* 1 of 4 are masked"),
        ],
    )
    def test_bad_input(self, changes, arguments, message):
        with pytest.raises(ValueError, match=message):
            sets_from_dataframe(
                {**COLUMNS, **changes}, **{"group": "group", "features": "x"} | arguments
            )

    @pytest.mark.parametrize("missing", [np.nan, None, "NA"])
    def test_a_target_that_is_missing_for_a_whole_set_is_one_of_sets(self, missing):
        if missing == "NA":
            missing = pytest.importorskip("pandas").NA
        of_set = np.array([missing, 0, missing, 1], object if missing is not np.nan else float)
        targets = sets_from_dataframe({**COLUMNS, "y": of_set}, "group", "x", "y").targets
        assert targets[0] is missing or np.isnan(targets[0])
        assert targets[1:].tolist() == [0, 1]
        of_set[2] = 1  # known for another entity of the set
        targets = sets_from_dataframe({**COLUMNS, "y": of_set}, "group", "x", "y").targets
        assert [len(labels) for labels in targets] == [2, 1, 1]

    def test_what_is_no_table(self):
        with pytest.raises(ValueError, match="`frame` must be a data frame.*Received: str"):
            sets_from_dataframe("cells.csv", "group", "x")

        class Lazy:
            columns = ("group", "x")

        with pytest.raises(ValueError, match="columns that are arrays.*'group' of a Lazy"):
            sets_from_dataframe(Lazy(), "group", "x")

    def test_a_group_that_pandas_calls_missing(self):
        pandas = pytest.importorskip("pandas")
        group = pandas.array(["b", None, "b", "c"], dtype="string")
        with pytest.raises(ValueError, match="1 of 4 rows without a value.*row 1"):
            sets_from_dataframe({**COLUMNS, "group": group}, "group", "x")
