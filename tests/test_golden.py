"""Saved layers of every backend and every release load here and answer the same."""

import json
import os
import pathlib
import zipfile

import keras
import numpy as np
import pytest

from tests import make_golden
from tests.conftest import BACKENDS

CASES = make_golden.load_cases()
EXCHANGE = os.environ.get("KERAS_SETS_EXCHANGE")
# Compiled models by their configuration: files that hold the same one run on one model.
RUNNERS = {}


def golden_files(name):
    """The committed files of a case, over releases and backends."""
    return sorted(make_golden.GOLDEN.glob(f"*/*/{name}.keras"))


def check_files(name, paths):
    """Loads every file and compares answers."""
    for path in paths:
        keras.utils.clear_session(free_memory=False)
        model = keras.saving.load_model(path)
        runner = RUNNERS.setdefault(str(model.get_config()), model)
        runner.set_weights(model.get_weights())
        received = make_golden.answers(runner, CASES[name])
        with np.load(path.with_suffix(".npz")) as archive:
            expected = [archive[key] for key in archive.files]
        assert len(received) == len(expected), path
        for one, other in zip(received, expected, strict=True):
            scale = max(1.0, float(np.abs(other).max(initial=0.0)))
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * scale, err_msg=str(path))


@pytest.mark.parametrize("name", CASES)
def test_files_of_all_backends_load(name):
    paths = golden_files(name)
    missing = set(BACKENDS) - {path.parent.name for path in paths}
    assert not missing, (
        f"no golden file of case '{name}' by {sorted(missing)}: run "
        "`KERAS_BACKEND=... python -m tests.make_golden` on each backend and commit"
    )
    check_files(name, paths)


def test_every_keras_knows_what_the_files_name():
    """A later Keras may write options that the lowest version of pyproject.toml refuses."""
    shipped = make_golden.ROOT / "keras_sets" / "models" / "weights"
    paths = [*make_golden.GOLDEN.glob("*/*/*.keras"), *shipped.glob("*.keras")]
    assert len(paths) > 3
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        assert config == make_golden.without_new_options(config), (
            f"run `python -m tests.make_golden --pack {path}` and commit"
        )


def test_no_golden_file_is_without_a_case():
    names = {path.stem for path in make_golden.GOLDEN.glob("*/*/*.keras")}
    assert names <= set(CASES), "a saved layer of an earlier state is no longer tested"


@pytest.mark.skipif(not EXCHANGE, reason="tox names the directory that test runs share")
def test_files_of_other_test_runs_load():
    """What the other backends' runs have just written with the same sources."""
    written = make_golden.write_exchange(EXCHANGE)
    found = {}
    for directory in sorted(written.parent.glob("[!.]*")):
        if directory != written:
            for path in sorted(pathlib.Path(directory).glob("*.keras")):
                found.setdefault(path.stem, []).append(path)
    for name, paths in found.items():
        check_files(name, paths)
