"""Bits per dimension of networks and simple references, and whether samples are recognised."""

import dataclasses

import numpy as np

from examples.image_transformer.data import inputs_of

SMOOTHING = (0.01, 0.03, 0.1, 0.3, 1.0)
# More than these make the classifier slow and hardly better.
MOST_TRAINING_IMAGES = 5000


@dataclasses.dataclass(frozen=True)
class Score:
    """Bits per dimension: mean over images and its standard error.

    Attributes:
        excess: By how much they exceed those of another method on the same images.
        excess_error: The standard error of that, from the differences image by image.
    """

    method: str
    parameters: int | None
    bits: float
    error: float
    excess: float
    excess_error: float


def score(method, bits, reference, parameters=None):
    """A `Score` from the bits per dimension of every image, by this method and by another."""

    def mean(values):
        return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))

    return Score(method, parameters, *mean(bits), *mean(bits - reference))


def network_bits(model, images, labels, conditional, batch_size=50):
    """Bits per dimension of every image, `(n,)`, from the logits of a network."""
    bits = []
    for start in range(0, len(images), batch_size):
        # Batches of one size are compiled once.
        chosen = np.arange(start, start + batch_size) % len(images)
        inputs = inputs_of(images[chosen], labels[chosen], conditional)
        logits = np.asarray(model.predict_on_batch(inputs), "float64")
        logits -= logits.max(axis=-1, keepdims=True)
        log_p = np.take_along_axis(logits, images[chosen][..., None].astype("int64"), axis=-1)
        nats = np.log(np.exp(logits).sum(axis=-1)) - log_p[..., 0]
        bits.append(nats.mean(axis=(1, 2, 3)) / np.log(2))
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
        seen = seen.reshape(len(seen), -1)
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

    It is a support vector machine, trained on real images.

    Args:
        data: The data set; its training images train the classifier.
        sets: Dict from names to pairs of images and labels.
    """
    from sklearn.svm import SVC

    def flat(images):
        return images.reshape(len(images), -1) / (data.levels - 1)

    images, labels = (array[:MOST_TRAINING_IMAGES] for array in data.training)
    classifier = SVC(C=10.0).fit(flat(images), labels)
    return {name: float(classifier.score(flat(x), y)) for name, (x, y) in sets.items()}


def table(data_set, kind, scores, count):
    """The scores as text."""
    width = max(len(s.method) for s in scores)
    lines = [
        f"{data_set}, {kind}, {count:,} test images; mean ± standard error",
        f"{'':{width}}  {'parameters':>10}  bits per dimension  more than the first",
    ]
    for s in scores:
        size = "–" if s.parameters is None else f"{s.parameters:,}"
        line = f"{s.method:{width}}  {size:>10}  {f'{s.bits:.3f} ± {s.error:.3f}':18}"
        if s is not scores[0]:
            line += f"  {s.excess:.3f} ± {s.excess_error:.3f}"
        lines.append(line.rstrip())
    return "\n".join(lines)
