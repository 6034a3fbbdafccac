"""Batches of sets of different sizes, for Keras to train on."""

import operator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_sets import validation
from keras_sets._typing import Sets
from keras_sets.utils import ragged
from keras_sets.utils.backend_arrays import check_integers
from keras_sets.utils.buckets import bucket_sizes
from keras_sets.utils.set_targets import read_targets
from keras_sets.utils.set_targets import read_weights

# Of one output, or of several by their names.
Targets: TypeAlias = ArrayLike | Sets | Mapping[str, ArrayLike | Sets]
FINITE = (
    "Drop such entities, `[x[np.isfinite(x).all(axis=1)] for x in sets]`, or fill their values "
    "in and say so in a further feature."
)


class SetDataset(keras.utils.PyDataset):
    """Batches of sets, padded to a few sizes, for `fit`, `evaluate` and `predict`.

    ```python
    dataset = keras_sets.utils.SetDataset(sets, labels)
    model.fit(dataset, epochs=10, shuffle=False)  # the dataset shuffles
    ```

    A compiling backend compiles a program for every shape that it sees, so a batch is padded
    to one of a few sizes. A batch takes sets of one size; those that do not fill a batch move
    up to the next size. The sizes are those that need the least padding. The padded share of
    all batches, for 1,000 sets of log-normal sizes around 100, in batches of 32:

    | standard deviation of the log size | `buckets=1` | `buckets=4` | `buckets=8` |
    |---|---|---|---|
    | 0.25 | 53 % | 14 % | 7 % |
    | 0.5 | 76 % | 26 % | 14 % |
    | 1 | 93 % | 46 % | 26 % |

    **Order.** A batch is a function of `seed`, `epoch` and its index alone, on every backend
    and in every process. Each set comes exactly once in an epoch. Keras advances `epoch` by
    one before the first epoch of `fit`, and by one after each. To go on after some epochs in a
    new process, set `dataset.epoch` to the `initial_epoch` that `fit` is given.

    Padding a few thousand entities takes less than a millisecond, so that `workers` pay only
    for a slow `batch` of one's own. With several of them, Keras 3.15 on JAX and torch starts an
    epoch with batches of the one before, unless the metrics of the model are built: call
    `model.test_on_batch(*dataset[0])` once before `fit`.

    **Prediction.** A dataset without targets, or with `shuffle=False`, keeps the order of the
    sets: row i of `model.predict(dataset)` is the answer for set i. A shuffled dataset gives the
    rows in the order of its batches. Where the order is kept, every batch is padded to the size
    that holds its largest set. Outputs for every entity have the size of their batch, and Keras
    can join them only with `buckets=1`; the outputs of set i are `predicted[i, :len(sets[i])]`.

    **Targets of entities.** They are padded with 0, and come with a `sample_weight` of 1 for
    a real entity and 0 for padding. Losses that divide by the number of entities, as Keras'
    do by default, divide by that of the real ones if the outputs carry a Keras mask, as those
    of `keras_sets.models` do. Outputs that carry none need a loss with
    `reduction="mean_with_sample_weight"`, and `weighted_metrics` in place of `metrics`. These
    are the mean over all entities with `buckets=1`: Keras divides by the size of a batch.
    For one number an entity, from a model with `units=1`, targets are arrays `(n_i, 1)`. Of
    `(n_i,)` Keras' losses take the mean over the entities before the weights count: an error, or
    a wrong loss where a batch has as many sets as places.

    Weights of sets become those of their entities here, which losses and metrics that take the
    mean within every set first do not see: `MatchedCrossentropy`, `Chamfer` and their kind. For
    labels that are matched, override `batch` to mark padding by -1 and to return weights
    `(batch,)`.

    Args:
        sets: List of arrays `(n_i, features)` or with more axes, where `n_i` may be 0; an object
            array of them; one array `(num_sets, n, features)` without padding; or a
            `tf.RaggedTensor`. Numbers must be finite: a NaN would spread to the whole network.
            On JAX integers must fit into 32 bits, those of targets too. They are copied.
        targets: A target a set: an array `(num_sets,)` or `(num_sets, ...)`, or a list of
            numbers. A target an entity: a list with an array `(n_i,)` or `(n_i, ...)` for every
            set. For several outputs a dict of these, by the names of the outputs. None for
            inputs alone, to predict with. NaN is left to the loss.
        weights: How often each entity counts, a list with an array `(n_i,)` for every set, at
            least 0. They become the input `"weights"`, for models with `weighted=True`. Other
            models ignore them: Keras warns that the structure of `inputs` does not match. They
            do not weight the loss.
        sample_weight: How much each set counts in the loss, `(num_sets,)`; with targets of
            entities also a list with an array `(n_i,)` for every set. At least 0. With a dict
            of targets it weights all of them, or is a dict itself, with some of the outputs.
        batch_size: Number of sets in a batch. The last one may have fewer.
        buckets: How many sizes to pad to at most. Or the sizes themselves, in a list.
        shuffle: Whether to draw the order of the sets anew in every epoch. None: if there are
            targets. To train on sets that are their own targets, give True.
        seed: Non-negative integer.
        points: At most so many entities of each set, drawn anew in every epoch without
            replacement. None for all of them.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size` of
            `keras.utils.PyDataset`.

    Attributes:
        epoch: Which epoch's batches are given, from 0 on. It can be set.
        sizes: int `(num_sets,)`, how many entities of each set are shown.
        buckets: The sizes to pad to, increasing.

    Items:
        `(inputs,)`, `(inputs, targets)` or `(inputs, targets, sample_weight)`, where inputs is
        the dict of the models: `"entities"` `(batch, size, features)`, `"mask"` bool `(batch,
        size)`, and `"weights"` `(batch, size)` if there are weights. Floating-point numbers have
        the dtype `keras.config.floatx()`, but the `sample_weight` of entities is float64: Keras
        on torch changes one of its own dtype, and `weighted_metrics` would see the result.

    To change batches at random, override `batch(self, rng, indices, size)`.

    Example:

    >>> import numpy as np, keras_sets
    >>> rng = np.random.default_rng(0)
    >>> sets = [rng.normal(size=(n, 2)) for n in rng.integers(1, 100, 64)]
    >>> largest = np.array([points.max() for points in sets])
    >>> dataset = keras_sets.utils.SetDataset(sets, largest, batch_size=16)
    >>> inputs, targets = dataset[0]
    >>> inputs["entities"].shape[::2], inputs["mask"].dtype, targets.shape
    ((16, 2), dtype('bool'), (16,))
    >>> model = keras_sets.models.deep_sets(2, 1, hidden_units=8, output_pooling="max")
    >>> model.compile("adam", "mse")
    >>> history = model.fit(dataset, shuffle=False, verbose=0)
    """

    def __init__(
        self,
        sets: Sets,
        targets: Targets | None = None,
        weights: Sets | None = None,
        sample_weight: Targets | None = None,
        batch_size: int = 32,
        buckets: int | Sequence[int] = 4,
        shuffle: bool | None = None,
        seed: int = 0,
        points: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_size = validation.positive_integer("batch_size", batch_size)
        self.seed = validation.non_negative_integer("seed", seed)
        self.points = None if points is None else validation.positive_integer("points", points)
        shuffle = validation.optional_boolean("shuffle", shuffle)
        self.shuffle = targets is not None if shuffle is None else shuffle
        self._sets = ragged.read_ragged("sets", sets)
        if self._sets.values.ndim < 2:
            raise ValueError(
                "`sets` must hold an array `(n, features)` for every set. Received: arrays of one "
                "axis, without features; `[x[:, None] for x in sets]` have one feature"
            )
        ragged.check_finite("sets", self._sets, FINITE)
        check_integers("sets", self._sets.values)
        if weights is not None:
            weights = read_weights("weights", weights, self._sets)
        self._weights = weights
        self._targets = read_targets(self._sets, targets, sample_weight)
        sizes = self._sets.sizes
        self.sizes = sizes if self.points is None else np.minimum(sizes, self.points)
        self.buckets = bucket_sizes(self.sizes, buckets, self.batch_size)
        self.epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        epoch = validation.non_negative_integer("epoch", epoch)
        batches = self.plan(np.random.default_rng([self.seed, epoch]))
        # In one assignment: threads of Keras may be reading.
        self._order = epoch, _second_differs(batches)
        self._epoch = epoch

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch; Keras calls it."""
        self.epoch += 1

    def __len__(self) -> int:
        return len(self._order[1])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        epoch, batches = self._order
        index = range(len(batches))[operator.index(index)]
        return self.batch(np.random.default_rng([self.seed, epoch, index]), *batches[index])

    def plan(self, rng: np.random.Generator) -> list[tuple[np.ndarray, int]]:
        """The batches of an epoch, a list of `(indices of sets, size to pad to)`.

        Args:
            rng: `numpy.random.Generator`; nothing else decides.
        """
        if self.shuffle:
            return self.plan_buckets(rng)
        order = np.arange(len(self.sizes))
        batches = np.split(order, range(self.batch_size, len(order), self.batch_size))
        largest = [self.sizes[indices].max() for indices in batches]
        padded = self.buckets[np.searchsorted(self.buckets, largest)]
        # As in `_second_differs`, which would change the order.
        if len(padded) > 2 and padded[0] == padded[1] and np.ptp(padded):
            larger = self.buckets[self.buckets > padded[1]]
            padded[1] = larger[0] if len(larger) else padded[1] + 1
        return list(zip(batches, padded.tolist(), strict=True))

    def plan_buckets(self, rng: np.random.Generator | None = None) -> list[tuple[np.ndarray, int]]:
        """Batches of sets of one size each, in an order that `rng` draws."""
        bucket = np.searchsorted(self.buckets, self.sizes)
        waiting = np.empty(0, "int64")
        batches = []
        for b, size in enumerate(self.buckets.tolist()):
            members = np.flatnonzero(bucket == b)
            if rng is not None:
                members = rng.permutation(members)
            members = np.concatenate([waiting, members])
            full = len(members) // self.batch_size * self.batch_size
            batches += [(part, size) for part in members[:full].reshape(-1, self.batch_size)]
            waiting = members[full:]
        if rng is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        if len(waiting):
            batches.append((waiting, int(self.buckets[-1])))
        return batches

    def choose(
        self, rng: np.random.Generator, indices: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which entities a batch shows.

        Args:
            rng: `numpy.random.Generator`; nothing else decides.
            indices: int `(batch,)`, the sets.
            size: How many places each of them has.

        Returns:
            `(rows, mask)`, int and bool `(batch, size)`: which entity of its set stands at
            each place, and where one stands.
        """
        column, shown = np.arange(size), self.sizes[indices]
        mask = column < shown[:, None]
        rows = np.where(mask, column, 0)
        sizes = self._sets.sizes[indices]
        for i in np.flatnonzero(sizes > shown):
            rows[i, : shown[i]] = rng.choice(sizes[i], shown[i], replace=False)
        return rows, mask

    def batch(self, rng: np.random.Generator, indices: np.ndarray, size: int) -> tuple[Any, ...]:
        """A batch as Keras takes it: what the dataset holds of some sets, padded.

        Args:
            rng: `numpy.random.Generator`; nothing else decides.
            indices: int `(batch,)`, the sets.
            size: What to pad them to.
        """
        rows, mask = self.choose(rng, indices, size)
        inputs = {"entities": self._sets.padded(indices, rows, mask), "mask": mask}
        if self._weights is not None:
            inputs["weights"] = self._weights.padded(indices, rows, mask)
        if self._targets is None:
            return (inputs,)
        targets, sample_weight = self._targets.padded(indices, rows, mask, inputs.get("weights"))
        return (inputs, targets) if sample_weight is None else (inputs, targets, sample_weight)


def _second_differs(batches):
    """The batches with the second padded to another size than the first, if there is another.

    On TensorFlow Keras learns from the first two batches which axes vary.
    """
    for i, (_, size) in enumerate(batches):
        if size != batches[0][1]:
            batches[1], batches[i] = batches[i], batches[1]
            break
    return batches
