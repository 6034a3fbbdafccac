"""The fixed sets on which clustering is judged."""

import numpy as np

from tests import clustering_sets


def test_fixed_sets_of_known_clusters():
    first, second = clustering_sets.stand_ins(), clustering_sets.stand_ins()
    assert len(first) >= 20
    for name, (points, labels) in first.items():
        np.testing.assert_array_equal(points, second[name][0])
        assert 100 <= len(points) == len(labels) <= 5000
        clusters, counts = np.unique(labels, return_counts=True)
        assert 2 <= len(clusters) <= 10 and counts.min() >= 10
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(np.square(points).mean(), 1)


def test_neither_easy_nor_hopeless():
    scores = clustering_sets.adjusted_rand_indices(clustering_sets.k_means)
    assert 0.7 < np.mean(list(scores.values())) < 0.85
