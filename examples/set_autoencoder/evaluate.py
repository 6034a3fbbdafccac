"""How near reconstructions are, beside references that see less, or more, than the vector."""

import numpy as np


def reconstructions(outputs):
    """Sets of outputs `(sets, most, 3)`: the likeliest points, one at least.

    There are as many as the probabilities of all points add up to.
    """
    logits = outputs[..., 2].astype("float64")
    numbers = np.maximum(1, np.round((1 / (1 + np.exp(-logits))).sum(axis=1))).astype(int)
    order = np.argsort(-logits, axis=1)
    return [
        places[chosen[:number]]
        for places, chosen, number in zip(outputs[..., :2], order, numbers, strict=True)
    ]


def chamfer(a, b):
    """`keras_sets.losses.Chamfer` of two sets that have points."""
    squares = np.square(a[:, None] - b[None]).sum(axis=-1)
    return squares.min(axis=1).mean() + squares.min(axis=0).mean()


def mean_shape(sets):
    """The points of the mean image: as many as images have, where most of them have one."""
    places, counts = np.unique(np.concatenate(sets), axis=0, return_counts=True)
    number = round(np.mean([len(points) for points in sets]))
    return places[np.argsort(-counts, kind="stable")[:number]]


def references(data, share):
    """Answers that need no network, by name: pairs of sets, and how many points they say."""
    everywhere = mean_shape(data.training)
    answers = {"mean shape": [everywhere] * len(data.test)}
    by_class = {
        label: mean_shape([data.training[i] for i in np.flatnonzero(data.labels == label)])
        for label in np.unique(data.labels)
    }
    answers["mean shape of its class"] = [
        by_class.get(label, everywhere) for label in data.test_labels
    ]
    pairs = {
        name: (sets, share * np.array([len(points) for points in sets]))
        for name, sets in answers.items()
    }
    pairs["another draw of the image"] = data.again, np.array([len(s) for s in data.again])
    return pairs


def score(method, sets, numbers, truth):
    """The row of a method in the final table. Images without points are left out."""
    sizes = np.array([len(points) for points in truth])
    pairs = zip(sets, truth, strict=True)
    distances = np.array([chamfer(a, b) for a, b in pairs if len(a) and len(b)])
    return {
        "method": method,
        "sets": len(distances),
        "chamfer": float(distances.mean()),
        "error": float(distances.std() / np.sqrt(len(distances))),
        "number": float(np.abs(numbers - sizes).mean()),
    }
