"""Chunks and catalogues on the workers of Dask, of which one is killed.

Not collected with the other tests, because it needs Dask: `tox run -e dask`, or
`python -m pytest tests/check_dask.py` where it is installed.
"""

import functools
import os
import pathlib
import runpy
import signal

import distributed
import numpy as np
import pytest

from keras_sets import models

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def executor():
    with (
        distributed.SubprocessCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        # The readers below are functions of a module of the tests.
        client.run(lambda: __import__("sys").path.insert(0, str(ROOT)))
        yield client.get_executor(pure=False, retries=3)


def read(index, killed=None):
    """A chunk; the first worker that reads chunk 2 dies."""
    if index == 2 and killed is not None and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.random.default_rng(index).normal(size=(1, 50_000, 2)).astype("float32")


def test_a_worker_that_is_killed_loses_nothing(executor, tmp_path):
    model = models.swarm(2, 3, hidden_units=8, iterations=3)
    killed = tmp_path / "killed"
    readers = [functools.partial(read, i, killed) for i in range(6)]
    received = list(models.predict_in_chunks(model, readers, executor=executor))
    assert killed.exists()
    expected = list(models.predict_in_chunks(model, [functools.partial(read, i) for i in range(6)]))
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_tutorial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = runpy.run_path(str(ROOT / "docs/tutorials/many_workers.py"), run_name="__main__")
    assert scope["shares"].shape == (200,) and 0.3 < scope["shares"].mean() < 0.5
    assert scope["accuracy"] > 0.9 and scope["same"] > 0.9999
    assert (tmp_path / "many_workers.png").exists()
