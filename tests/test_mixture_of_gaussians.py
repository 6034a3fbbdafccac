"""The example on mixtures of Gaussians: its data, its scores, its networks, its command."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest
from scipy import stats

from examples.common import datasets
from examples.mixture_of_gaussians import __main__ as command
from examples.mixture_of_gaussians import data
from examples.mixture_of_gaussians import evaluate
from examples.mixture_of_gaussians import model as models
from keras_sets import losses
from keras_sets import models as package_models
from keras_sets import testing
from tests.conftest import shortened
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")


def some_sets(count=5, points=(10, 30), seed=0, components=4):
    return data.fixed_sets(count, np.random.default_rng(seed), points, components)


class TestSets:
    def test_the_same_points_everywhere(self):
        # Written down once: NumPy alone decides, whatever backend Keras runs on.
        sets = some_sets(2)
        assert sets.sizes.tolist() == [27, 23]
        expected = [[3.1532357, 2.1435244], [-2.4056315, 3.0797811]]
        np.testing.assert_allclose(sets.points[0, :2], expected, rtol=1e-6)

    def test_protocol(self):
        sets = data.fixed_sets(4000, np.random.default_rng(1), (100, 140), 4)
        assert (sets.sizes.min(), sets.sizes.max()) == (100, 140)
        assert stats.chisquare(np.bincount(sets.sizes)[100:]).pvalue > 1e-3
        assert stats.kstest(sets.means.reshape(-1) / 8 + 0.5, "uniform").pvalue > 1e-3
        # One of four shares of Dir(1, 1, 1, 1) is Beta(1, 3).
        assert stats.kstest(sets.weights[:, 2], stats.beta(1, 3).cdf).pvalue > 1e-3
        np.testing.assert_allclose(sets.weights.sum(axis=1), 1)
        assert not sets.points[~sets.mask].any()

    def test_points_are_of_their_mixture(self):
        sets = data.draw_sets(np.random.default_rng(2), [60000], 60000, 4)
        weights, means = sets.weights[0], sets.means[0]
        for axis in range(2):
            cdf = lambda x, axis=axis: sum(  # noqa: E731
                w * stats.norm(m, 0.3).cdf(x) for w, m in zip(weights, means[:, axis], strict=True)
            )
            assert stats.kstest(sets.points[0, :, axis], cdf).pvalue > 1e-3
        covariance = (means.T * weights) @ means - np.outer(weights @ means, weights @ means)
        covariance = covariance + 0.09 * np.eye(2)
        np.testing.assert_allclose(np.cov(sets.points[0].T), covariance, atol=0.1)

    def test_sizes_that_do_not_fit(self):
        for sizes in ([0, 5], [5, 9]):
            with pytest.raises(ValueError, match="`sizes` must lie in 1..8"):
                data.draw_sets(np.random.default_rng(0), sizes, 8, 4)


class TestDatasets:
    def test_fresh_sets(self):
        padded = data.padded_sizes((10, 30), 3)
        assert padded.tolist() == [17, 24, 30]
        dataset = data.FreshSets(40, 3, (10, 30), 4, padded, seed=5)
        seen = []
        for i in range(len(dataset)):
            inputs, points, weights = dataset[i]
            assert points is inputs["entities"]
            np.testing.assert_array_equal(weights, inputs["mask"])
            (size,) = set(inputs["mask"].sum(axis=1).tolist())
            assert inputs["mask"].shape[1] == padded[np.searchsorted(padded, size)]
            seen.append(size)
        assert min(seen) >= 10 and max(seen) <= 30 and len(set(seen)) > 12
        assert dataset[0][1].shape != dataset[1][1].shape

    def test_an_epoch_is_a_function_of_its_number(self):
        first, second = (
            data.FreshSets(3, 2, (10, 30), 4, data.padded_sizes((10, 30), 2)) for _ in range(2)
        )
        before = first[2][1]
        first.on_epoch_end()
        assert before.shape != first[2][1].shape or (before != first[2][1]).any()
        second.start_at(1)
        for i in range(3):
            np.testing.assert_array_equal(first[i][1], second[i][1])
        second.start_at(0)
        np.testing.assert_array_equal(before, second[2][1])

    def test_fixed_sets_come_once_each(self):
        sets = some_sets(11)
        batches, order = data.fixed_batches(sets, 4, np.array([20, 30]))
        assert sorted(order) == list(range(11)) and len(batches) == 3
        for i in range(3):
            inputs, points, weights = batches[i]
            expected = sets.select(order[4 * i : 4 * i + 4], points.shape[1])
            np.testing.assert_array_equal(points, expected.points)
            np.testing.assert_array_equal(inputs["entities"], expected.points)
            np.testing.assert_array_equal(weights, expected.mask)

    def test_streams_differ(self):
        validation, test = (
            data.fixed_sets(2, datasets.generator(0, s), (5, 9), 4).means for s in (1, 2)
        )
        assert (validation != test).any()


def densities(points, mixtures, index):
    """p(x) of one set by SciPy."""
    return sum(
        np.exp(mixtures.log_weights[index, k])
        * stats.multivariate_normal(
            mixtures.means[index, k], np.diag(mixtures.sigmas[index, k] ** 2)
        ).pdf(points)
        for k in range(mixtures.means.shape[1])
    )


def random_mixtures(count, components=4, seed=3):
    rng = np.random.default_rng(seed)
    return evaluate.Mixtures(
        np.log(rng.dirichlet(np.ones(components), count)),
        rng.normal(size=(count, components, 2)),
        rng.uniform(0.5, 2, (count, components, 2)),
    )


class TestScores:
    def test_likelihoods(self):
        sets, mixtures = some_sets(), random_mixtures(5)
        received = evaluate.log_likelihoods(sets, mixtures)
        for i, (points, mask) in enumerate(zip(sets.points, sets.mask, strict=True)):
            expected = np.log(densities(points[mask].astype("float64"), mixtures, i)).mean()
            assert received[i] == pytest.approx(expected, rel=1e-9)

    def test_agrees_with_the_loss(self):
        sets = some_sets()
        outputs = np.random.default_rng(0).normal(size=(5, 4, 5)).astype("float32")

        class Constant:
            def predict_on_batch(self, inputs):
                places = [
                    np.flatnonzero((sets.points[:, 0] == row[0]).all(axis=1))[0]
                    for row in inputs["entities"]
                ]
                return outputs[places]

        mixtures = evaluate.predicted_mixtures(Constant(), sets, np.array([20, 30]), batch_size=2)
        loss = losses.GaussianMixtureLoss(reduction=None)
        values = keras.ops.convert_to_numpy(loss(sets.points, outputs, sets.mask))
        np.testing.assert_allclose(
            -values.sum(axis=1) / sets.sizes, evaluate.log_likelihoods(sets, mixtures), rtol=1e-4
        )

    def test_em_step(self):
        sets, mixtures = some_sets(3), random_mixtures(3)
        after = evaluate.em_step(sets, mixtures)
        for i, (points, mask) in enumerate(zip(sets.points, sets.mask, strict=True)):
            points = points[mask].astype("float64")
            for k in range(4):
                density = stats.multivariate_normal(
                    mixtures.means[i, k], np.diag(mixtures.sigmas[i, k] ** 2)
                ).pdf(points)
                share = np.exp(mixtures.log_weights[i, k]) * density
                share = share / densities(points, mixtures, i)
                mean = np.average(points, axis=0, weights=share)
                variance = np.average((points - mean) ** 2, axis=0, weights=share)
                assert np.exp(after.log_weights[i, k]) == pytest.approx(share.mean(), rel=1e-9)
                np.testing.assert_allclose(after.means[i, k], mean, rtol=1e-9)
                np.testing.assert_allclose(after.sigmas[i, k] ** 2, variance, rtol=1e-7)
        gain = evaluate.log_likelihoods(sets, after) - evaluate.log_likelihoods(sets, mixtures)
        assert (gain > 0).all()

    def test_em_step_of_a_gaussian_without_points(self):
        sets, mixtures = some_sets(2), random_mixtures(2)
        mixtures.means[0, 0] = 1e4
        after = evaluate.em_step(sets, mixtures)
        assert np.isfinite(after.means).all() and (after.sigmas > 0).all()
        assert np.isfinite(evaluate.log_likelihoods(sets, after)).all()

    def test_the_best_of_several_views(self):
        """A network that is right only where the first mean lies up and right of the others."""
        sets = some_sets(6)
        true = evaluate.true_mixtures(sets)
        seen = []

        class OneSided:
            def predict_on_batch(self, inputs):
                points = inputs["entities"]
                seen.append(points)
                turned = [
                    np.flatnonzero(
                        (np.sort(np.abs(sets.points[:, 0])) == np.sort(np.abs(row[0]))).all(axis=1)
                    )[0]
                    for row in points
                ]
                outputs = np.zeros((len(points), 4, 5), "float32")
                for k, i in enumerate(turned):
                    view = next(
                        v for v in evaluate.VIEWS if (sets.points[i, 0] @ v == points[k, 0]).all()
                    )
                    means = true.means[i] @ view
                    outputs[k, :, 0] = true.log_weights[i]
                    outputs[k, :, 1:3] = means + 9 * (means[0] < 0).any()
                    outputs[k, :, 3:] = np.log(np.expm1(0.3))
                return outputs

        received = evaluate.best_of_views(OneSided(), sets, np.array([30]), 8)
        assert len(seen) == 8
        np.testing.assert_allclose(received.means, true.means, atol=1e-5)
        np.testing.assert_allclose(received.log_weights, true.log_weights, atol=1e-5)

    def test_views_are_the_symmetries_of_the_square(self):
        views = np.array(evaluate.VIEWS)
        assert len(np.unique(views, axis=0)) == 8
        for view in views:
            np.testing.assert_array_equal(view @ view.T, np.eye(2))
            assert all((views == product).all(axis=(1, 2)).any() for product in views @ view)

    def test_spreads_turn_with_the_view(self):
        sets = some_sets(3)
        outputs = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")

        class Constant:
            def predict_on_batch(self, inputs):
                return outputs

        plain = evaluate.predicted_mixtures(Constant(), sets, np.array([30]))
        turned = evaluate.best_of_views(Constant(), sets, np.array([30]), 2)
        quarter = evaluate.log_likelihoods(
            dataclasses.replace(sets, points=sets.points @ evaluate.VIEWS[1]), plain
        )
        expected = np.maximum(evaluate.log_likelihoods(sets, plain), quarter)
        np.testing.assert_allclose(evaluate.log_likelihoods(sets, turned), expected, rtol=1e-6)

    def test_em_to_convergence_is_at_least_the_truth(self):
        sets = data.fixed_sets(20, np.random.default_rng(0), (200, 300), 2)
        fitted = evaluate.log_likelihoods(sets, evaluate.fitted_mixtures(sets))
        oracle = evaluate.log_likelihoods(sets, evaluate.true_mixtures(sets))
        assert np.mean(fitted > oracle) > 0.9

    def test_oracle_of_the_protocol(self):
        # Published: -1.4726, on sets of their own.
        sets = data.fixed_sets(1500, np.random.default_rng(4), (100, 500), 4)
        oracle = evaluate.log_likelihoods(sets, evaluate.true_mixtures(sets))
        assert abs(oracle.mean() + 1.4726) < 4 * oracle.std() / np.sqrt(1500)


@pytest.mark.parametrize(
    "protocol, oracle", [((4, (100, 500)), "-1.4726"), ((6, (1000, 5000)), "-1.8202")]
)
def test_published_rows_are_of_the_protocol(protocol, oracle):
    scores = [evaluate.Score("network", (-1.5, 0.1), None, (0.1, 0.01))]
    (row,) = [
        line
        for line in evaluate.table(scores, 9, protocol).splitlines()
        if "published: oracle" in line
    ]
    assert row.split()[2] == oracle and row.split()[-1] == "0.0000"
    assert "published" not in evaluate.table(scores, 9, (6, (100, 500)))


def network(*arguments):
    options = command.parse(["--smoke", *arguments])
    return models.build(options)


NETWORKS = [
    ["--model", "deep-sets", "--decoder", "slots"],
    ["--model", "deep-sets", "--decoder", "mean"],
    ["--model", "equivariant-max", "--decoder", "mean"],
    ["--model", "set-transformer", "--decoder", "attention", "--inducing-points", "3"],
    ["--model", "swarm-maps", "--decoder", "attention", "--maps", "2"],
]


class TestNetworks:
    @pytest.mark.parametrize("arguments", NETWORKS, ids=" ".join)
    def test_laws(self, arguments):
        """Order and padding do not matter, whatever the padding holds."""
        model = network(*arguments)
        rng = np.random.default_rng(0)
        points = rng.normal(size=(2, 12, 2)).astype("float32")
        whole = {"entities": points, "mask": np.ones((2, 12), bool)}
        expected = answers(model, whole)[0]
        assert expected.shape == (2, 4, 5)
        order = rng.permutation(15)
        padded = np.concatenate([points, np.full((2, 3, 2), 7, "float32")], axis=1)[:, order]
        mask = np.broadcast_to(order < 12, (2, 15))
        received = answers(model, {"entities": padded, "mask": mask})[0]
        np.testing.assert_allclose(received, expected, atol=2e-5)
        # The set does matter.
        other = answers(model, {**whole, "entities": points[::-1]})[0]
        assert np.abs(other - expected).max() > 1e-3

    def test_gradients_are_finite_where_slots_get_nothing(self):
        """Also of a set without points."""
        model = network()
        rng = np.random.default_rng(0)
        points = rng.normal(size=(2, 6, 2)).astype("float32")
        mask = np.array([[True] * 6, [False] * 6])

        def outputs(x):
            return model({"entities": x, "mask": keras.ops.convert_to_tensor(mask)})

        values, gradient, _ = testing.outputs_and_gradients(outputs, points)
        assert np.isfinite(values[0]).all() and np.isfinite(gradient).all()
        assert not gradient[1].any()

    def test_sizes(self, capsys):
        command.main(["--dry-run"])
        assert "deep-sets-slots-64: 115,305 parameters" in capsys.readouterr().out


def test_the_network_that_is_shipped():
    # docs/results.md gives -0.0233 on 1,000 sets, with a standard error of 0.0016.
    network = package_models.load_pretrained("mixture_of_gaussians")
    sets = data.fixed_sets(100, np.random.default_rng(3), (100, 500), 4)
    scores = evaluate.compare({"network": network}, sets, data.padded_sizes((100, 500), 1))
    gap, error = scores[0].gap
    assert abs(gap + 0.0233) < 4 * error < 0.04


FILES = (
    "config.json learning_curves.png metrics.csv mixtures.png model.keras scores.json table.txt "
    "weight_traces.png"
).split()


class TestCommand:
    def test_smoke(self, tmp_path, capsys):
        output = tmp_path / "run"
        command.main(["--smoke", "--output", str(output), *shortened("--layers 1 --test-sets 4")])
        assert set(FILES) <= {path.name for path in output.iterdir()}
        printed = capsys.readouterr().out
        for line in ("EM from k-means", "oracle, the true mixture", "best of 2 views"):
            assert line in printed
        assert "published" not in printed  # those are of sets of 100 to 500 points
        scores = json.loads((output / "scores.json").read_text())
        network, further, best, fitted, oracle = scores
        assert best["ll0"][0] > further["ll0"][0]
        assert further["method"].endswith("2 iterations") and further["ll0"] != network["ll0"]
        assert oracle["gap"] == [0, 0]
        for score in (network, further, best, fitted):
            assert score["gap"][0] == pytest.approx(oracle["ll0"][0] - score["ll0"][0])
        assert network["ll1"][0] > network["ll0"][0]
        model = keras.models.load_model(output / "model.keras")
        inputs = {"entities": np.zeros((1, 7, 2), "float32"), "mask": np.ones((1, 7), bool)}
        assert model.predict(inputs, verbose=0).shape == (1, 4, 5)

    @pytest.mark.usefixtures("on_one_backend", "no_rendering")
    def test_resume(self, tmp_path):
        options = ["--smoke", "--decoder", "mean", "--steps", "2", "--output"]
        command.main([*options, str(tmp_path / "whole"), "--epochs", "2", "--schedule", "constant"])
        for extra in (["--epochs", "1"], ["--epochs", "2", "--resume"]):
            command.main([*options, str(tmp_path / "parts"), *extra, "--schedule", "constant"])
        whole, parts = (
            keras.models.load_model(tmp_path / name / "model.keras") for name in ("whole", "parts")
        )
        for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--points", "9", "3"], "argument --points: LEAST is above MOST"),
            (["--test-points", "9", "3"], "argument --test-points: LEAST is above MOST"),
            (["--points", "3", "9"], "argument --test-points: LEAST is at least 4"),
            (["--views", "9"], "invalid choice: 9"),
            (["--components", "0"], "expected a positive integer"),
            (["--heads", "3"], "num_heads"),
            (["--test-sets", "1"], "a standard error needs 2 sets"),
            (["--decoder", "max"], "choose from"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            command.main(["--smoke", "--output", str(tmp_path / "run"), *arguments])
        assert error.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_rendering")
def test_the_step_schedule(tmp_path):
    """A tenth of the learning rate after 70 % of the epochs, as in the protocol."""
    output = tmp_path / "run"
    arguments = "--decoder mean --steps 1 --epochs 10 --schedule step --learning-rate 0.001"
    arguments = [*arguments.split(), *shortened("--layers 1")]
    command.main(["--smoke", *arguments, "--output", str(output)])
    rows = pathlib.Path(output / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("learning_rate")
    rates = [float(row.split(",")[column]) for row in rows[1:]]
    np.testing.assert_allclose(rates, [1e-3] * 7 + [1e-4] * 3, rtol=1e-5)
