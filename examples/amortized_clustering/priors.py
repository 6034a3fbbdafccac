"""The broad prior: clustering tasks as people have them.

A task has 1 to 10 clusters of equal or of unequal numbers of points (up to 30:1), of one
scale or of scales over an order of magnitude, round, elliptic or long and thin; Gaussian,
heavy-tailed or skewed ones, bananas, filled ellipses, boxes and triangles, of one kind or
mixed. Every pair of centres keeps a distance that the task draws, so that most tasks have
one answer and some overlap. In a third the clusters are equal and stand on a lattice: many
that touch are one large cluster but for the gaps. A third has background noise, which belongs
to no cluster. The units are arbitrary.
"""

import numpy as np

from examples.amortized_clustering.data import MAX_CLUSTERS
from examples.amortized_clustering.data import PADDING
from examples.amortized_clustering.data import Tasks

SHAPES = ("gaussian", "student", "ball", "box", "triangle", "skewed", "banana")
SHAPE_SHARES = (0.34, 0.12, 0.14, 0.18, 0.1, 0.06, 0.06)
# Points that a cluster has at least, on average.
LEAST_POINTS = 6
# A centre has so many attempts, each in a box larger than the one before.
ATTEMPTS, GROWTH = 24, 1.08


def broad_tasks(
    count, seed=0, entities=(20, 5000), dimensions=2, clusters=(1, MAX_CLUSTERS), points=None
):
    """Draws clustering tasks of many kinds.

    The draw uses NumPy alone, so a seed gives the same tasks on every backend.

    Args:
        count: Positive integer, number of tasks.
        seed: Seed of `numpy.random.default_rng`, or a generator.
        entities: Smallest and largest number of points; the logarithm is uniform.
        dimensions: Positive integer, number of features.
        clusters: Smallest and largest number of clusters, at most 10; a task of few points
            has fewer.
        points: With an integer all tasks have that many points, instead of `entities`.

    Returns:
        `Tasks` without means and factors. Points of the background have the label -1.
    """
    low, high = entities if points is None else (points, points)
    if not 1 <= clusters[0] <= clusters[1] <= MAX_CLUSTERS:
        raise ValueError(
            "Received an invalid value for `clusters`, expected 1 <= smallest <= largest <= "
            f"{MAX_CLUSTERS}. Received: clusters={clusters}"
        )
    if not 1 <= low <= high:
        raise ValueError(
            "Expected numbers of points 1 <= smallest <= largest. "
            f"Received: entities={entities}, points={points}"
        )
    if count < 1 or dimensions < 1:
        raise ValueError(
            "`count` and `dimensions` must be at least 1. "
            f"Received: count={count}, dimensions={dimensions}"
        )
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(low), np.log(high + 1), count)).astype("int64")
    sizes = np.clip(sizes, low, high)
    number = rng.integers(clusters[0], clusters[1] + 1, count)
    number = np.minimum(number, np.maximum(sizes // (LEAST_POINTS + 2), 1))

    offsets = np.concatenate([[0], np.cumsum(sizes)])
    task = np.repeat(np.arange(count), sizes)
    labels = draw_labels(rng, draw_weights(rng, number, sizes), sizes, offsets, task)
    factors = draw_factors(rng, count, dimensions)
    means = place_centres(rng, factors, number)
    shapes = draw_shapes(rng, count)
    place_on_lattices(rng, means, factors, shapes)

    cluster = task * MAX_CLUSTERS + labels
    values = draw_points(rng, shapes.ravel(), cluster, dimensions)
    flat_factors = factors.reshape(-1, dimensions, dimensions).astype("float32")
    result = means.reshape(-1, dimensions).astype("float32")[cluster]
    for j in range(dimensions):
        result += flat_factors[:, :, j][cluster] * values[:, j, None]

    add_background(rng, result, labels, offsets, task)
    change_units(rng, result, offsets, task)
    # A cluster may have got no point.
    present = np.zeros((count, MAX_CLUSTERS), bool)
    present[task[labels != PADDING], labels[labels != PADDING]] = True
    return Tasks(result, labels, offsets, present.sum(axis=1))


def draw_weights(rng, number, sizes):
    """The share of each cluster, `(count, 10)`; a third of the tasks have equal shares."""
    count = len(number)
    exists = np.arange(MAX_CLUSTERS) < number[:, None]
    concentration = np.exp(rng.uniform(np.log(0.7), np.log(10), (count, 1)))
    weights = rng.standard_gamma(np.broadcast_to(concentration, exists.shape)) * exists
    # Few large clusters and few small ones: what a Dirichlet distribution seldom draws.
    extreme = np.where(rng.random(exists.shape) < 0.25, rng.uniform(2, 30, (count, 1)), 1.0)
    kind = rng.random((count, 1))
    weights = np.where(kind < 0.2, extreme, weights)
    weights = np.where(kind > 0.67, 1.0, weights) * exists
    weights = np.maximum(weights, weights.max(axis=1, keepdims=True) / 30) * exists
    weights /= weights.sum(axis=1, keepdims=True)
    least = np.minimum(LEAST_POINTS / sizes, 0.8 / number)[:, None]
    weights = np.maximum(weights, least) * exists
    return weights / weights.sum(axis=1, keepdims=True)


def draw_labels(rng, weights, sizes, offsets, task):
    """A cluster for every point: in half of the tasks in exact shares, in half by chance."""
    count, total = len(sizes), len(task)
    chance = rng.random(total)
    exact = rng.random(count) < 0.5
    rank = np.arange(total) - offsets[task]
    quantile = np.where(exact[task], (rank + chance) / sizes[task], chance)
    # One sorted array for all tasks: task t has the stretch from t to t + 1.
    edges = np.cumsum(weights, axis=1)
    edges[:, -1] = 1.0
    edges = (edges + np.arange(count)[:, None]).ravel()
    labels = np.searchsorted(edges, task + quantile * (1 - 1e-9), side="right")
    labels = (labels - MAX_CLUSTERS * task).astype("int32")
    # Points have no order; exact shares would come sorted.
    return labels[np.argsort(task + rng.random(total))]


def draw_factors(rng, count, dimensions):
    """Matrices `(count, 10, d, d)` that map values of unit covariance to their cluster's."""
    shape = (count, MAX_CLUSTERS)
    # Scales: equal in half of the tasks, otherwise over a factor of up to 15.
    spread = np.where(
        rng.random((count, 1)) < 0.5, 1.0, np.exp(rng.uniform(0, np.log(15), (count, 1)))
    )
    scales = spread ** rng.uniform(-0.5, 0.5, shape)
    # Aspects: all round, all of one aspect, or each its own.
    most = np.exp(rng.uniform(0, np.log(10), (count, 1)))
    kind = rng.random((count, 1))
    aspects = np.where(kind < 0.6, most ** rng.random(shape), most)
    aspects = np.where(kind < 0.3, 1.0, aspects)
    axes = rng.random((*shape, dimensions))
    axes[..., 0], axes[..., -1] = 1.0, 0.0 if dimensions > 1 else 1.0
    axes = aspects[..., None] ** (axes - axes.mean(axis=-1, keepdims=True))
    # Directions: in a third of the tasks the same for all clusters.
    rotations = random_rotations(rng, shape, dimensions)
    same = rng.random(count) < 0.35
    rotations[same] = rotations[same, :1]
    rotations[same & (rng.random(count) < 0.5)] = np.eye(dimensions)
    return rotations * (scales[..., None] * axes)[..., None, :]


def random_rotations(rng, shape, dimensions):
    """Orthogonal matrices `(*shape, d, d)`."""
    if dimensions == 2:  # faster than a decomposition
        angle = rng.uniform(0, 2 * np.pi, shape)
        cosine, sine = np.cos(angle), np.sin(angle)
        return np.stack([cosine, -sine, sine, cosine], axis=-1).reshape(*shape, 2, 2)
    return np.linalg.qr(rng.standard_normal((*shape, dimensions, dimensions)))[0]


def place_centres(rng, factors, number):
    """Centres `(count, 10, d)`, every pair at least at the task's separation.

    The separation of two clusters is the Mahalanobis distance of their centres under the
    mean of their covariances: about 4 where two Gaussian clusters just part. Centres are
    thrown at random; the box grows with every attempt, and the first place that keeps the
    distance from all earlier centres is taken.
    """
    count, _, dimensions, _ = factors.shape
    separation = np.exp(rng.uniform(np.log(2.2), np.log(9.0), count))
    covariances = factors @ np.swapaxes(factors, -1, -2)
    exists = np.arange(MAX_CLUSTERS) < number[:, None]
    spreads = np.where(exists, np.trace(covariances, axis1=-2, axis2=-1) / dimensions, 0)
    volume = (spreads ** (dimensions / 2)).sum(axis=1)
    side = separation * volume ** (1 / dimensions) * np.exp(rng.uniform(-0.7, 0.7, count))
    # The box may be longer one way than another, and turned.
    box = np.exp(rng.uniform(-0.7, 0.7, (count, dimensions)))
    box *= side[:, None] / np.exp(np.log(box).mean(axis=1, keepdims=True))
    rotations = random_rotations(rng, (count,), dimensions)
    rotations[rng.random(count) < 0.5] = np.eye(dimensions)
    growth = GROWTH ** np.arange(ATTEMPTS)[:, None]
    places = rng.uniform(-0.5, 0.5, (MAX_CLUSTERS, count, ATTEMPTS, dimensions))
    places = (places * box[:, None] * growth) @ np.swapaxes(rotations, -1, -2)

    means = np.zeros((count, MAX_CLUSTERS, dimensions))
    means[:, 0] = places[0, :, 0]
    for j in range(1, number.max()):
        precision = np.linalg.inv((covariances[:, :j] + covariances[:, j, None]) / 2)
        delta = places[j][:, :, None] - means[:, None, :j]
        squared = np.einsum("cmjx,cjxy,cmjy->cmj", delta, precision, delta, optimize=False)
        margin = squared.min(axis=-1) / separation[:, None] ** 2
        fits = margin >= 1
        chosen = np.where(fits.any(axis=1), fits.argmax(axis=1), margin.argmax(axis=1))
        means[:, j] = places[j][np.arange(count), chosen]
    return means


def place_on_lattices(rng, means, factors, shapes):
    """Makes the clusters of a third of the tasks equal, on a lattice; changes the arrays.

    Two neighbours stand `separation` standard deviations apart. The lattice is square, or
    sheared on the way to a hexagonal one, and as long and thin as the clusters are. A few
    tasks keep the scales of their clusters, some shake the places.
    """
    count, clusters, dimensions = means.shape
    chosen = np.flatnonzero(rng.random(count) < 1 / 3)
    separation = np.exp(rng.uniform(np.log(2.7), np.log(6.5), len(chosen)))
    # Rows of two to four; what is left begins the next row or layer.
    width = rng.choice([1, 2, 2, 3, 3, 4], len(chosen))[:, None]
    index = np.arange(clusters)[None]
    places = np.zeros((len(chosen), clusters, dimensions))
    places[..., 0] = index % width if dimensions > 1 else index
    if dimensions > 1:
        places[..., 1] = index // width
    if dimensions > 2:
        places[..., 1] %= width
        places[..., 2] = index // width**2
    shear = np.where(rng.random(len(chosen)) < 0.3, rng.uniform(-0.5, 0.5, len(chosen)), 0.0)
    places[..., 0] += shear[:, None] * places[..., -1] if dimensions > 1 else 0.0
    shake = np.where(rng.random((len(chosen), 1, 1)) < 0.5, 0.0, 0.1)
    places += shake * rng.standard_normal(places.shape)

    one = factors[chosen, :1]
    size = np.sqrt(np.trace(one @ np.swapaxes(one, -1, -2), axis1=-2, axis2=-1) / dimensions)
    isotropic = rng.random((len(chosen), 1, 1, 1)) < 0.5
    turns = random_rotations(rng, size.shape, dimensions)
    one = np.where(isotropic, size[..., None, None] * turns, one)
    varied = rng.random((len(chosen), 1, 1, 1)) < 0.15
    factors[chosen] = np.where(varied, factors[chosen], one)
    shapes[chosen] = shapes[chosen, :1]
    means[chosen] = separation[:, None, None] * (places @ np.swapaxes(one[:, 0], -1, -2))


def draw_shapes(rng, count):
    """Indices into `SHAPES`, `(count, 10)`: one for all clusters in two thirds of the tasks."""
    shapes = rng.choice(len(SHAPES), p=SHAPE_SHARES, size=(count, MAX_CLUSTERS))
    one = rng.random(count) < 0.67
    shapes[one] = shapes[one, :1]
    return shapes


def draw_points(rng, shapes, cluster, dimensions):
    """Values `(total, d)` of mean 0 and unit covariance, each of the shape of its cluster."""
    kinds = shapes[cluster]
    values = rng.standard_normal((len(cluster), dimensions), dtype="float32")
    # How heavy a tail, how skewed, how bent: one number for each cluster.
    amount = rng.random(len(shapes), dtype="float32")
    for kind, shape in enumerate(SHAPES):
        if shape == "gaussian":
            continue
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            values[rows] = deform(rng, shape, values[rows], amount[cluster[rows], None])
    return values


def deform(rng, shape, values, amount):
    """Makes normal values follow another shape of mean 0 and unit covariance."""
    count, dimensions = values.shape
    if shape == "student":
        freedom = 3 + 5 * amount
        return values * np.sqrt((freedom - 2) / (2 * rng.standard_gamma(freedom / 2)))
    if shape == "ball":
        radius = rng.random((count, 1), dtype="float32") ** (1 / dimensions)
        norm = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
        return values * (radius / norm * np.sqrt(dimensions + 2))
    if shape == "box":
        return (rng.random(values.shape, dtype="float32") - 0.5) * np.sqrt(np.float32(12))
    if shape == "triangle":
        # Uniform on a simplex; its corners are an orthonormal basis, seen along the diagonal.
        corners = dimensions + 1
        shares = rng.standard_exponential((count, corners), dtype="float32")
        shares /= shares.sum(axis=1, keepdims=True)
        plane = np.linalg.qr(np.eye(corners) - 1 / corners)[0][:, :dimensions]
        return shares @ (plane * np.sqrt(corners * (corners + 1))).astype("float32")
    if shape == "skewed":
        sigma = 0.25 + 0.45 * amount
        variance = np.exp(sigma**2)
        logarithmic = np.exp(sigma * values[:, :1]) - np.sqrt(variance)
        values[:, :1] = logarithmic / np.sqrt(variance * (variance - 1))
        return values
    if shape == "banana" and dimensions > 1:
        bend = 0.2 + 0.5 * amount
        bent = 0.6 * values[:, 1:2] + bend * (np.square(values[:, :1]) - 1)
        values[:, 1:2] = bent / np.sqrt(0.36 + 2 * bend**2)
    return values


def add_background(rng, points, labels, offsets, task):
    """Noise in a third of the tasks, up to a tenth of the points; changes both arrays."""
    count = len(offsets) - 1
    share = np.where(rng.random(count) < 1 / 3, rng.uniform(0, 0.1, count), 0).astype("float32")
    rows = np.flatnonzero(rng.random(len(task), dtype="float32") < share[task])
    low = np.minimum.reduceat(points, offsets[:-1])
    high = np.maximum.reduceat(points, offsets[:-1])
    place = rng.uniform(-0.1, 1.1, (len(rows), points.shape[1])).astype("float32")
    points[rows] = low[task[rows]] + place * (high - low)[task[rows]]
    labels[rows] = PADDING


def change_units(rng, points, offsets, task):
    """Stretches the axes of some tasks, scales and moves all of them; changes the array."""
    count, dimensions = len(offsets) - 1, points.shape[1]
    spread = np.maximum.reduceat(points, offsets[:-1]) - np.minimum.reduceat(points, offsets[:-1])
    stretch = np.exp(rng.uniform(-1, 1, (count, dimensions)))
    stretch[rng.random(count) < 0.67] = 1.0
    stretch *= np.exp(rng.uniform(-6, 6, (count, 1)))
    shift = rng.uniform(-3, 3, (count, dimensions)) * stretch * spread
    shift[rng.random(count) < 0.5] = 0.0
    points *= stretch.astype("float32")[task]
    points += shift.astype("float32")[task]
