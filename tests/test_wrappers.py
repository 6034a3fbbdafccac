"""`keras_sets.wrappers`: networks as scikit-learn estimators."""

import functools
import importlib.util
import pickle
import sys

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from keras_sets import models
from keras_sets.layers import SlotRefinement
from keras_sets.wrappers import AmortizedClustering
from keras_sets.wrappers import amortized_clustering
from tests import clustering_sets
from tests.laws import answers


@keras.saving.register_keras_serializable(package="tests")
class Slabs(keras.layers.Layer):
    """Ten clusters, side by side along the diagonal: many more than there are."""

    def call(self, entities, weights=None):
        places = ops.convert_to_tensor(np.linspace(-2, 2, 10), "float32")
        place = ops.mean(entities, axis=-1, keepdims=True)
        logits = -20 * ops.square(place - places)
        return logits if weights is None else logits + 0 * weights[..., None]


@functools.cache
def network(features=2, weighted=False):
    inputs = {
        "entities": keras.Input((None, features), name="entities"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    if weighted:
        inputs["weights"] = keras.Input((None,), name="weights")
    return keras.Model(inputs, Slabs()(inputs["entities"], inputs.get("weights")))


def with_output(change):
    return keras.Model(network().input, change(network().output))


def estimator(features=2, weighted=False, **options):
    return AmortizedClustering(network(features, weighted), **options)


def three_clusters(count=60, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.repeat([[-4.0, 0.0], [4.0, 1.0], [0.0, 6.0]], [count, count // 2, 2 * count], 0)
    labels = np.repeat([1, 2, 0], [count, count // 2, 2 * count])
    return centers + rng.normal(size=centers.shape), labels


def same_partition(first, second):
    return adjusted_rand_score(first, second) == 1


# What a network for points in the plane rules out: these checks bring other points, which the
# estimator refuses as it should.
OTHER_POINTS = {
    check: f"the check fits points of {features} features, the network knows 2"
    for check, features in {
        "check_all_zero_sample_weights_error": 20,
        "check_dict_unchanged": 3,
        "check_dont_overwrite_parameters": 3,
        "check_dtype_object": 10,
        "check_estimators_dtypes": 5,
        "check_estimators_nan_inf": 3,
        "check_estimators_pickle": 3,
        "check_f_contiguous_array_estimator": 3,
        "check_fit2d_predict1d": 3,
        "check_fit_score_takes_y": 3,
        "check_methods_sample_order_invariance": 3,
        "check_methods_subset_invariance": 3,
        "check_n_features_in_after_fitting": 4,
        "check_pipeline_consistency": 3,
        "check_positive_only_tag_during_fit": 10,
        "check_sample_weight_equivalence_on_dense_data": 30,
        "check_sample_weights_list": 3,
    }.items()
}


class TestConventions:
    # By name, as a user would: pickles of a Keras model hold the time of day, and differ.
    @staticmethod
    def named(monkeypatch, *arguments, **options):
        monkeypatch.setattr(amortized_clustering, "_pretrained", lambda _: network(*arguments))
        return AmortizedClustering(**options)

    @pytest.mark.parametrize("refine", ["merge", None])
    def test_check_estimator(self, monkeypatch, refine):
        """All checks, with a network for any number of features."""
        check_estimator(self.named(monkeypatch, None, True, refine=refine), on_skip=None)

    def test_check_estimator_in_the_plane(self, monkeypatch):
        results = check_estimator(
            self.named(monkeypatch, 2), expected_failed_checks=OTHER_POINTS, on_skip=None
        )
        failed = [result for result in results if result["status"] == "xfail"]
        assert failed and {result["check_name"] for result in failed} <= set(OTHER_POINTS)
        for result in failed:
            # Some checks wrap the error in their own.
            messages = f"{result['exception']} {result['exception'].__cause__}"
            assert "is expecting 2 features as input" in messages

    def test_clones_share_the_network(self):
        original = estimator()
        assert clone(original).model is original.model

    def test_pickle(self):
        X, _ = three_clusters()
        fitted = estimator().fit(X)
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))

    def test_data_frames(self):
        pandas = pytest.importorskip("pandas")
        X, _ = three_clusters()
        frame = pandas.DataFrame(X, columns=["length", "width"])
        fitted = estimator().fit(frame)
        assert fitted.feature_names_in_.tolist() == ["length", "width"]
        np.testing.assert_array_equal(fitted.labels_, estimator().fit(X).labels_)
        with pytest.raises(ValueError, match="feature names should match"):
            fitted.predict(frame[["width", "length"]])

    def test_without_scikit_learn_the_package_imports(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        monkeypatch.setitem(sys.modules, "sklearn.base", None)
        path = amortized_clustering.__file__
        spec = importlib.util.spec_from_file_location("without_sklearn", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(ImportError, match="pip install scikit-learn"):
            module.AmortizedClustering()


class TestAnswers:
    def test_clusters(self):
        X, labels = three_clusters()
        fitted = estimator()
        found = fitted.fit_predict(X)
        assert found is fitted.labels_ and fitted.n_clusters_ == 3
        assert adjusted_rand_score(labels, found) > 0.97
        # The largest is the first.
        counts = np.bincount(found)
        assert counts.tolist() == sorted(counts, reverse=True)
        centers = [X[found == k].mean(axis=0) for k in range(3)]
        np.testing.assert_allclose(fitted.cluster_centers_, centers, atol=0.3)

    def test_new_points(self):
        X, _ = three_clusters()
        fitted = estimator().fit(X)
        np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)
        new, expected = three_clusters(seed=1)
        p = fitted.predict_proba(new)
        assert p.shape == (len(new), 3)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        np.testing.assert_array_equal(p.argmax(axis=1), fitted.predict(new))
        assert adjusted_rand_score(expected, fitted.predict(new)) > 0.95

    def test_more_clusters_than_the_network_knows(self):
        # On the diagonal, side by side along it, lie its ten; these lie across.
        places = np.stack([np.arange(13), -np.arange(13) % 3], axis=1) @ [[5.0, -5.0], [5.0, 5.0]]
        labels = np.repeat(np.arange(13), 40)
        X = places[labels] + np.random.default_rng(0).normal(size=(520, 2))
        fitted = estimator().fit(X)
        assert fitted.n_clusters_ == 13
        assert adjusted_rand_score(fitted.labels_, labels) > 0.98
        assert AmortizedClustering(refine=None).fit(X).n_clusters_ <= 10

    @pytest.mark.parametrize("deviation", [0.3, 0.7, 1.0])
    def test_rounded_points(self, deviation):
        """Few places, each with many points, are no clusters."""
        labels = np.repeat([0, 1, 2], 400)
        noise = deviation * np.random.default_rng(0).normal(size=(1200, 2))
        X = np.round(np.array([[-5, 0], [5, 0], [0, 8]])[labels] + noise).astype(int)
        assert same_partition(estimator().fit_predict(X), labels)

    def test_without_refinement_the_network_decides(self):
        X, _ = three_clusters()
        fitted = estimator(refine=None).fit(X)
        points = (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())
        place = points.mean(axis=1, keepdims=True)
        expected = np.abs(place - np.linspace(-2, 2, 10)).argmin(axis=1)
        assert same_partition(fitted.labels_, expected)
        assert fitted.n_clusters_ == len(np.unique(expected)) > 3

    @pytest.mark.parametrize("refine", ["merge", None])
    def test_location_unit_precision_and_order(self, refine):
        X, _ = three_clusters()
        X = X.astype("float32")
        labels = estimator(refine=refine).fit_predict(X)
        X = X.astype("float64")
        assert same_partition(estimator(refine=refine).fit_predict(X), labels)
        for moved in (1000 * X + 5000, 1e200 * X, 1e-200 * X):  # squares of which are no numbers
            assert same_partition(estimator(refine=refine).fit_predict(moved), labels)
        order = np.random.default_rng(0).permutation(len(X))
        np.testing.assert_array_equal(estimator(refine=refine).fit_predict(X[order]), labels[order])

    def test_rotation(self):
        X, _ = three_clusters()
        labels = estimator().fit_predict(X)
        for angle in (0.3, 1.2, 2.5):
            c, s = np.cos(angle), np.sin(angle)
            assert (
                adjusted_rand_score(estimator().fit_predict(X @ [[c, -s], [s, c]]), labels) > 0.97
            )

    @pytest.mark.parametrize("refine", ["merge", None])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_a_weight_counts_as_points(self, weighted, refine):
        X, _ = three_clusters(20)
        weights = np.random.default_rng(0).integers(0, 4, len(X))
        fitted = estimator(weighted=weighted, refine=refine).fit(X, sample_weight=weights)
        repeated = estimator(weighted=weighted, refine=refine).fit(np.repeat(X, weights, axis=0))
        np.testing.assert_array_equal(np.repeat(fitted.labels_, weights), repeated.labels_)
        # A network without weights sees a row for every count, and answers for every point.
        other = estimator(weighted=not weighted, refine=refine).fit(X, sample_weight=weights)
        np.testing.assert_array_equal(fitted.labels_, other.labels_)
        # A point of weight 0 is assigned, but does not count.
        np.testing.assert_array_equal(fitted.predict_proba(X), repeated.predict_proba(X))
        assigned = fitted.predict(X[weights == 0])
        np.testing.assert_array_equal(fitted.labels_[weights == 0], assigned)
        assert len(set(assigned)) > 1
        shares = fitted._mixture.shares
        mean = shares @ fitted.cluster_centers_ / shares.sum()
        np.testing.assert_allclose(mean, np.average(X, 0, weights), atol=0.05)

    def test_the_largest_cluster_has_the_largest_weight(self):
        X, labels = three_clusters()
        fitted = estimator(weighted=True).fit(X, sample_weight=np.where(labels == 1, 3, 1))
        assert fitted.n_clusters_ == 3 and (fitted.labels_[labels == 1] == 0).mean() > 0.9

    def test_one_cluster_of_several_ellipses(self):
        """Skewed points are no ellipse; where the network sees one cluster, it is one."""
        X = np.random.default_rng(1).gamma(6, size=(600, 2))
        one, two = (
            AmortizedClustering(with_output(change)).fit(X)
            for change in (lambda y: 0 * y - 50 * np.arange(10), lambda y: y)
        )
        assert len(one._mixture) > 1 and two.n_clusters_ > 1
        assert one.n_clusters_ == 1 and not one.labels_.any()
        np.testing.assert_allclose(one.predict_proba(X), 1)
        np.testing.assert_allclose(one.cluster_centers_, X.mean(axis=0)[None], atol=0.15)
        np.testing.assert_allclose(two.predict_proba(X).sum(axis=1), 1)

    def test_the_network_sees_the_weights(self):
        seen = []

        class Spy:
            inputs = network(weighted=True).inputs

            def predict_on_batch(self, inputs):
                seen.append(inputs)
                return network(weighted=True).predict_on_batch(inputs)

        X = np.array([[0.0, 1.0], [5.0, 2.0], [0.0, 1.0], [2.0, 2.0]])
        AmortizedClustering(Spy()).fit(X, sample_weight=[1.5, 1.0, 1.0, 0.0])
        (inputs,) = seen
        assert inputs["mask"].sum() == 2
        np.testing.assert_allclose(inputs["weights"][inputs["mask"]], [2.5, 1.0])
        entities = inputs["entities"][inputs["mask"]]
        np.testing.assert_allclose([2.5, 1.0] @ entities, 0, atol=1e-6)

    def test_many_points(self):
        # The network sees 500 of them; all are assigned, and all count.
        X, labels = three_clusters(2000)
        fitted = estimator(max_points=500).fit(X)
        assert fitted.n_clusters_ == 3 and adjusted_rand_score(labels, fitted.labels_) > 0.97
        mean = X[labels == 0].mean(axis=0)
        np.testing.assert_allclose(fitted.cluster_centers_[0], mean, atol=0.05)
        alone = estimator(max_points=500, refine=None).fit(X)
        whole = estimator(max_points=None, refine=None).fit(X)
        assert len(alone.labels_) == len(X)
        assert adjusted_rand_score(alone.labels_, whole.labels_) > 0.5

    def test_the_shipped_network(self):
        X, labels = three_clusters()
        fitted = AmortizedClustering().fit(X)
        assert fitted.n_clusters_ == 3 and adjusted_rand_score(labels, fitted.labels_) > 0.97
        again = AmortizedClustering("clustering_2d").fit(X)
        np.testing.assert_array_equal(again.labels_, fitted.labels_)


class TestInput:
    @pytest.mark.parametrize("refine", ["merge", None])
    def test_equal_points_are_one_cluster(self, refine):
        fitted = estimator(refine=refine).fit(np.full((30, 2), 7.5))
        assert fitted.n_clusters_ == 1 and (fitted.labels_ == 0).all()
        np.testing.assert_allclose(fitted.cluster_centers_, [[7.5, 7.5]])
        assert (fitted.predict_proba([[7.5, 7.5], [9.0, 0.0]]) == 1).all()

    @pytest.mark.parametrize(
        "X",
        [
            np.repeat([[0.0, 1.0], [3.0, 1.0]], 20, axis=0),  # two places
            np.stack([np.linspace(0, 1, 50), np.zeros(50)], axis=1),  # a line
            np.array([[0.0, 0.0], [1.0, 0.5]]),
        ],
        ids=["places", "line", "two"],
    )
    def test_degenerate_points(self, X):
        fitted = estimator().fit(X)
        assert np.isfinite(fitted.predict_proba(X)).all()
        assert set(fitted.labels_) == set(range(fitted.n_clusters_))

    @pytest.mark.parametrize(
        "X, message",
        [
            ([[0.0, np.nan], [1.0, 2.0]], "Input X contains NaN"),
            ([[0.0, np.inf], [1.0, 2.0]], "Input X contains infinity"),
            ([[0.0, 1.0]], "Found array with 1 sample"),
            (np.zeros((0, 2)), "Found array with 0 sample"),
            (np.zeros((9, 1)), "Found array with 1 feature"),
            (np.zeros((9, 3)), "X has 3 features, but AmortizedClustering is expecting 2 features"),
            ([1.0, 2.0], "Expected 2D array, got 1D array"),
        ],
    )
    def test_bad_points(self, X, message):
        with pytest.raises(ValueError, match=message):
            estimator().fit(X)

    def test_bad_points_to_predict(self):
        fitted = estimator().fit(three_clusters()[0])
        with pytest.raises(ValueError, match="X has 3 features, but AmortizedClustering is exp"):
            fitted.predict(np.zeros((4, 3)))

    @pytest.mark.parametrize(
        "weights, message",
        [
            ([0.0, 0.0, 0.0], "at least one non-zero"),
            ([1.0, -1.0, 1.0], "Negative values in data"),
            ([0.2, 0.3, 0.5], "must sum to 2 or more.*Received: sum 1"),
            ([1.0, 0.5, 1.0], "whole numbers"),
            ([1.0, 1.0], "sample_weight.shape"),
        ],
    )
    def test_bad_weights(self, weights, message):
        X = np.array([[0.0, 1.0], [2.0, 2.0], [3.0, 0.0]])
        with pytest.raises(ValueError, match=message):
            estimator().fit(X, sample_weight=weights)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"refine": "merged"}, "`refine`, expected one of 'merge', None"),
            ({"max_points": 0}, "`max_points`"),
            ({"model": "no such network"}, "`name`"),
            ({"model": keras.Sequential([keras.Input((2,))])}, "inputs 'entities' and 'mask'"),
            # Of several steps, of sets, several, and NaN.
            ({"model": with_output(lambda y: y[:, None])}, r"shape \(1, 1, 256, 10\) for points"),
            ({"model": with_output(lambda y: y[:, 0])}, r"a row for every point.*\(1, 10\)"),
            ({"model": with_output(lambda y: [y, y])}, "Received: several outputs"),
            ({"model": with_output(lambda y: y * np.nan)}, "`model` must give numbers.*NaN"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            AmortizedClustering(**{"model": network(), **arguments}).fit(three_clusters()[0])


@pytest.mark.parametrize("refine, least", [("merge", 0.91), (None, 0.7)])
def test_sets_drawn_by_other_rules(refine, least):
    """k-means and a mixture that are told the number have 0.762 and 0.854, see the README."""
    scores = clustering_sets.adjusted_rand_indices(
        lambda points, _: AmortizedClustering(refine=refine, max_points=400).fit_predict(points)
    )
    assert np.mean(list(scores.values())) > least


@pytest.mark.parametrize("name", ["clustering_2d", "clustering_2d_protocol"])
def test_weights_of_one_change_nothing_about_the_shipped_networks(name):
    """The network that the estimator gives weights to has all options of the one in the file."""
    network, weighted = models.load_pretrained(name), amortized_clustering._pretrained(name)
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(2, 60, 2)) + 1.2 * rng.integers(0, 2, (2, 60, 2))
    inputs = {"entities": points.astype("float32"), "mask": np.ones((2, 60), bool)}
    expected = answers(network, inputs)[0]
    received = answers(weighted, {**inputs, "weights": np.ones((2, 60), "float32")})[0]
    np.testing.assert_allclose(received, expected, rtol=1e-2, atol=1e-2)
    options = [
        next(layer.get_config() for layer in model.layers if isinstance(layer, SlotRefinement))
        for model in (network, weighted)
    ]
    assert options[0] == options[1]
