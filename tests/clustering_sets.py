"""Fixed sets of points in the plane with known clusters, drawn by rules of their own.

They stand for what others bring: none comes from the priors that networks are trained on
(`examples.amortized_clustering`). `python -m tests.clustering_sets` prints how k-means,
Gaussian mixtures, and the network that is shipped do on them. With `--prior broad` or
`--prior protocol` it does so for fresh sets of a prior.
"""

import argparse
import warnings

import numpy as np
from sklearn.cluster import HDBSCAN
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.datasets import make_classification
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from keras_sets.wrappers import AmortizedClustering


def stand_ins():
    """`{name: (points float64 (n, 2), labels (n,))}`, centred, of unit variance."""
    sets = {}
    for seed, (name, draw) in enumerate(RULES.items()):
        points, labels = draw(np.random.default_rng(1000 + seed))
        sets[name] = (standardised(points), labels)
    return sets


def standardised(points):
    points = points - points.mean(axis=0)
    return points / np.sqrt(np.square(points).mean())


def gaussian(rng, count, centre, deviations=(1, 1), angle=0.0):
    return rng.normal(size=(count, 2)) * deviations @ turn(angle).T + centre


def square(rng, count, centre, sides=(1, 1), angle=0.0):
    return rng.uniform(-0.5, 0.5, size=(count, 2)) * sides @ turn(angle).T + centre


def disc(rng, count, centre, radii=(1, 1), angle=0.0):
    phi, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(size=count))
    circle = radius[:, None] * np.stack([np.cos(phi), np.sin(phi)], axis=1)
    return circle * radii @ turn(angle).T + centre


