"""Population statistics: the targets, the sets, the methods, the command."""

import json

import numpy as np
import pytest
from scipy import integrate
from scipy import stats

from examples.common import datasets
from examples.population_statistics import __main__ as command
from examples.population_statistics import data
from examples.population_statistics import evaluate
from examples.population_statistics import model as models
from examples.population_statistics import names
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")


def call(*arguments):
    command.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("steps", [2, 3, 7, 12])
def test_epochs_of_a_given_length(steps):
    """The first two batches differ in size, from which TensorFlow learns that it varies."""
    sets = [np.ones((n, 1)) for n in (4, 4, 4, 4, 4, 4, 4, 4, 9, 9)]
    for seed in range(5):
        batches = datasets.RepeatedSets(sets, steps=steps, batch_size=2, buckets=2, seed=seed)
        sizes = [batches[i][0]["entities"].shape[1] for i in range(len(batches))]
        assert len(sizes) == steps and sizes[0] != sizes[1]


class TestTargets:
    def test_entropy(self):
        covariance = np.array([[[4.0, 1.0], [1.0, 2.0]]])
        expected = stats.norm(scale=2).entropy()
        assert data.statistic("rotation", covariance) == pytest.approx(expected)

    def test_rotation(self):
        covariance = data.covariances("rotation", 0, datasets.generator(0, 2), 50)
        fixed = data.wishart(datasets.generator(0, 1), 2)
        values, vectors = np.linalg.eigh(fixed)
        np.testing.assert_allclose(np.linalg.eigvalsh(covariance), np.tile(values, (50, 1)))
        # The variance of the first coordinate goes through all that a turn can give.
        first = covariance[:, 0, 0]
        assert values[0] <= first.min() < first.max() <= values[1]
        assert np.ptp(first) > 0.9 * np.ptp(values)

    def test_correlation(self):
        covariance = data.covariances("correlation", 0, datasets.generator(0, 2), 20)
        a = covariance[:, 0, 16] / covariance[:, 0, 0]
        assert a.min() < -0.5 and a.max() > 0.5
        expected = -8 * np.log(1 - a**2)
        np.testing.assert_allclose(data.statistic("correlation", covariance), expected, atol=1e-9)

    def test_rank_1(self):
        covariance = data.covariances("rank-1", 0, datasets.generator(0, 2), 20)
        v = datasets.generator(0, 1).standard_normal(32)
        a = (covariance[:, 0, 0] - 1) / v[0] ** 2
        assert 0 < a.min() < 0.3 and 0.7 < a.max() < 1
        one, other = (v[:16] ** 2).sum(), (v[16:] ** 2).sum()
        ratio = (1 + a * one) * (1 + a * other) / (1 + a * (one + other))
        np.testing.assert_allclose(data.statistic("rank-1", covariance), 0.5 * np.log(ratio))

    def test_mutual_information_from_canonical_correlations(self):
        (covariance,) = data.covariances("random", 0, datasets.generator(0, 2), 1)
        halves = np.split(np.arange(32), 2)
        a, b = (np.linalg.cholesky(covariance[np.ix_(half, half)]) for half in halves)
        mixed = np.linalg.solve(a, np.linalg.solve(b, covariance[16:, :16]).T)
        correlations = np.linalg.svd(mixed, compute_uv=False)
        expected = -0.5 * np.log(1 - correlations**2).sum()
        assert data.statistic("random", covariance) == pytest.approx(expected)


class TestSets:
    @pytest.mark.parametrize("task", names.TASKS)
    def test_protocol(self, task):
        sets = data.draw(task, 0, datasets.generator(0, 2), 30)
        sizes = np.array([len(points) for points in sets.samples])
        assert 300 <= sizes.min() < 350 and 450 < sizes.max() <= 500
        assert sets.targets.shape == (30, 1) and sets.targets.dtype == np.float32
        assert {points.dtype for points in sets.samples} == {np.dtype("float32")}
        # Every set is drawn from its own covariance: whitened samples are standard normal.
        covariance = data.covariances(task, 0, datasets.generator(0, 2), 30)
        expected = data.statistic(task, covariance)
        np.testing.assert_allclose(sets.targets[:, 0], expected, rtol=1e-5)
        for points, factor in zip(sets.samples, np.linalg.cholesky(covariance), strict=True):
            white = np.linalg.solve(factor, points.T)
            assert stats.kstest(white.ravel(), "norm").pvalue > 1e-4

    def test_first(self):
        sets = data.draw("rotation", 0, datasets.generator(0, 2), 5)
        few = sets.first(2)
        assert len(few.samples) == 2 and (few.targets == sets.targets[:2]).all()

    def test_what_the_sets_of_a_task_have_in_common(self):
        one, other = (
            data.covariances("correlation", 3, datasets.generator(3, stream), 2)[:, :16, :16]
            for stream in (2, 3)
        )
        np.testing.assert_array_equal(one, other)


