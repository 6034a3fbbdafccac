"""Sizes to pad sets to."""

import numpy as np

from keras_sets import validation

# Sizes are chosen among so many quantiles of the sizes of the sets.
QUANTILES = 256


def bucket_sizes(sizes, buckets, batch_size):
    """The sizes to pad to, increasing, the last of them at least the largest of `sizes`.

    Args:
        sizes: int `(sets,)`.
        buckets: How many at most: those that need the least padding, each the size of a
            set. Or the sizes themselves.
        batch_size: Positive integer. Sets that do not fill a batch move up to the next size.
    """
    largest = max(1, int(sizes.max()))
    if np.ndim(buckets):
        given = np.unique([validation.positive_integer("buckets", size) for size in buckets])
        if not len(given) or given[-1] < largest:
            raise ValueError(
                f"`buckets` must hold the largest set, of {largest} entities. Received: "
                f"buckets={list(buckets)}"
            )
        return given
    buckets = validation.positive_integer("buckets", buckets)
    ordered = np.sort(np.maximum(sizes, 1))
    probabilities = np.arange(1, QUANTILES + 1) / QUANTILES
    edges = np.unique(np.quantile(ordered, probabilities, method="higher"))
    # How many sets full batches hold up to an edge: padding those between two edges to the
    # second costs as many places as they are, times that edge.
    counts = np.concatenate([[0], np.searchsorted(ordered, edges, side="right")])
    counts[:-1] -= counts[:-1] % batch_size
    cost = np.full(len(edges) + 1, np.inf)
    cost[0] = 0
    choices = []
    for _ in range(min(buckets, len(edges))):
        # Over the edge before the last, the cheapest way to have one more.
        places = cost + (counts[1:, None] - counts) * edges[:, None]
        places[np.arange(len(edges) + 1) > np.arange(len(edges))[:, None]] = np.inf
        choices.append(places.argmin(axis=1))
        cost = np.concatenate([[np.inf], places.min(axis=1)])
    chosen = []
    last = len(edges)
    for choice in reversed(choices):
        chosen.append(edges[last - 1])
        last = choice[last - 1]
    return np.array(chosen[::-1])
