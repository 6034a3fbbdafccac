"""One small number of docs/results.md, trained anew: it must not drift.

Not collected with the other tests, because it takes minutes: `tox run -e results`, which CI runs
once a week.
"""

import json

from examples.max_regression import __main__ as command

# Mean absolute error of three trainings in docs/results.md: 0.0025 ± 0.0003.
EXPECTED, DEVIATION = 0.0025, 0.0003


def test_max_regression(tmp_path):
    output = tmp_path / "run"
    command.main(["--output", str(output), "--test-sets", "20000"])
    error = json.loads((output / "scores.json").read_text())["mean_absolute_error"]
    assert abs(error - EXPECTED) < 4 * DEVIATION, f"was {EXPECTED} ± {DEVIATION}, is {error:.5f}"