class TestMethods:
    @pytest.mark.parametrize("name", ["deep-sets", "log-variances"])
    def test_neither_order_nor_padding_matter(self, rng, name):
        network = models.build(name, 2)
        points = rng.normal(size=(3, 9, 2)).astype("float32")
        mask = np.arange(9) < np.array([[9], [4], [1]])
        expected = answers(network, {"entities": points, "mask": mask})[0]
        assert expected.shape == (3, 1)
        order = rng.permutation(9)
        points, mask = points[:, order], mask[:, order]
        points[~mask] = np.nan
        changed = answers(network, {"entities": points, "mask": mask})[0]
        np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-5)

    def test_plug_in(self, rng):
        samples = [np.array([[3.0, 1.0], [1.0, 5.0]]), rng.normal(size=(9, 2))]
        answers = evaluate.plug_in("rotation", samples)
        assert answers[0, 0] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 5))
        variance = (samples[1][:, 0] ** 2).mean()
        assert answers[1, 0] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * variance))

    def test_posterior(self):
        sets = data.draw("rotation", 1, datasets.generator(1, 2), 4)
        angles = np.linspace(0, np.pi, 2001)
        likelihoods = np.zeros((4, len(angles)))
        covariance = data.family("rotation", 1, angles)
        for i, points in enumerate(sets.samples):
            for j, one in enumerate(covariance):
                likelihoods[i, j] = stats.multivariate_normal(cov=one).logpdf(points[:100]).sum()
        weights = np.exp(likelihoods - likelihoods.max(axis=1, keepdims=True))
        targets = data.statistic("rotation", covariance)
        expected = integrate.trapezoid(weights * targets, angles)
        expected /= integrate.trapezoid(weights, angles)
        received = evaluate.posterior("rotation", 1, [points[:100] for points in sets.samples])
        np.testing.assert_allclose(received[:, 0], expected, rtol=1e-5)

    @pytest.mark.parametrize("task", data.PARAMETERS)
    def test_nothing_is_better_than_the_posterior(self, task):
        sets = data.draw(task, 0, datasets.generator(0, 2), 60)
        errors = [
            np.mean((answer - sets.targets) ** 2)
            for answer in (
                evaluate.posterior(task, 0, sets.samples, 1000),
                evaluate.posterior(task, 0, sets.samples, 1500),
                evaluate.plug_in(task, sets.samples),
            )
        ]
        assert errors[0] < errors[2] and errors[0] == pytest.approx(errors[1], rel=0.01)

    def test_kernel_learns(self):
        training, test = (
            data.draw("rotation", 0, datasets.generator(0, stream), 60) for stream in (2, 3)
        )
        mean, deviation = training.targets.mean(), training.targets.std()
        pair = training.samples, (training.targets - mean) / deviation
        answers = mean + deviation * evaluate.kernel(pair, test.samples, 0)
        assert ((answers - test.targets) ** 2).mean() < 0.1 * test.targets.var()


class TestCommand:
    @pytest.mark.parametrize(
        "task, name", [("rotation", "log-variances"), ("correlation", "deep-sets")]
    )
    def test_smoke(self, tmp_path, capsys, thorough, task, name):
        """All methods, and one of them where networks are compiled."""
        output = tmp_path / "run"
        compared = names.MODELS if thorough else [name]
        call("--smoke", "--task", task, "--models", *compared, "--output", output)
        files = {path.name for path in output.iterdir()}
        assert {"errors.png", "config.json", "scores.json", "table.txt"} <= files
        scores = json.loads((output / "scores.json").read_text())
        assert list(scores["errors"]) == [*compared, "plug-in", "posterior", "constant"]
        assert scores["sets"] == [12]
        for network in {"deep-sets", "log-variances"}.intersection(compared):
            assert (output / f"{network}-12-0" / "model.keras").exists()
        assert f"{'12 sets':>22}" in capsys.readouterr().out

    @pytest.mark.usefixtures("on_one_backend")
    def test_resume_goes_on(self, tmp_path):
        options = ["--smoke", "--models", "log-variances", "--output", tmp_path]
        call(*options)
        metrics = (tmp_path / "log-variances-12-0" / "metrics.csv").read_text()
        first = json.loads((tmp_path / "scores.json").read_text())["errors"]["log-variances"]
        call(*options, "--resume", "--repeats", 2)
        both = json.loads((tmp_path / "scores.json").read_text())["errors"]["log-variances"]
        assert both[0][:1] == first[0] and len(both[0]) == 2
        assert (tmp_path / "log-variances-12-0" / "metrics.csv").read_text() == metrics

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--task", "rank-2"], "argument --task: invalid choice: 'rank-2'"),
            (["--sets", "8", "-1"], "expected a positive integer, received '-1'"),
            (["--sets", "2"], "argument --sets: expected at least 3, received 2"),
            (["--initial-model", "x.keras"], "holds the weights of one network"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