def triangle(rng, count, corners):
    a, b = rng.uniform(size=(2, count, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    first, second, third = np.asarray(corners, "float64")
    return first + a * (second - first) + b * (third - first)


def turn(degrees):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def joined(*clusters):
    labels = np.repeat(np.arange(len(clusters)), [len(cluster) for cluster in clusters])
    return np.concatenate(clusters), labels


def blobs(seed, count, centres, deviation, matrix=((1, 0), (0, 1))):
    points, labels = make_blobs(count, centers=centres, cluster_std=deviation, random_state=seed)
    return points @ np.array(matrix), labels


def corners(distance):
    return distance * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) / 2


def four_squares(distance):
    """Four Gaussian clusters at the corners of a square."""
    return lambda rng: joined(*(gaussian(rng, 250, centre) for centre in corners(distance)))


def shares(ratio):
    """Four Gaussian clusters, one of which has `ratio` times the points of the others."""

    def draw(rng):
        counts = [40 * ratio, 40, 40, 40]
        return joined(
            *(gaussian(rng, n, c) for n, c in zip(counts, corners(6.5), strict=True)),
        )

    return draw


def grid(cluster, side, distance, count, **options):
    def draw(rng):
        places = [(i * distance, j * distance) for i in range(side) for j in range(side)]
        return joined(*(cluster(rng, count, place, **options) for place in places))

    return draw


def overlapping_ellipses(rng):
    angles = rng.uniform(0, 180, 6)
    places = [(0, 0), (5, 1), (10, -1), (1, 6), (6, 6), (11, 5)]
    return joined(
        *(gaussian(rng, 150, c, (1.7, 0.5), a) for c, a in zip(places, angles, strict=True))
    )


def filled_ellipses(rng):
    angles = rng.uniform(0, 180, 5)
    places = [(0, 0), (6, 0), (3, 4.5), (-3, 5), (9, 5)]
    return joined(*(disc(rng, 120, c, (2.6, 1.1), a) for c, a in zip(places, angles, strict=True)))


def classification(rng):
    return make_classification(
        1200, 2, n_informative=2, n_redundant=0, n_classes=4, n_clusters_per_class=1,
        class_sep=1.7, flip_y=0, random_state=3,
    )  # fmt: skip


def one_large_and_small_ones(rng):
    around = [8 * np.array([np.cos(a), np.sin(a)]) for a in np.arange(7) * 2 * np.pi / 7]
    return joined(
        gaussian(rng, 600, (0, 0), (2, 2)), *(gaussian(rng, 60, c, (0.6, 0.6)) for c in around)
    )


# Drawn in this order: a new one belongs at the end.
RULES = {
    # Gaussian clusters at the corners of a square, nearer and nearer.
    "four, apart": four_squares(7.0),
    "four, near": four_squares(4.5),
    "four, touching": four_squares(3.6),
    "four, overlapping": four_squares(2.9),
    # Unequal numbers of points.
    "one of four has 5 times the points": shares(5),
    "one of four has 30 times the points": shares(30),
    # scikit-learn's blobs: as they come, of different variance, stretched.
    "blobs": lambda rng: blobs(11, 500, 5, 1.0),
    "blobs, varied": lambda rng: blobs(170, 1500, 3, [1.0, 2.5, 0.5]),
    "blobs, stretched": lambda rng: blobs(170, 1500, 3, 1.0, [(0.6, -0.64), (-0.41, 0.85)]),
    "eight stretched blobs": lambda rng: blobs(5, 2000, 8, 0.9, [(0.9, -0.6), (-0.3, 1.1)]),
    "ten blobs, 100 points each": lambda rng: blobs(27, 1000, 10, 0.7),
    "few points": lambda rng: blobs(8, 100, 3, 1.2),
    "classification": classification,
    # Bounded shapes.
    "four squares": grid(square, 2, 1.15, 300),
    "nine squares": grid(square, 3, 1.25, 150),
    "nine diamonds": grid(square, 3, 1.55, 200, angle=45),
    "triangles": lambda rng: joined(
        triangle(rng, 200, [(0, 0), (4, 0), (2, 3)]),
        triangle(rng, 200, [(4.6, 0.4), (8.6, 3.2), (2.8, 3.3)]),
        triangle(rng, 200, [(0, 3.6), (2, 7), (-3, 5)]),
        triangle(rng, 200, [(3, 4.2), (7.5, 4.4), (5, 8)]),
    ),
    "discs of three sizes": lambda rng: joined(
        disc(rng, 900, (0, 0), (3, 3)),
        disc(rng, 100, (4.6, 0), (1, 1)),
        disc(rng, 400, (0.5, 5.4), (2, 2)),
    ),
    "filled ellipses": filled_ellipses,
    "one large square, four small": lambda rng: joined(
        square(rng, 700, (0, 0), (4, 4)),
        *(square(rng, 60, (5, y), (1, 1)) for y in (-3.5, -1.2, 1.2, 3.5)),
    ),
    # Long and thin.
    "two parallel lines": lambda rng: joined(
        gaussian(rng, 300, (0, 0), (6, 0.5)), gaussian(rng, 300, (1, 3), (6, 0.5))
    ),
    "three lengths": lambda rng: joined(
        gaussian(rng, 500, (0, 0), (5, 0.5), 20),
        gaussian(rng, 300, (1, 5), (3, 0.5), -30),
        gaussian(rng, 150, (9, -2), (0.5, 1.8), 10),
    ),
    "two that cross": lambda rng: joined(
        gaussian(rng, 400, (0, 0), (5, 0.4), 35), gaussian(rng, 400, (1, 0), (5, 0.4), -40)
    ),
    "three strips": lambda rng: joined(
        *(square(rng, 250, (0.6 * y, 1.6 * y), (10, 1), 4 * y) for y in (-1, 0, 1))
    ),
    # Two clusters.
    "two large ones that touch": lambda rng: joined(
        disc(rng, 1200, (0, 0), (2, 2)), disc(rng, 1200, (4.1, 0), (2, 2))
    ),
    "two of different covariance": lambda rng: joined(
        gaussian(rng, 2000, (0, 0), (1, 1)), gaussian(rng, 2000, (3.2, 1.5), (0.6, 1.8), 15)
    ),
    "a dense and a wide one": lambda rng: joined(
        gaussian(rng, 500, (0, 0), (0.4, 0.4)), gaussian(rng, 500, (3, 0.5), (1.6, 1.6))
    ),
    # Several kinds.
    "one large, seven small": one_large_and_small_ones,
    "six ellipses": overlapping_ellipses,
    "seven, with a dense one": lambda rng: joined(
        gaussian(rng, 32, (0, 0), (0.4, 0.4)),
        *(
            gaussian(rng, 30, c, (1, 1))
            for c in [(5, 0), (-5, 0), (0, 5), (0, -5), (6, 6), (-6, 6)]
        ),
    ),
    "a mixture of shapes": lambda rng: joined(
        gaussian(rng, 400, (0, 0), (0.8, 0.8)),
        square(rng, 400, (4, 0.5), (3, 2), 30),
        disc(rng, 200, (0, 4), (2.5, 0.8), -15),
        triangle(rng, 300, [(3, 3), (7, 3.2), (5, 7)]),
        gaussian(rng, 100, (-4.5, 1), (0.3, 1.5), 10),
    ),
    "heavy tails": lambda rng: joined(
        *(
            rng.standard_t(4, size=(200, 2)) * s + c
            for s, c in [(0.7, (0, 0)), (1.0, (7, 1)), (0.5, (3, 6)), (0.8, (9, 8))]
        )
    ),
}


def k_means(points, count):
    return KMeans(count, n_init=10, random_state=0).fit_predict(points)


def mixture(points, count):
    return _fitted(points, count).predict(points)


def mixture_by_bic(points, count):
    """A mixture of 1 to 10 components; `count` is not used."""
    del count
    mixtures = [_fitted(points, k) for k in range(1, 11)]
    return min(mixtures, key=lambda m: m.bic(points)).predict(points)


def by_density(points, count):
    """HDBSCAN of at least a fiftieth of the points a cluster; `count` is not used."""
    del count
    return HDBSCAN(min_cluster_size=max(5, len(points) // 50), copy=True).fit_predict(points)


def _fitted(points, count):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(count, n_init=3, random_state=0).fit(points)


def adjusted_rand_indices(predict, sets=None):
    """`{name: ARI}` of a function of the points and the true number of clusters.

    Points of the label -1 belong to no cluster; what they are taken for does not count.
    """
    scores = {}
    for name, (points, labels) in (sets or stand_ins()).items():
        real = labels >= 0
        predicted = predict(points, len(np.unique(labels[real])))
        scores[name] = adjusted_rand_score(labels[real], predicted[real])
    return scores


def sets_of_prior(prior, count, seed):
    """Fresh sets of 50 to 2,000 points by the broad prior, of 100 to 1,000 by the protocol."""
    from examples.amortized_clustering import data
    from examples.amortized_clustering import priors

    if prior == "broad":
        tasks = priors.broad_tasks(count, seed, entities=(50, 2000))
    else:
        tasks = data.generate_tasks(count, seed)
    sets = {}
    for i in range(count):
        rows = slice(*tasks.offsets[i : i + 2])
        sets[str(i)] = standardised(tasks.points[rows].astype("float64")), tasks.labels[rows]
    return sets


def network(points, count):
    """The network that is shipped, alone; `count` is not used."""
    del count
    return AmortizedClustering(refine=None).fit_predict(points)


def refined(points, count):
    """`AmortizedClustering` as it is; `count` is not used."""
    del count
    return AmortizedClustering().fit_predict(points)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.clustering_sets")
    parser.add_argument("--prior", choices=("broad", "protocol"))
    parser.add_argument("--count", type=int, default=100, help="sets of the prior")
    parser.add_argument("--seed", type=int, default=77, help="of the prior")
    options = parser.parse_args()
    sets = stand_ins()
    if options.prior:
        sets = sets_of_prior(options.prior, options.count, options.seed)
    methods = {"k-means": k_means, "mixture": mixture, "by BIC": mixture_by_bic,
               "HDBSCAN": by_density, "network": network, "refined": refined}  # fmt: skip
    scores = {method: adjusted_rand_indices(f, sets) for method, f in methods.items()}
    print(f"{'':40}" + "".join(f"{method:>9}" for method in methods))
    for name in () if options.prior else sets:
        print(f"{name:40}" + "".join(f"{s[name]:9.3f}" for s in scores.values()))
    values = np.array([list(s.values()) for s in scores.values()])
    print(f"{f'mean of {len(sets)}':40}" + "".join(f"{m:9.3f}" for m in values.mean(axis=1)))
    errors = values.std(axis=1) / np.sqrt(len(sets))
    print(f"{'standard error':40}" + "".join(f"{e:9.3f}" for e in errors))


if __name__ == "__main__":
    main()
