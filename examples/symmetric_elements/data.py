"""Two tasks on sets of elements that may be shifted.

`signals`: 25 noisy measurements of one periodic signal, of which kind is it? The signal is
a sine, a square or a sawtooth wave of random frequency, shift, height and offset.

`odd-one-out`: eight images of handwritten digits, seven of one class and one of another,
which one is it? All images of a set are shifted alike, around the edges of their canvas.
"""

import dataclasses

import numpy as np

MODELS = ("dss-sum", "dss-max", "siamese", "siamese-deep-sets", "deep-sets", "mlp")

MEASUREMENTS = 25
LENGTH = 100
NOISE = 3.0
WAVES = ("sine", "square", "sawtooth")

IMAGES = 8
CANVAS = 12


@dataclasses.dataclass(frozen=True)
class Task:
    """What the networks must know of a task.

    Attributes:
        num_elements: How many elements a set has.
        shape: Shape of an element, the channels last.
        kernels: Sizes of the three convolutions.
        strides: Their strides.
        num_classes: Number of classes of a set; None if one of the elements is to be found.
        chance: Accuracy of guessing.
        standardized: Whether every set is shifted and scaled to mean 0 and variance 1 first,
            because offset and height of its elements say nothing.
    """

    num_elements: int
    shape: tuple
    kernels: tuple
    strides: tuple
    num_classes: int | None
    chance: float
    standardized: bool


TASKS = {
    "signals": Task(
        MEASUREMENTS, (LENGTH, 1), (100, 50, 25), (2, 2, 2), len(WAVES), 1 / len(WAVES), True
    ),
    "odd-one-out": Task(IMAGES, (CANVAS, CANVAS, 1), (3, 3, 3), (1, 2, 2), None, 1 / IMAGES, False),
}


def draw(task, counts, seed):
    """`(inputs, labels)` of so many training, validation and test sets each."""
    if task == "signals":
        return [signals(generator(seed, i), count) for i, count in enumerate(counts)]
    images, labels = digits()
    parts = split_images(len(labels), generator(seed, len(counts)))
    return [
        odd_one_out(generator(seed, i), count, images[part], labels[part])
        for i, (count, part) in enumerate(zip(counts, parts, strict=True))
    ]


def generator(seed, stream):
    return np.random.default_rng([seed, stream])


def signals(rng, count):
    """Draws sets of noisy measurements.

    Returns:
        float32 `(count, 25, 100, 1)` and int32 `(count,)`, places in `WAVES`.
    """
    labels = rng.integers(0, len(WAVES), count).astype("int32")
    column = (count, 1)
    frequency = rng.uniform(1, 10, column)
    shift = rng.uniform(0, 1, column)
    height = rng.uniform(1, 10, column)[..., None]
    offset = rng.uniform(-5, 5, column)[..., None]
    turns = frequency * (np.linspace(0, 1, LENGTH) + shift)
    turns -= np.floor(turns)
    sine = np.sin(2 * np.pi * turns)
    square = np.where(turns < 0.5, 1.0, -1.0)
    waves = np.select([labels[:, None] == 0, labels[:, None] == 1], [sine, square], 2 * turns - 1)
    noise = NOISE * rng.standard_normal((count, MEASUREMENTS, LENGTH), dtype="float32")
    measured = offset + height * (waves[:, None] + noise)
    return measured.astype("float32")[..., None], labels


def digits():
    """The 1,797 images of scikit-learn, `(1797, 8, 8)` in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype("float32"), bunch.target


def split_images(count, rng, fractions=(0.6, 0.15, 0.25)):
    """Places of the images for training, validation and test: no image is in two of them."""
    edges = np.round(np.cumsum(fractions)[:-1] * count).astype("int64")
    return np.split(rng.permutation(count), edges)


def odd_one_out(rng, count, images, labels):
    """Draws sets of eight different images, seven of one class and one of another.

    Returns:
        float32 `(count, 8, 12, 12, 1)` and int32 `(count,)`, the place of the odd one.
    """
    classes, members = np.unique(labels, return_counts=True)
    if members.min() < IMAGES:
        raise ValueError(
            f"`images` must hold at least {IMAGES} of every class. Received: "
            f"{members.min()} of class {classes[members.argmin()]}"
        )
    common = rng.integers(0, len(classes), count)
    odd = (common + rng.integers(1, len(classes), count)) % len(classes)
    # The images with the smallest random numbers, of those that have the class.
    order = rng.random((count, len(labels)))
    order[labels != classes[common][:, None]] = np.inf
    chosen = np.argpartition(order, IMAGES - 1, axis=1)[:, :IMAGES]
    other = rng.random((count, len(labels)))
    other[labels != classes[odd][:, None]] = np.inf
    places = rng.integers(0, IMAGES, count)
    chosen[np.arange(count), places] = other.argmin(axis=1)

    height, width = images.shape[1:]
    canvas = np.zeros((count, IMAGES, CANVAS, CANVAS), "float32")
    canvas[:, :, :height, :width] = images[chosen]
    rows, columns = rng.integers(0, CANVAS, (2, count, 1)) + np.arange(CANVAS)
    sets = np.arange(count)[:, None, None]
    canvas = canvas.transpose(0, 2, 3, 1)[
        sets, rows[:, :, None] % CANVAS, columns[:, None] % CANVAS
    ]
    return np.ascontiguousarray(canvas.transpose(0, 3, 1, 2))[..., None], places.astype("int32")
