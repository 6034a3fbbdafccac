"""The broad prior of the clustering task, its classical methods, and what is reported of them."""

import keras
import numpy as np
import pytest
from scipy import special
from scipy import stats

from examples.amortized_clustering import data
from examples.amortized_clustering import evaluate
from examples.amortized_clustering import map_em
from examples.amortized_clustering import priors
from examples.amortized_clustering import reliability


class TestBroadPrior:
    tasks = priors.broad_tasks(400, seed=0, points=300)

    def labels(self):
        return self.tasks.labels.reshape(400, 300)

    def test_the_seed_decides(self):
        again = priors.broad_tasks(400, seed=np.random.default_rng(0), points=300)
        np.testing.assert_array_equal(again.points, self.tasks.points)
        np.testing.assert_array_equal(again.labels, self.tasks.labels)

    def test_mixtures_of_points_in_any_unit(self):
        tasks = self.tasks.select(0, 6)
        tiny = data.Tasks(tasks.points * np.float32(1e-4), *list(vars(tasks).values())[1:])
        for given in (tasks, tiny):
            for log_p in evaluate.mixture_predictions(given):
                np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-9)

    def test_sizes(self):
        sizes = priors.broad_tasks(300, seed=1, entities=(20, 500)).sizes
        assert 20 <= sizes.min() < 30 and 400 < sizes.max() <= 500
        # The logarithm is uniform.
        assert stats.kstest(np.log(sizes), stats.uniform(np.log(20), np.log(25)).cdf).pvalue > 1e-3

    def test_one_to_ten_clusters_of_equal_and_unequal_numbers(self):
        clusters = [np.unique(row[row >= 0], return_counts=True) for row in self.labels()]
        number = np.array([len(c) for c, _ in clusters])
        np.testing.assert_array_equal(number, self.tasks.clusters)
        assert set(number) == set(range(1, 11))
        ratio = np.array([counts.max() / counts.min() for _, counts in clusters if len(counts) > 1])
        assert (ratio < 2).mean() > 0.2 and (ratio > 5).mean() > 0.2

    def test_points_have_no_order(self):
        first, second = self.labels()[:, :150], self.labels()[:, 150:]
        same = np.mean([set(a) == set(b) for a, b in zip(first, second, strict=True)])
        assert same > 0.8

    def test_background_in_a_third(self):
        share = (self.labels() == -1).mean(axis=1)
        assert 0.25 < (share > 0).mean() < 0.4 and 0.05 < share.max() < 0.15

    def test_most_clusters_are_apart(self):
        # The nearest neighbor of a point is almost always of its own cluster.
        points, labels = self.tasks.points.reshape(400, 300, 2)[:100], self.labels()[:100]
        hits = []
        for x, y in zip(points.astype("float64"), labels, strict=True):
            x, y = x[y >= 0], y[y >= 0]
            distances = np.square(x[:, None] - x).sum(axis=-1)
            np.fill_diagonal(distances, np.inf)
            hits.append((y[distances.argmin(axis=1)] == y).mean())
        assert np.mean(hits) > 0.93 and min(hits) < 0.9

    @pytest.mark.parametrize("shape", priors.SHAPES)
    @pytest.mark.parametrize("dimensions", [1, 2, 3])
    def test_shapes_have_unit_covariance(self, shape, dimensions):
        rng = np.random.default_rng(0)
        values = rng.standard_normal((40000, dimensions), dtype="float32")
        # Tails of 8 degrees of freedom: with fewer the moments themselves are uncertain.
        amount = np.full((40000, 1), 1.0 if shape == "student" else 0.6, "float32")
        values = values if shape == "gaussian" else priors.deform(rng, shape, values, amount)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(
            np.cov(values.T).reshape(dimensions, -1), np.eye(dimensions), atol=0.06
        )

    @pytest.mark.parametrize("dimensions", [1, 5])
    def test_any_dimensions(self, dimensions):
        tasks = priors.broad_tasks(20, seed=2, entities=(20, 60), dimensions=dimensions)
        assert tasks.points.shape == (tasks.offsets[-1], dimensions)
        assert np.isfinite(tasks.points).all()
        part = tasks.select(3, 7)
        np.testing.assert_array_equal(part.clusters, tasks.clusters[3:7])
        points, mask, labels = part.padded(np.arange(4), 60)
        assert points.shape == (4, 60, dimensions) and (labels[~mask] == data.PADDING).all()
        with pytest.raises(ValueError, match="no known posterior"):
            data.posterior(part, np.arange(4), points)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"count": 0},
            {"dimensions": 0},
            {"clusters": (0, 3)},
            {"points": 0},
            {"entities": (9, 3)},
        ],
    )
    def test_bad_arguments(self, arguments):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            priors.broad_tasks(**{"count": 2, **arguments})


