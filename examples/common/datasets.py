"""Batches that are a function of seed and epoch alone, so that a resumed run sees the same."""

import concurrent.futures

import keras
import numpy as np

from keras_sets.utils import SetDataset


def generator(seed, stream):
    """A generator of its own for each positive number `stream`, none that a dataset uses."""
    # NumPy pads seeds with zeros to four numbers, and datasets use three.
    return np.random.default_rng([seed, 0, 0, stream])


class EpochDataset(keras.utils.PyDataset):
    """Base class: a subclass gives its length and its items, from `seed` and `epoch`."""

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.epoch = 0

    def start_at(self, epoch):
        """Gives the batches of that epoch, as a resumed run must."""
        self.epoch = epoch

    def on_epoch_end(self):
        self.start_at(self.epoch + 1)


class GeneratedDataset(EpochDataset):
    """Fresh data for every step: item i of an epoch is `draw(generator)`.

    Args:
        draw: Function of a `numpy.random.Generator` that returns a batch.
        steps: Positive integer, batches in an epoch.
        seed: Non-negative integer.
    """

    def __init__(self, draw, steps, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.draw = draw
        self.steps = steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.draw(np.random.default_rng([self.seed, self.epoch, index]))


class ArrayDataset(EpochDataset):
    """Batches of arrays, all of the same size, in an order that never repeats.

    The order is that of one permutation of the sets after the other, cut into batches, so
    every set is seen once before any is seen again, however many there are. Without `shuffle`
    an epoch is the sets as they are, each once, and the last batch may be smaller.

    Args:
        inputs, targets: Arrays, or dicts of arrays, of the same length.
        batch_size: Positive integer.
        steps: Batches in an epoch. None: as many as hold all sets.
        seed: Non-negative integer.
        shuffle: Whether to draw the order.
        change: Function of a `numpy.random.Generator`, inputs and targets of a batch, that
            returns both changed at random. None leaves them as they are.
    """

    def __init__(
        self,
        inputs,
        targets,
        batch_size,
        steps=None,
        seed=0,
        shuffle=True,
        change=None,
        **kwargs,
    ):
        super().__init__(seed, **kwargs)
        self.arrays = (inputs, targets)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.change = change
        self.steps = steps or -(-len(targets) // batch_size)
        self.start_at(0)

    def start_at(self, epoch):
        super().start_at(epoch)
        sets = len(self.arrays[1])
        if not self.shuffle:
            self._order = np.split(np.arange(sets), range(self.batch_size, sets, self.batch_size))
            return
        count = self.steps * self.batch_size
        round_, offset = divmod(epoch * count, sets)
        rounds = range(round_, round_ + -(-(offset + count) // sets))
        order = [np.random.default_rng([self.seed, r]).permutation(sets) for r in rounds]
        self._order = np.concatenate(order)[offset:][:count].reshape(self.steps, -1)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        batch = keras.tree.map_structure(lambda array: array[self._order[index]], self.arrays)
        if self.change is None:
            return batch
        return self.change(np.random.default_rng([self.seed, self.epoch, index]), *batch)


class ResumableSets(SetDataset):
    """`keras_sets.utils.SetDataset` with what `Training` asks of a dataset."""

    def start_at(self, epoch):
        """Gives the batches of that epoch, as a resumed run must."""
        self.epoch = epoch


class RepeatedSets(ResumableSets):
    """Epochs of a given length: all sets in a new order, as often as it takes.

    Args:
        steps: Positive integer, batches in an epoch.
        **kwargs: Of `keras_sets.utils.SetDataset`.
    """

    def __init__(self, *args, steps, **kwargs):
        self.steps = steps
        super().__init__(*args, **kwargs)

    def plan(self, rng):
        batches = []
        while len(batches) < self.steps:
            batches += super().plan(rng)
        batches, rest = batches[: self.steps], batches[self.steps :]
        # Keras on TensorFlow learns from the first two batches of all that the size varies.
        others = [batch for batch in rest if batch[1] != batches[0][1]]
        if others and len({size for _, size in batches}) == 1 < self.steps:
            batches[-1] = others[0]
        return batches


class PrefetchedDataset(keras.utils.PyDataset):
    """Makes every batch of a dataset in a thread while the network trains on the one before.

    (Keras' own workers go on into an epoch whose order they do not know yet.)
    """

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._made = {}

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        batch = self._made.pop(index, None) or self._thread.submit(self.dataset.__getitem__, index)
        if index + 1 < len(self) and index + 1 not in self._made:
            self._made[index + 1] = self._thread.submit(self.dataset.__getitem__, index + 1)
        return batch.result()

    def start_at(self, epoch):
        for batch in self._made.values():
            batch.cancel()
        self._made.clear()
        # After what the thread is making still, which may need the order of the last epoch.
        self._thread.submit(self.dataset.start_at, epoch).result()

    def on_epoch_end(self):
        pass  # who trains says which epoch starts
