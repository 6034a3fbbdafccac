"""A summary network for BayesFlow, built of this package's layers: trains, saves, loads, infers.

Not collected with the other tests, because it needs BayesFlow: `tox run -e bayesflow`, or
`python -m pytest tests/check_bayesflow.py` where it is installed.
"""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import stats

from examples.simulation_based_inference import __main__ as command
from examples.simulation_based_inference import data
from examples.simulation_based_inference import evaluate
from examples.simulation_based_inference import model


class TestPosterior:
    def test_is_prior_times_likelihood(self):
        """Up to a constant, by another route: products of densities at several parameters."""
        test = data.simulate(np.random.default_rng(0), 3)
        exact = data.Posterior.of(test)
        means, log_scales = np.array([-0.3, 0.4, 1.1]), np.array([-0.2, 0.1, 0.5])
        for i in range(3):
            points = test["points"][i, test["mask"][i], 0].astype("float64")
            joint, posterior = [], []
            for mean, log_scale in zip(means, log_scales, strict=True):
                scale = np.exp(log_scale)
                joint.append(
                    stats.norm(mean, scale).logpdf(points).sum()
                    + stats.norm(0, scale).logpdf(mean)
                    + stats.invgamma(3, scale=2).logpdf(scale**2)
                    + np.log(2 * scale**2)
                )
                posterior.append(exact.log_density(mean, log_scale)[i, 0])
            np.testing.assert_allclose(np.diff(posterior), np.diff(joint), rtol=1e-6)

    def test_moments_are_those_of_its_draws(self):
        exact = data.Posterior.of(data.simulate(np.random.default_rng(1), 1))
        rng = np.random.default_rng(2)
        variance = stats.invgamma(exact.shape, scale=exact.rate).rvs((1, 200000), random_state=rng)
        draws = {
            "mean": exact.location + np.sqrt(variance / exact.count) * rng.normal(size=(1, 200000)),
            "log_scale": np.log(variance) / 2,
        }
        for name, (mean, width) in exact.moments().items():
            assert abs(draws[name].mean() - mean[0, 0]) < 5 * width[0, 0] / np.sqrt(200000)
            assert draws[name].std() == pytest.approx(width[0, 0], rel=0.02)

    def test_exact_samples_score_well_and_others_do_not(self):
        test = data.simulate(np.random.default_rng(3), 400)
        exact = data.Posterior.of(test)
        rng = np.random.default_rng(4)
        variance = stats.invgamma(exact.shape, scale=exact.rate).rvs((400, 200), random_state=rng)
        mean = exact.location + np.sqrt(variance / exact.count) * rng.normal(size=(400, 200))
        samples = {"mean": mean[..., None], "log_scale": np.log(variance)[..., None] / 2}
        for score in evaluate.scores(samples, test).values():
            assert score.error < 0.1 and abs(score.width - 1) < 0.02
            assert abs(score.coverage - 0.9) < 0.06 and score.p_value > 1e-3
        narrow = {
            "mean": exact.location[..., None] + (mean[..., None] - exact.location[..., None]) / 2,
            "log_scale": samples["log_scale"],
        }
        score = evaluate.scores(narrow, test)["mean"]
        assert score.width < 0.6 and score.coverage < 0.75 and score.p_value < 1e-6


class TestSummary:
    @pytest.fixture(scope="class")
    def network(self):
        return model.SwarmSummary(summary_dim=4, hidden_units=8)

    def test_order_and_padding_do_not_matter(self, network):
        test = data.simulate(np.random.default_rng(0), 4)
        summary = np.asarray(network(test["points"], mask=test["mask"]))
        assert summary.shape == (4, 4) and np.isfinite(summary).all()
        order = np.random.default_rng(1).permutation(test["mask"].shape[1])
        moved = network(test["points"][:, order], mask=test["mask"][:, order])
        np.testing.assert_allclose(np.asarray(moved), summary, atol=1e-5)
        filled = np.where(test["mask"][..., None], test["points"], 7.0).astype("float32")
        np.testing.assert_array_equal(np.asarray(network(filled, mask=test["mask"])), summary)
        assert np.abs(np.asarray(network(filled)) - summary).max() > 1e-2

    def test_it_knows_how_many(self, network):
        ones = np.ones((1, 6, 1), "float32")
        difference = np.asarray(network(ones)) - np.asarray(network(ones[:, :3]))
        assert np.abs(difference).max() > 1e-2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run of the command: long enough to learn, not to be exact."""
    path = tmp_path_factory.mktemp("bayesflow") / "run"
    options = ["--smoke", "--epochs", "10", "--batches", "100", "--test-sets", "300"]
    command.main([*options, "--samples", "100", "--output", str(path)])
    return path


def test_it_trains_and_infers(trained):
    files = {path.name for path in trained.iterdir()}
    assert {"approximator.keras", "posteriors.png", "table.txt", "scores.json"} <= files
    scores = json.loads((trained / "scores.json").read_text())
    # The prior in place of the posterior has a divergence above 2 nats.
    assert scores["kullback_leibler"][0] < 0.5
    for name in data.PARAMETERS:
        assert scores[name]["error"] < 0.6 and abs(scores[name]["width"] - 1) < 0.4


def test_another_process_loads_it_and_infers_the_same(trained, tmp_path):
    test = data.simulate(np.random.default_rng(5), 20)
    approximator = keras.saving.load_model(trained / "approximator.keras")
    expected = np.asarray(approximator.log_prob(test)).reshape(-1)
    np.savez(tmp_path / "data.npz", **test)
    code = """
import sys, keras, numpy as np
from examples.simulation_based_inference import model
with np.load(sys.argv[1]) as arrays:
    data = dict(arrays)
approximator = keras.saving.load_model(sys.argv[2])
assert isinstance(approximator.summary_network, model.SwarmSummary)
np.save(sys.argv[3], np.asarray(approximator.log_prob(data)).reshape(-1))
samples = approximator.sample(num_samples=7, conditions={k: data[k] for k in ("points", "mask")})
assert samples["mean"].shape == samples["log_scale"].shape == (20, 7, 1)
"""
    paths = (tmp_path / "data.npz", trained / "approximator.keras", tmp_path / "found.npy")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(paths[2]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="the training needs JAX")
def test_two_devices_give_the_scores_of_one(tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    found = []
    for count in "12":
        path = tmp_path / count
        arguments = ["--smoke", "--output", str(path), "--devices", count]
        done = subprocess.run(
            [sys.executable, "-m", "examples.simulation_based_inference", *arguments],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        )
        assert done.returncode == 0, done.stderr
        scores = json.loads((path / "scores.json").read_text())
        found.append(
            [scores["mean"]["error"], scores["mean"]["width"], *scores["kullback_leibler"]]
        )
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_tutorial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tutorials = pathlib.Path(__file__).parent.parent / "docs" / "tutorials"
    scope = runpy.run_path(str(tutorials / "bayesflow_summary.py"), run_name="__main__")
    # 200 intervals of probability 0.9: 0.94 is two standard errors above.
    assert 0.8 < scope["coverage"] <= 1
    assert scope["few"] > 1.3 * scope["many"]
    assert (tmp_path / "bayesflow_summary.png").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "expected a positive integer, received '0'"),
        (["--evaluate", "none.keras"], "there is no file none.keras"),
        (["--devices", "3"], "expected a divisor of the batch size 64, received 3"),
    ],
)
def test_bad_options(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        command.main(["--smoke", "--output", str(tmp_path / "run"), *arguments])
    assert error.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
