"""The tutorials run as they are printed, and reach what they say."""

import pathlib
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest

TUTORIALS = pathlib.Path(__file__).parent.parent / "docs" / "tutorials"


def own_layer(scope):
    assert "padding invariant" in scope["message"]
    assert np.ptp(scope["answers"], axis=0).max() < 1e-5


def clustering(scope):
    assert scope["estimator"].n_clusters_ == 5
    ours, told = scope["scores"].values()
    assert ours > 0.95 and ours > told + 0.2


def weighted_catalogues(scope):
    errors = scope["errors"]
    assert errors["complete"] < 0.1
    assert errors["selected"] > 3 * errors["selected, weighted"]
    assert abs(scope["estimate"] - np.sum(scope["shares"] * scope["means"])) < 0.1
    np.testing.assert_allclose(scope["by_shares"], scope["by_copies"], atol=1e-5)


def training_loops(scope):
    assert len(scope["losses"]) == 100
    assert np.mean(scope["losses"][-10:]) < 0.05


def export_and_serve(scope):
    np.testing.assert_allclose(scope["logits"], scope["expected"], atol=1e-4)
    assert scope["logits"][0].argmax() == 0
    assert scope["history"].history["accuracy"][-1] > 0.8


def point_clouds(scope):
    # 0.82 of these few digits; the page says what MNIST gives.
    assert scope["accuracy"] > 0.75


@pytest.fixture
def enlarged_digits(monkeypatch):
    """What Keras downloads as MNIST: digits of 8 x 8 pixels, made larger, each 11 times."""

    def load_data():
        digits, labels = datasets.load_digits(return_X_y=True)
        images = np.kron(digits.reshape(-1, 8, 8) * 255 / 16, np.ones((3, 3)))
        images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype("uint8")
        rng = np.random.default_rng(0)
        moved = [np.roll(images[:1400], rng.integers(-2, 3, 2), axis=(1, 2)) for _ in range(11)]
        return (np.concatenate(moved), np.tile(labels[:1400], 11)), (images[1400:], labels[1400:])

    datasets = pytest.importorskip("sklearn.datasets")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)


def bags(scope):
    assert scope["auc"] > 0.9 and np.mean(scope["right"]) > 0.85


def entity_predictions(scope):
    assert scope["accuracy"] > 0.93 > scope["inliers"] + 0.1


CHECKS = [own_layer, clustering, weighted_catalogues, training_loops, export_and_serve]
# These need packages that are not there with every backend.
WITH = {point_clouds: "keras_sets.utils", bags: "pandas", entity_predictions: "keras_sets.utils"}
CHECKS += WITH
OF_EACH_BACKEND = {training_loops, export_and_serve}


# BayesFlow and Dask have environments of their own: tests/check_bayesflow.py, tests/check_dask.py.
ELSEWHERE = {"several_devices", "bayesflow_summary", "many_workers"}


def test_every_tutorial_is_tested():
    names = {check.__name__ for check in CHECKS} | ELSEWHERE
    assert names == {path.stem for path in TUTORIALS.glob("*.py")}


@pytest.mark.skipif(keras.config.backend() != "jax", reason="a tutorial for JAX")
def test_several_devices(tmp_path):
    """In a process of its own: JAX counts its devices when it starts."""
    script = TUTORIALS / "several_devices.py"
    output = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    devices, difference, estimate = output.splitlines()[-3:]
    assert devices == "['cpu:0', 'cpu:1', 'cpu:2', 'cpu:3']"
    assert float(difference) < 1e-5
    received, expected = map(float, estimate.split())
    assert abs(received - expected) < 0.15
    assert (tmp_path / "several_devices.png").exists()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.usefixtures("enlarged_digits")
def test_tutorial(check, thorough, tmp_path, monkeypatch):
    name = check.__name__
    if check not in OF_EACH_BACKEND and not thorough:
        pytest.skip("the same on every backend")
    if check in WITH:
        pytest.importorskip("keras_sets.utils")
        pytest.importorskip(WITH[check])
    monkeypatch.chdir(tmp_path)
    scope = runpy.run_path(str(TUTORIALS / f"{name}.py"), run_name="__main__")
    check(scope)
    assert (tmp_path / f"{name}.png").exists()