class TestMapEM:
    @pytest.mark.parametrize("count, tolerance", [(32, 0.13), (128, 0.035)])
    def test_evidence_is_the_likelihood_under_the_prior(self, count, tolerance):
        # Of one cluster. Were the prior of its mean flat, the covariance would be inverse
        # Wishart distributed: what is left is a mean over its draws. The error of Laplace's
        # approximation falls like 1 / count.
        points = np.array([0.3, -0.2]) + 0.3 * np.random.default_rng(0).normal(size=(count, 2))
        mean, freedom = points.mean(axis=0), data.DEGREES_OF_FREEDOM + count - 1
        scale = map_em.SCALE + (points - mean).T @ (points - mean)
        flat = special.multigammaln(freedom / 2, 2) - special.multigammaln(2, 2)
        flat += 2 * np.linalg.slogdet(map_em.SCALE)[1] - freedom / 2 * np.linalg.slogdet(scale)[1]
        flat -= (count - 1) * np.log(np.pi) + np.log(count)
        draws = stats.invwishart(freedom, scale).rvs(5000, random_state=1)
        spread = np.eye(2) + draws / count
        logs = -0.5 * (mean @ np.linalg.inv(spread) @ mean + np.linalg.slogdet(spread)[1])
        expected = flat + special.logsumexp(logs - np.log(2 * np.pi)) - np.log(len(logs))

        fitted = map_em._climb(points, 1, 2, 100, np.random.default_rng(0))
        evidence = map_em.log_evidence(points, fitted[0][0], fitted[1][0])
        assert abs(evidence - expected) < tolerance

    def test_second_derivatives(self):
        # Along one mean, for clusters that overlap: by finite differences of the density.
        rng = np.random.default_rng(1)
        points = rng.normal(size=(60, 2))
        means, covariances, objective = map_em._climb(points, 3, 4, 500, rng)
        best = objective.argmax()
        means, covariances = means[best], covariances[best]

        def density(shift):
            moved = means + shift
            logs = map_em.log_densities(points, moved, covariances)
            return (
                special.logsumexp(logs, axis=1).sum() + map_em.log_prior(moved, covariances).sum()
            )

        information = map_em.information(points, means, covariances)
        factors = np.linalg.cholesky(covariances)
        for k in range(3):
            step = np.zeros((3, 2))
            step[k] = 1e-3 * factors[k, :, 0]
            curvature = (density(step) - 2 * density(0 * step) + density(-step)) / 1e-6
            np.testing.assert_allclose(information[5 * k, 5 * k], -curvature, rtol=1e-3)

    def test_it_finds_the_clusters_and_their_number(self):
        tasks = data.generate_tasks(3, seed=4, clusters=(3, 6), entities=(150, 200))
        score = evaluate.score("", tasks, evaluate.map_em_predictions(tasks))
        oracle = evaluate.score("", tasks, evaluate.oracle_predictions(tasks))
        assert score.ari[0] > oracle.ari[0] - 0.05 and score.right_number[0] >= 2 / 3
        told = map_em.map_em(tasks.points[: tasks.sizes[0]], clusters=int(tasks.clusters[0]))
        np.testing.assert_allclose(np.exp(told).sum(axis=1), 1)
        assert (told[:, tasks.clusters[0] :] == -np.inf).all()


def test_points_of_no_cluster_do_not_count():
    tasks = priors.broad_tasks(5, seed=3, points=120)
    labels = tasks.labels.copy()
    background = labels == -1
    assert background.any()
    labels[background] = 7
    score = evaluate.score("", tasks, list(labels.reshape(5, 120)), milliseconds=3.0)
    assert score.accuracy == (1, 0) and score.ari == (1, 0) and score.right_number == (1, 0)
    text = evaluate.table([score], 5)
    assert "1.000 ± 0.000" in text and text.endswith("3.0")
    one = [np.zeros(120, "int64")] * 5
    assert evaluate.score("", tasks, one).right_number[0] == (tasks.clusters == 1).mean()


def test_rows_of_the_table():
    inputs = {
        "entities": keras.Input((None, 2), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    logits = keras.layers.Dense(10)(inputs["entities"])
    network = keras.Model(inputs, logits)
    tasks = data.generate_tasks(3, seed=1, entities=(30, 40))
    scores, probabilities = evaluate.compare("net", network, tasks, slow_tasks=1)
    names = [s.method for s in scores]
    assert names[0] == "net" and names[-1] == "oracle"
    assert "EM with the prior, first 1" in names and "Gaussian mixture, BIC, first 1" in names
    assert [s.method for s in scores if s.right_number is None] == [names[1], names[2], names[-1]]
    assert all(s.milliseconds > 0 for s in scores)
    assert list(probabilities) == ["net", "Gaussian mixture, true k", "oracle"]
    broad, _ = evaluate.compare("net", network, priors.broad_tasks(2, seed=1, points=40))
    assert [s.method for s in broad] == names[:3]


def test_reliability(tmp_path):
    tasks = data.generate_tasks(40, seed=0, entities=(100, 300))
    oracle = reliability.reliability(tasks, evaluate.oracle_predictions(tasks))
    np.testing.assert_allclose(oracle.share.sum(), 1)
    # The posterior is right as often as it says.
    many = oracle.share > 0.01
    np.testing.assert_allclose(oracle.accuracy[many], oracle.confidence[many], atol=0.12)
    assert oracle.calibration_error < 0.02
    boast = [np.log(0.99 * np.eye(10)[p.argmax(axis=1)] + 1e-3)
             for p in evaluate.oracle_predictions(tasks)]  # fmt: skip
    assert reliability.reliability(tasks, boast).calibration_error > oracle.calibration_error
    reliability.draw({"oracle": oracle}, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").stat().st_size > 5000
