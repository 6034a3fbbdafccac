"""The mixtures that refine a network's answer, against SciPy and on the fixed sets."""

import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans

from keras_sets.wrappers import mixture
from tests import clustering_sets


def one_cluster(power, dimensions=2, blur=0.0):
    rng = np.random.default_rng(0)
    factor = np.eye(dimensions) + 0.3 * rng.normal(size=(dimensions, dimensions))
    return mixture.Mixture(
        np.ones(1),
        rng.normal(size=(1, dimensions)),
        (factor @ factor.T)[None],
        np.array([power]),
        -20.0,
        np.full(dimensions, blur),
    )


class TestDensity:
    @pytest.mark.parametrize("dimensions", [1, 2, 5])
    def test_power_1_is_a_gaussian(self, dimensions):
        cluster = one_cluster(1.0, dimensions)
        points = np.random.default_rng(1).normal(size=(20, dimensions))
        logs, squared = cluster.log_densities(mixture.features(points))
        expected = stats.multivariate_normal(cluster.means[0], cluster.covariances[0])
        np.testing.assert_allclose(logs[0], expected.logpdf(points), rtol=1e-9)
        precision = np.linalg.inv(cluster.covariances[0])
        delta = points - cluster.means[0]
        np.testing.assert_allclose(squared[0], (delta @ precision * delta).sum(axis=1))

    @pytest.mark.parametrize("power", [0.7, 1.0, 2.5])
    def test_integral_and_covariance(self, power):
        cluster = one_cluster(power)
        axis = np.linspace(-14, 14, 700)
        points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        density = (
            np.exp(cluster.log_densities(mixture.features(points))[0][0]) * (axis[1] - axis[0]) ** 2
        )
        np.testing.assert_allclose(density.sum(), 1, atol=5e-3)
        delta = points - cluster.means[0]
        covariance = (delta.T * density) @ delta
        np.testing.assert_allclose(covariance, cluster.covariances[0], rtol=0.02, atol=0.02)

    def test_points_that_are_spread(self):
        """Densities and r^4 are the means over what the points are spread to."""
        rng = np.random.default_rng(0)
        cluster = one_cluster(1.0, blur=0.2)
        parts = cluster.select([0])
        parts.blur = np.zeros(2)
        # Places whose covariance is what the cluster's is without the blur.
        factor = np.linalg.cholesky(cluster.covariances[0] - 0.2 * np.eye(2))
        points = rng.normal(size=(4000, 2)) @ factor.T + cluster.means[0]
        logs, squared = cluster.log_densities(mixture.features(points))
        nodes, shares = np.polynomial.hermite_e.hermegauss(5)
        expected_logs, expected_quartic = 0.0, 0.0
        for a, b in np.ndindex(5, 5):
            share = shares[a] * shares[b] / shares.sum() ** 2
            spread = points + 0.2**0.5 * nodes[[a, b]]
            some_logs, some_squared = parts.log_densities(mixture.features(spread))
            expected_logs += share * some_logs
            expected_quartic += share * np.square(some_squared).sum()
        np.testing.assert_allclose(logs, expected_logs, rtol=1e-9)
        quartic = cluster.quartics(np.ones((1, 4000)), squared)
        np.testing.assert_allclose(quartic, expected_quartic, rtol=0.01)

    @pytest.mark.parametrize(
        "values, step",
        [
            (np.random.default_rng(0).normal(size=300), 0.0),
            (np.random.default_rng(0).normal(size=300).round(1), 0.1),
            (0.1 + 0.2 * np.random.default_rng(0).integers(0, 9, 300), 0.2),
            (np.repeat([0.0, 1.0, 5.0], 100), 0.0),
            (np.zeros(300), 0.0),
        ],
        ids=["any", "rounded", "grid", "few", "equal"],
    )
    def test_rounded_coordinates_are_spread(self, values, step):
        points = np.stack([values, np.random.default_rng(1).normal(size=300)], axis=1)
        np.testing.assert_allclose(mixture.blur_of(points), [(0.4 * step) ** 2, 0.0], atol=1e-12)

    def test_powers_follow_the_shape(self):
        rng = np.random.default_rng(0)
        shapes = {
            "tails": rng.standard_t(5, size=(2000, 2)),
            "gaussian": rng.normal(size=(2000, 2)),
            "box": rng.uniform(-1, 1, size=(2000, 2)),
        }
        powers = {}
        for name, points in shapes.items():
            points = points / points.std()
            start = mixture.from_shares(points, np.ones(2000), np.ones((2000, 1)))
            np.testing.assert_allclose(start.powers, 1)
            powers[name] = mixture.merged(start, points, np.ones(2000))[0].powers[0]
        # The background takes a part of all tails.
        assert powers["tails"] < 0.95 < powers["gaussian"] < 1.3 < 2 < powers["box"]


