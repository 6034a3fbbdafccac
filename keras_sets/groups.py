"""Groups of permutations, and the parameter sharing that equivariance to them means."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import Self

import keras
import numpy as np

from keras_sets import validation
from keras_sets._typing import Config

__all__ = [
    "PermutationGroup",
    "cyclic",
    "direct_product",
    "draw",
    "from_generators",
    "symmetric",
    "trivial",
]


@keras.saving.register_keras_serializable(package="keras_sets")
class PermutationGroup:
    """The group of permutations of `degree` points that some generators span.

    A linear map A of n points to n points commutes with all permutations of the group if
    and only if `A[i, j] = A[k, l]` whenever one of them takes (i, j) to (k, l): the orbits
    of the group on pairs of points are the free parameters. The group itself is never
    listed; the orbits are the connected components of the pairs under the generators.

    Args:
        generators: Permutations, each a sequence that holds 0..degree-1: point i goes to
            `generator[i]`.
        degree: Number of points. None takes it from the generators.

    Attributes:
        generators: Tuple of tuples.
        degree: Number of points.

    Example:

    >>> from keras_sets import groups
    >>> group = groups.direct_product(groups.symmetric(5), groups.cyclic(4))
    >>> group.degree, group.num_pair_orbits, group.num_point_orbits
    (20, 8, 1)

    Reference:
        [Ravanbakhsh et al., 2017, Equivariance Through
        Parameter-Sharing](https://arxiv.org/abs/1702.08389).
    """

    def __init__(
        self, generators: Iterable[Sequence[int] | np.ndarray], degree: int | None = None
    ) -> None:
        generators = [np.asarray(generator) for generator in generators]
        if degree is None:
            if not generators:
                raise ValueError(
                    "A group without generators needs a `degree`, the number of its points. "
                    "Received: generators=[], degree=None"
                )
            degree = max(1, np.size(generators[0]))
        self.degree = validation.positive_integer("degree", degree)
        for generator in generators:
            self._check(generator)
        self.generators = tuple(tuple(int(i) for i in g) for g in generators)
        self._pair_orbits: np.ndarray | None = None

    def _check(self, generator):
        integers = generator.ndim == 1 and generator.dtype.kind in "iu"
        if not integers or not np.array_equal(np.sort(generator), np.arange(self.degree)):
            raise ValueError(
                "Received an invalid value for `generators`, expected permutations that hold "
                f"each of 0..{self.degree - 1} once. Received: {generator.tolist()!r}"
            )

    @property
    def point_orbits(self) -> np.ndarray:
        """int32 `(degree,)`: the number of every point's orbit, from 0."""
        maps = [np.array(g) for g in self.generators]
        return _number_by_first_use(_components(self.degree, maps)).astype("int32")

    @property
    def num_point_orbits(self) -> int:
        return int(self.point_orbits.max()) + 1

    @property
    def pair_orbits(self) -> np.ndarray:
        """int32 `(degree, degree)`: the number of the orbit of every pair (i, j), from 0.

        Orbits are numbered in row-major order of their first pair.
        """
        if self._pair_orbits is None:
            n = self.degree
            maps = []
            for generator in self.generators:
                g = np.array(generator)
                maps.append((g[:, None] * n + g[None, :]).reshape(-1))
            orbits = _number_by_first_use(_components(n * n, maps))
            self._pair_orbits = orbits.astype("int32").reshape(n, n)
        return self._pair_orbits

    @property
    def num_pair_orbits(self) -> int:
        return int(self.pair_orbits.max()) + 1

    def __eq__(self, other: Any) -> bool:
        """Whether both were made from the same generators."""
        same = isinstance(other, PermutationGroup) and self.degree == other.degree
        return same and self.generators == other.generators

    def __hash__(self) -> int:
        return hash((self.degree, self.generators))

    def __repr__(self) -> str:
        return f"<PermutationGroup degree={self.degree} generators={len(self.generators)}>"

    def get_config(self) -> Config:
        return {"generators": [list(g) for g in self.generators], "degree": self.degree}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


def symmetric(n: int) -> PermutationGroup:
    """All permutations of n points, which make Deep Sets: 2 free parameters."""
    n = validation.positive_integer("n", n)
    if n < 3:
        return PermutationGroup([_cycle(n)] if n == 2 else [], n)
    return PermutationGroup([[1, 0, *range(2, n)], _cycle(n)], n)


def cyclic(n: int) -> PermutationGroup:
    """The rotations of n points on a circle, which make convolutions: n free parameters."""
    n = validation.positive_integer("n", n)
    return PermutationGroup([_cycle(n)] if n > 1 else [], n)


def trivial(n: int) -> PermutationGroup:
    """Only the identity of n points, which makes dense layers: n^2 free parameters."""
    return PermutationGroup([], validation.positive_integer("n", n))


def direct_product(a: PermutationGroup, b: PermutationGroup) -> PermutationGroup:
    """Group a on the rows and group b on the columns of a grid, its points in row-major order.

    Point `(i, j)` of the `a.degree * b.degree` points has the number `i * b.degree + j`.
    """
    for name, group in (("a", a), ("b", b)):
        if not isinstance(group, PermutationGroup):
            raise ValueError(
                f"Received an invalid value for `{name}`, expected a PermutationGroup. "
                f"Received: {name}={group!r}"
            )
    grid = np.arange(a.degree * b.degree).reshape(a.degree, b.degree)
    rows = [grid[list(g)].reshape(-1) for g in a.generators]
    columns = [grid[:, list(g)].reshape(-1) for g in b.generators]
    return PermutationGroup(rows + columns, grid.size)


def from_generators(perms: Iterable[Sequence[int] | np.ndarray]) -> PermutationGroup:
    """The group spanned by some permutations, each a sequence of 0..n-1 in another order."""
    return PermutationGroup(perms)


def draw(group: PermutationGroup, ax: Any = None, cmap: Any = None) -> Any:
    """Draws the matrix of an equivariant linear map: equal parameters, equal colours.

    Args:
        group: A `PermutationGroup`.
        ax: The matplotlib axes to draw in. None makes a figure.
        cmap: A matplotlib colour map. None is `"tab20"` for up to 20 parameters, else
            `"hsv"`.

    Returns:
        The axes.

    Reference:
        [Maron et al., 2019, Invariant and Equivariant Graph
        Networks](https://arxiv.org/abs/1812.09902), figure 1.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install matplotlib") from error

    orbits, count = group.pair_orbits, group.num_pair_orbits
    if ax is None:
        ax = pyplot.figure(figsize=(4, 4)).add_subplot()
    if cmap is None:
        cmap = "tab20" if count <= 20 else "hsv"
    ax.imshow(orbits, cmap=cmap, vmin=0, vmax=max(count, 20) - 1)
    ax.set_xticks([])
    ax.set_yticks([])
    parameters = "parameter" if count == 1 else "parameters"
    ax.set_title(f"{group.degree} points, {count} {parameters}")
    return ax


def _cycle(n):
    return [*range(1, n), 0]


def _components(size, maps):
    """The smallest member of every number's connected component, under bijections of 0..size-1.

    Labels of neighbours are merged, then followed to their roots, until nothing changes:
    the number of rounds grows with the logarithm of the largest component.
    """
    labels = np.arange(size)
    while True:
        before = labels.copy()
        for image in maps:
            a, b = labels, labels[image]
            low, high = np.minimum(a, b), np.maximum(a, b)
            merged = labels.copy()
            np.minimum.at(merged, high, low)
            labels = merged
            while True:
                roots = labels[labels]
                if np.array_equal(roots, labels):
                    break
                labels = roots
        if np.array_equal(labels, before):
            return labels


def _number_by_first_use(labels):
    """Consecutive numbers from 0, in order of the first occurrence."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), "int64")
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]
