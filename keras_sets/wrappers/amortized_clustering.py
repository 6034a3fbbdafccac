"""A pretrained clustering network as a scikit-learn clusterer."""

import functools
import warnings
from typing import Self

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_sets import layers
from keras_sets import models
from keras_sets import validation
from keras_sets.models.inputs import set_inputs
from keras_sets.utils import pad_sets
from keras_sets.wrappers import mixture

try:
    from sklearn.base import BaseEstimator
    from sklearn.base import ClusterMixin
except ImportError:  # the package can do without; the wrapper says so when it is made

    class BaseEstimator:  # type: ignore[no-redef]
        pass

    class ClusterMixin:  # type: ignore[no-redef]
        pass

    _has_sklearn = False
else:
    _has_sklearn = True

DEFAULT_MODEL = "clustering_2d"


class AmortizedClustering(ClusterMixin, BaseEstimator):
    """Clusters points with a network that has been trained to, in scikit-learn's conventions.

    Nothing is learned from the points: the network has seen many sets, and answers at once how
    many clusters there are and which point belongs to which. Its answer is then refined:

    - EM fits a mixture of elliptic clusters to all points. Their edges may be sharper or softer
      than a Gaussian's. Pairs of clusters are merged.
    - The mixture of the lowest Bayesian information criterion is taken. Its clusters may have
      one covariance, equal shares of the points or a round shape, with fewer parameters. The
      likelihood is coarsened: more than some 2,000 points give it no more weight.
    - A fine partition by k-means is merged as well, as the network may overlook clusters. Where
      no merging helps, finer partitions follow: there may be more clusters than it knows.
    - Two parts of the mixture are one cluster if a fifth of their points mix, and the network
      takes them for one. A cluster then need not be an ellipse.

    The order of the points, the place of the origin and the unit do not matter: points are
    brought to mean 0 and variance 1 together. Features must be comparable, as for k-means. They
    may have been rounded, to whole numbers for example.

    Args:
        model: A Keras model with the inputs `"entities"` `(batch, n, features)`, `"mask"` bool
            `(batch, n)` and perhaps `"weights"` `(batch, n)`, and logits `(batch, n,
            clusters)`; or the name of a network of `keras_sets.models.load_pretrained`. By
            default the one that clusters points in the plane.
        refine: `"merge"`, or None for the answer of the network alone.
        max_points: The network sees at most so many points, chosen evenly at random from the
            distinct ones. The refinement counts all points, and all are assigned. None for no
            limit.

    Attributes:
        labels_: int `(n_samples,)`, the cluster of each point, 0 for the largest one.
        n_clusters_: How many clusters were found.
        cluster_centers_: `(n_clusters_, n_features)`, the mean of each cluster.
        n_features_in_: How many features the points have.
        feature_names_in_: Their names, where the points came as a data frame with names.

    Example:

    >>> import numpy as np
    >>> from keras_sets.wrappers import AmortizedClustering
    >>> rng = np.random.default_rng(0)
    >>> centers = np.array([[-20.0, 0.0], [20.0, 0.0], [0.0, 30.0]])
    >>> X = (centers[:, None] + 3 * rng.normal(size=(3, 60, 2))).reshape(180, 2)
    >>> clustering = AmortizedClustering().fit(X)
    >>> clustering.n_clusters_
    3
    >>> [len(set(cluster)) for cluster in clustering.labels_.reshape(3, 60).tolist()]
    [1, 1, 1]
    >>> float(clustering.predict_proba([[0.0, 28.0]]).round(3).max())
    1.0
    """

    def __init__(
        self,
        model: keras.Model | str | None = None,
        refine: str | None = "merge",
        max_points: int | None = 5000,
    ) -> None:
        if not _has_sklearn:
            raise ImportError(
                "`AmortizedClustering` needs scikit-learn, which is not installed: "
                "pip install scikit-learn"
            )
        self.model = model
        self.refine = refine
        self.max_points = max_points

    def __sklearn_clone__(self) -> Self:
        # The network is not trained here: a clone can share it.
        return type(self)(**self.get_params(deep=False))

    def fit(
        self, X: ArrayLike, y: object | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Clusters the points.

        Args:
            X: Array or data frame `(n_samples, n_features)`.
            y: Not used.
            sample_weight: `(n_samples,)`, at least 0: 2 counts as a point that is there twice,
                0 as one that is not. By default 1. More points bear more clusters: weights that
                sum to 1 are an error. For a network without the input `"weights"` they must be
                whole numbers.

        Returns:
            The estimator.
        """
        from sklearn.utils.validation import _check_sample_weight

        validation.one_of("refine", self.refine, ("merge", None))
        if self.max_points is not None:
            validation.positive_integer("max_points", self.max_points)
        network = _network(self.model)
        known = _inputs(network)["entities"].shape[-1]
        X = _validate_data(
            self, X, dtype="float64", ensure_min_samples=2, ensure_min_features=known or 1
        )
        if known is not None and known != X.shape[1]:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {known} "
                "features as input."
            )
        weights = _check_sample_weight(sample_weight, X, dtype="float64")
        if (weights < 0).any():
            raise ValueError("Negative values in data passed to `sample_weight`.")
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")

        present = weights > 0
        if present.sum() > 1 and weights.sum() < 2:
            raise ValueError(
                "`sample_weight` says how many points each one counts as, and must sum to 2 or "
                "more, not to 1 as probabilities do: their number of points is what decides how "
                f"many clusters there are. Received: sum {weights.sum():g}"
            )
        # In an order that depends on the values alone, equal points as one: neither the order
        # of the rows nor a row that is there twice can change a sum in its last digit.
        distinct, inverse = np.unique(X[present], axis=0, return_inverse=True)
        weights = np.bincount(inverse.ravel(), weights[present])
        self._center = weights @ distinct / weights.sum()
        # In a unit near the deviations, whose squares may be too large for numbers, or too small.
        # It is a power of two: no digit changes.
        deviations = distinct - self._center
        unit = np.ldexp(1.0, np.frexp(np.abs(deviations).max())[1] - 1)
        variances = weights @ np.square(deviations / unit) / weights.sum()
        self._scale = unit * np.sqrt(variances.mean()) or 1.0
        points = (distinct - self._center) / self._scale

        seen, shares = _network_shares(network, points, weights, self.max_points)
        start = mixture.from_shares(points[seen], weights[seen], shares)
        if self.refine is None:
            fitted = start
            labels = fitted.log_posterior(points).argmax(axis=1)
            labels[seen] = shares.argmax(axis=1)
            member = np.eye(len(fitted), dtype=bool)
        else:
            fitted = _merged(start, points, weights, shares.shape[1])
            logs = fitted.log_posterior(points)
            member = mixture.joined(np.exp(logs), weights, seen, shares)
            labels = _of_clusters(logs, member).argmax(axis=1)

        # The largest cluster first; none that no point belongs to.
        counts = np.bincount(labels, weights, member.shape[1])
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        numbers = np.empty(len(counts), "int64")
        numbers[order] = np.arange(len(order))
        components = np.concatenate([np.flatnonzero(column) for column in member.T[order]])
        self._mixture, self._member = fitted.select(components), member[components][:, order]
        self.n_clusters_ = len(order)
        shares = self._mixture.shares[:, None] * self._member
        centers = shares.T @ self._mixture.means / shares.sum(axis=0)[:, None]
        self.cluster_centers_ = centers * self._scale + self._center
        self.labels_ = self.predict(X) if (~present).any() else np.empty(len(X), "int64")
        self.labels_[present] = numbers[labels][inverse.ravel()]
        return self

    def fit_predict(
        self, X: ArrayLike, y: object | None = None, sample_weight: ArrayLike | None = None
    ) -> np.ndarray:
        """`fit`, and the labels of the points."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The cluster of points, new ones too, under the fitted mixture: int `(n_samples,)`."""
        return self._log_posterior(X).argmax(axis=1)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The probability of each cluster for points, `(n_samples, n_clusters_)`."""
        return np.exp(self._log_posterior(X))

    def _log_posterior(self, X):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        X = _validate_data(self, X, dtype="float64", reset=False)
        logs = self._mixture.log_posterior((X - self._center) / self._scale)
        return _of_clusters(logs, self._member)


def _of_clusters(logs, member):
    """Log probabilities `(n, clusters)` by those of the components that `member` names."""
    if member.shape[0] == member.shape[1]:  # one each, in this order
        return logs
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logs) @ member)


def _merged(start, points, weights, most):
    """The merged mixture; not from the network's answer where that overlooks clusters.

    Merging cannot divide what the network took for one. A fine partition into `most` parts is
    merged too. Where as many clusters are left as there were parts, there may be more: twice as
    many parts follow.
    """
    best, lowest = mixture.merged(start, points, weights)
    parts = most
    while True:
        finer, criterion = _merged_parts(points, weights, parts)
        if criterion < lowest:
            best, lowest = finer, criterion
        if max(len(finer), len(best)) < parts or parts >= len(points):
            return best
        parts *= 2


def _merged_parts(points, weights, count):
    """A partition by k-means, merged: the mixture and its criterion."""
    from sklearn.cluster import KMeans

    means = KMeans(min(count, len(points)), n_init=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer places than clusters are no problem here
        parts = means.fit(points, sample_weight=weights).labels_
    partition = mixture.from_shares(points, weights, np.eye(count)[parts])
    return mixture.merged(partition, points, weights)


def _validate_data(estimator, X, **options):
    validation.check_not_masked("X", X)
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:  # before scikit-learn 1.6
        return estimator._validate_data(X, **options)
    return validate_data(estimator, X, **options)


@functools.cache
def _pretrained(name):
    """A pretrained network; one of slots with weights as a further input."""
    network = models.load_pretrained(name)
    if not any(isinstance(layer, layers.SlotRefinement) for layer in network.layers):
        return network
    inputs = set_inputs(_inputs(network)["entities"].shape[-1], weighted=True)
    x = inputs["entities"]
    for layer in network.layers:
        if isinstance(layer, layers.SetLayer):
            x = layer(x, mask=inputs["mask"], weights=inputs["weights"])
    return keras.Model(inputs, x, name=network.name)


def _network(model):
    return _pretrained(model or DEFAULT_MODEL) if model is None or isinstance(model, str) else model


def _inputs(network):
    """The network's inputs by name, without which it is refused."""
    inputs = {tensor.name: tensor for tensor in getattr(network, "inputs", None) or ()}
    if not {"entities", "mask"} <= set(inputs) <= {"entities", "mask", "weights"}:
        raise ValueError(
            "`model` must be a Keras model with the inputs 'entities' and 'mask', and perhaps "
            f"'weights', or the name of a pretrained one. Received: model={network!r} with the "
            f"inputs {sorted(inputs)}"
        )
    return inputs


def _network_shares(network, points, weights, max_points):
    """Which points the network has seen, and its probabilities for them, `(seen, clusters)`."""
    seen = np.arange(len(points))
    if max_points is not None and len(points) > max_points:
        seen = np.sort(np.random.default_rng(0).choice(len(points), max_points, replace=False))
    entities, shown = points[seen], weights[seen]
    weighted = "weights" in _inputs(network)
    rows = np.arange(len(seen))
    if not weighted:
        if (shown % 1).any():
            raise ValueError(
                "`sample_weight` must be whole numbers for a network without the input "
                "'weights'. Received others."
            )
        rows = np.repeat(rows, shown.astype("int64"))
    size = _padded_size(len(rows))
    padded, mask = pad_sets([entities[rows]], size, dtype="float32")
    inputs = {"entities": padded, "mask": mask}
    if weighted:
        inputs["weights"] = pad_sets([shown], size, dtype="float32")[0]
    logits = network.predict_on_batch(inputs)
    shape = None if keras.tree.is_nested(logits) else np.shape(logits)
    if shape is None or len(shape) != 3 or shape[:2] != (1, size):
        raise ValueError(
            "`model` must give logits `(batch, n, clusters)`, a row for every point. Received: "
            + ("several outputs" if shape is None else f"an output of shape {shape}")
            + f" for points of shape {padded.shape}"
        )
    logits = keras.ops.convert_to_numpy(logits)[0, : len(rows)]
    if np.isnan(logits).any():
        raise ValueError(
            "`model` must give numbers. Received: NaN among its logits, as of weights that have "
            "become NaN in training"
        )
    # The rows of a point that is there several times have the same logits: take the first.
    logits = logits[np.searchsorted(rows, np.arange(len(seen)))].astype("float64")
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return seen, shares / shares.sum(axis=1, keepdims=True)


def _padded_size(count):
    """A power of two, or one and a half: a backend that compiles does so for few sizes."""
    power = 2 ** max(int(count - 1).bit_length(), 6)
    return power * 3 // 4 if count <= power * 3 // 4 else power