class TestFamilies:
    """Mixtures whose clusters have something in common."""

    @pytest.mark.parametrize("family", mixture.FAMILIES, ids=str)
    def test_parameters_are_what_may_differ(self, family):
        """Random shares and covariances, constrained, span as many directions as are counted."""
        rng = np.random.default_rng(0)
        clusters, d = 4, 3
        drawn = []
        for _ in range(60):
            factors = rng.normal(size=(clusters, d, d))
            shares, covariances = family.constrain(
                rng.uniform(size=clusters), factors @ factors.swapaxes(1, 2)
            )
            drawn.append(np.concatenate([shares, covariances.ravel()]))
        # Equal shares are known: their sum is 1. Others are counted with the background's.
        free = np.linalg.matrix_rank(np.array(drawn)) - family.equal_shares
        power, means = 1, clusters * d
        assert family.parameters(clusters, d) == power + means + free

    def test_constraints_keep_sums(self):
        rng = np.random.default_rng(0)
        shares = rng.dirichlet(np.ones(3))
        factors = rng.normal(size=(3, 2, 2))
        covariances = factors @ factors.swapaxes(1, 2)
        within = np.einsum("k,kij->ij", shares, covariances)
        one_share, shared = mixture.Family("shared", equal_shares=True).constrain(
            shares, covariances
        )
        np.testing.assert_allclose(one_share, [1 / 3] * 3)
        np.testing.assert_allclose(shared, [within] * 3)
        own, round_ones = mixture.Family("round").constrain(shares, covariances)
        np.testing.assert_allclose(own, shares)
        np.testing.assert_allclose(
            round_ones, [np.trace(c) / 2 * np.eye(2) for c in covariances], atol=1e-12
        )

    def test_few_points_of_equal_clusters(self):
        """Nine clusters of seven points: too few for nine covariances, enough for one."""
        rng = np.random.default_rng(0)
        places = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 2), axis=-1).reshape(9, 2)
        points = np.repeat(places, 7, axis=0) + 0.13 * rng.normal(size=(63, 2))
        start = mixture.from_shares(points, np.ones(63), np.repeat(np.eye(9), 7, axis=0))
        fitted, criterion = mixture.merged(start, points, np.ones(63))
        assert len(fitted) == 9
        np.testing.assert_allclose(fitted.covariances, fitted.covariances[:1].repeat(9, axis=0))
        np.testing.assert_allclose(fitted.shares, fitted.shares[0])
        # The criterion is that of its definition: the power, 18 means, 3 of the covariance.
        sample = mixture.Sample(points, np.ones(63))
        log_likelihood = sum(fitted.posterior(x)[2] @ w for x, w in sample)
        coarsened = log_likelihood * 2000 / 2063
        np.testing.assert_allclose(criterion, 22 * np.log(63) - 2 * coarsened, rtol=1e-9)

    def test_many_points_do_not_split_what_is_nearly_an_ellipse(self):
        """By the likelihood of all 20,000 slightly skewed points they would be two clusters."""
        points = np.random.default_rng(0).gamma(20, size=(20000, 2))
        points = (points - points.mean(axis=0)) / points.std()
        start = TestMerging.start(points, 3)
        assert len(mixture.merged(start, points, np.ones(20000))[0]) == 1


class TestMerging:
    @staticmethod
    def start(points, clusters=10):
        labels = KMeans(clusters, n_init=1, random_state=0).fit_predict(points)
        return mixture.from_shares(points, np.ones(len(points)), np.eye(clusters)[labels])

    def test_pairs_have_the_moments_of_their_points(self):
        points = np.random.default_rng(0).normal(size=(300, 2))
        start = self.start(points, 4)
        ones = np.ones(300)
        labels = KMeans(4, n_init=1, random_state=0).fit_predict(points)
        both = mixture.from_shares(points, ones, np.isin(labels, [1, 3])[:, None].astype(float))
        pair = mixture._as_one(start, np.array([1]), np.array([3]))
        np.testing.assert_allclose(pair.means, both.means)
        np.testing.assert_allclose(pair.covariances, both.covariances, rtol=1e-6)
        np.testing.assert_allclose(pair.shares, start.shares[1] + start.shares[3])

    def test_chunks(self, monkeypatch):
        points = np.random.default_rng(0).normal(size=(300, 2))
        whole = mixture.merged(self.start(points), points, np.ones(300))[0]
        monkeypatch.setattr(mixture, "CHUNK", 70)
        parts = mixture.merged(self.start(points), points, np.ones(300))[0]
        np.testing.assert_allclose(parts.means, whole.means, atol=1e-8)
        np.testing.assert_allclose(parts.log_posterior(points), whole.log_posterior(points))

    def test_ten_clusters_become_the_right_ones(self):
        """Better than a mixture that is told their number (0.854), let alone one by BIC (0.813)."""

        def predict(points, count):
            del count
            fitted = mixture.merged(self.start(points), points, np.ones(len(points)))[0]
            return fitted.log_posterior(points).argmax(axis=1)

        scores = clustering_sets.adjusted_rand_indices(predict)
        assert np.mean(list(scores.values())) > 0.9


class TestJoining:
    """Two halves of one cluster and another one far away: three components."""

    @staticmethod
    def joined(network, gap):
        rng = np.random.default_rng(0)
        halves = rng.normal(size=(200, 2)) * 0.5 + np.repeat([[0.0], [gap]], 100, axis=0) * [1, 0]
        points = np.concatenate([halves, rng.normal(size=(50, 2)) * 0.2 + 4])
        labels = np.repeat([0, 1, 2], [100, 100, 50])
        weights = np.ones(250)
        fitted = mixture.from_shares(points, weights, np.eye(3)[labels])
        seen = np.arange(0, 250, 2)
        shares = np.array(network, float)[labels[seen]]
        components = np.exp(fitted.log_posterior(points))
        return mixture.joined(components, weights, seen, shares).astype(int).tolist()

    apart = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    together = [[1, 0], [1, 0], [0, 1]]

    def test_what_overlaps_and_is_one_for_the_network(self):
        assert self.joined([[1, 0], [1, 0], [0, 1]], 0.8) == self.together

    def test_the_network_may_take_them_for_two(self):
        assert self.joined([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 0.8) == self.apart
        # Two points of the halves have the same cluster with a probability of 0.6 and 0.8.
        assert self.joined([[1, 0], [0.6, 0.4], [0, 1]], 0.8) == self.apart
        assert self.joined([[1, 0], [0.8, 0.2], [0, 1]], 0.8) == self.together

    def test_what_is_apart_stays_apart(self):
        assert self.joined([[1], [1], [1]], 3.0) == self.apart
