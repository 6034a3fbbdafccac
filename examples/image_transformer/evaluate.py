"""Bits per dimension of networks and simple references, and whether samples are recognised."""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from examples.common import devices
from examples.image_transformer.data import inputs_of

SMOOTHING = (0.01, 0.03, 0.1, 0.3, 1.0)
# Its training takes the square of their number.
MOST_FOR_A_VECTOR_MACHINE = 5000


@dataclasses.dataclass(frozen=True)
class Score:
    """Bits per dimension: mean over images and its standard error.

    Attributes:
        excess: By how much they exceed those of another method on the same images.
        excess_error: The standard error of that, from the differences image by image.
        parameters, images: How many the network has, and was trained on, counting repetitions.
        epoch_seconds: Time of training for every training image once.
        drawing_milliseconds: Time to draw an image, several together.
    """

    method: str
    bits: float
    error: float
    excess: float
    excess_error: float
    parameters: int | None = None
    images: int | None = None
    epoch_seconds: float | None = None
    drawing_milliseconds: float | None = None


def score(method, bits, reference, **cost):
    """A `Score` from the bits per dimension of every image, by this method and by another."""

    def mean(values):
        return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))

    return Score(method, *mean(bits), *mean(bits - reference), **cost)


def network_bits(model, images, labels, conditional, batch_size=50):
    """Bits per dimension of every image, `(n,)`, from the logits of a network."""
    # Computed where the logits are: they are many more than the bits.
    shown = model.input["images"] if conditional else model.input
    nats = ops.sparse_categorical_crossentropy(shown, model.output, from_logits=True)
    scorer = keras.Model(model.input, ops.mean(nats, axis=(1, 2, 3)) / math.log(2))
    bits = []
    for start in range(0, len(images), batch_size):
        # Batches of one size are compiled once.
        chosen = np.arange(start, start + batch_size) % len(images)
        inputs = inputs_of(images[chosen], labels[chosen], conditional)
        bits.append(np.asarray(devices.predict_once(scorer, inputs), "float64"))
    return np.concatenate(bits)[: len(images)]


def histogram_bits(counted, images, labels, levels, classes, smoothing):
    """Bits per dimension when every place, of every class, has its own histogram.

    Args:
        counted: Images and labels that are counted.
        images, labels: What is scored.
        classes: Number of classes, or None for one histogram for all.
        smoothing: How often every value counts as seen beforehand.
    """
    bits = np.zeros(len(images))
    for label in range(classes or 1):
        own = np.ones(len(images), bool) if classes is None else labels == label
        if not own.any():
            continue
        seen = counted[0] if classes is None else counted[0][counted[1] == label]
        seen = seen.reshape(len(seen), images[0].size)
        places = np.arange(images[0].size)
        counts = np.full((len(places), levels), smoothing)
        for image in seen:
            counts[places, image] += 1
        p = counts / counts.sum(axis=1, keepdims=True)
        scored = images[own].reshape(own.sum(), -1)
        bits[own] = -np.log2(p[places, scored]).mean(axis=1)
    return bits


def histogram(data, conditional):
    """`histogram_bits` of the test images with the smoothing that suits the validation images."""
    classes = data.classes if conditional else None

    def bits(images, labels, smoothing):
        size = (data.levels, classes)
        return histogram_bits(data.training, images, labels, *size, smoothing)

    best = min(SMOOTHING, key=lambda smoothing: bits(*data.validation, smoothing).mean())
    return bits(*data.test, best)


def recognised(data, sets):
    """Fractions of images that a classifier takes for their labels.

    It is trained on real images: a support vector machine, or a convolutional network where
    there are too many for one.

    Args:
        data: The data set; its training images train the classifier.
        sets: Dict from names to pairs of images and labels.
    """
    many = len(data.training[0]) > MOST_FOR_A_VECTOR_MACHINE
    predict = (_convolutional_classifier if many else _vector_machine)(data)
    return {name: float(np.mean(predict(x) == y)) for name, (x, y) in sets.items()}


def _vector_machine(data):
    from sklearn.svm import SVC

    flat = lambda images: images.reshape(len(images), -1) / (data.levels - 1)  # noqa: E731
    images, labels = data.training
    classifier = SVC(C=10.0).fit(flat(images), labels)
    return lambda images: classifier.predict(flat(images))


def _convolutional_classifier(data, epochs=3):
    images, labels = data.training
    keras.utils.set_random_seed(0)
    layers = [keras.Input(data.shape), keras.layers.Rescaling(1 / (data.levels - 1))]
    for filters in (16, 32):
        layers.append(keras.layers.Conv2D(filters, 5, activation="relu", padding="same"))
        layers.append(keras.layers.MaxPooling2D())
    layers += [keras.layers.Flatten(), keras.layers.Dropout(0.3)]
    layers.append(keras.layers.Dense(data.classes, dtype="float32"))
    classifier = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.Adam(0.002), loss)
    classifier.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return lambda images: classifier.predict(images, verbose=0).argmax(axis=-1)


def table(data_set, kind, scores, count):
    """The scores as text."""
    width = max(len(s.method) for s in scores)
    lines = [
        f"{data_set}, {kind}, {count:,} test images; mean ± standard error",
        f"{'':{width}}  {'parameters':>10}  bits per dimension  more than the first  "
        "images seen  s an epoch  ms to draw one",
    ]
    for s in scores:
        excess = "" if s is scores[0] else f"{s.excess:.3f} ± {s.excess_error:.3f}"
        line = f"{s.method:{width}}  {_shown(s.parameters, 0):>10}  "
        line += f"{f'{s.bits:.3f} ± {s.error:.3f}':18}  {excess:19}  {_shown(s.images, 0):>11}  "
        line += f"{_shown(s.epoch_seconds, 0):>10}  {_shown(s.drawing_milliseconds, 1):>14}"
        lines.append(line)
    return "\n".join(lines)


def _shown(number, digits):
    return "–" if number is None else f"{number:,.{digits}f}"
