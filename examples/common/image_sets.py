"""Sets of images and labels as NumPy arrays, read through TensorFlow Datasets."""

import dataclasses
import os
import pathlib
import urllib.error
import urllib.request

import numpy as np

from examples.common.image_sources import SOURCES

# Seconds until a server that does not answer counts as out of reach.
PATIENCE = 5
VALIDATION = 0.1


class DataError(ValueError):
    """A data set that cannot be had, and what to do about it."""


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set.

    Attributes:
        levels: Number of values; images hold 0 to `levels - 1`.
        classes: Number of classes.
        training, validation, test: Pairs of images, uint8 `(n, height, width, channels)`, and
            labels, int32 `(n,)`.
    """

    levels: int
    classes: int
    training: tuple
    validation: tuple
    test: tuple

    @property
    def shape(self):
        return self.test[0].shape[1:]


def load(name, data_dir=None, count=None):
    """The data set of a name in `SOURCES`; the validation images are part of the training set.

    Args:
        name: Name of the data set.
        data_dir: Folder of TensorFlow Datasets. None is its default.
        count: Use so many of the images of each split at most.

    Raises:
        DataError: If it can be neither found nor downloaded, or holds something else.
    """
    source = SOURCES[name]
    builder = find(source.builder, data_dir) or prepare(name, data_dir)
    classes = builder.info.features["label"].num_classes
    splits = {}
    for split in ("train", "test"):
        images, labels = read(builder, split, count)
        images = changed(images, source.change)
        check(images, labels, source.levels, classes)
        splits[split] = images, labels
    images, labels = splits["train"]
    # The same images whatever the seed of a run: runs are compared on them.
    order = np.random.default_rng(1).permutation(len(images))
    held_out = max(1, int(VALIDATION * len(order)))
    parts = (order[held_out:], order[:held_out])
    training, validation = ((images[part], labels[part]) for part in parts)
    return Images(source.levels, classes, training, validation, splits["test"])


def default_folder():
    return os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")


def find(name, data_dir=None):
    """The builder of a data set that is there already, or None."""
    import tensorflow_datasets as tfds

    folder = pathlib.Path(data_dir or default_folder()).expanduser() / name
    versions = sorted(path.parent for path in folder.glob("*/dataset_info.json"))
    return tfds.builder_from_directory(versions[-1]) if versions else None


def prepare(name, data_dir=None):
    """Downloads a data set, or writes the embedded one, and returns its builder."""
    import tensorflow_datasets as tfds

    source = SOURCES[name]
    tfds.disable_progress_bar()
    if source.address is None:
        from examples.common.digits import Digits

        # Written without TensorFlow.
        builder = Digits(data_dir=data_dir, file_format="array_record")
    else:
        if not reachable(source.address):
            raise unavailable(name, data_dir, f"{source.address} cannot be reached")
        builder = tfds.builder(source.builder, data_dir=data_dir, file_format="array_record")
    try:
        builder.download_and_prepare()
    except (OSError, ImportError, tfds.download.DownloadError) as error:
        raise unavailable(name, data_dir, str(error)) from error
    return builder


def unavailable(name, data_dir, reason):
    folder = data_dir or default_folder()
    return DataError(
        f"The data set {name} is not in {folder} and cannot be prepared there: {reason}. Give "
        "the folder that holds it with --data-dir (TensorFlow Datasets prepares it on a machine "
        "with a network and TensorFlow; after that neither is needed), or take the digits that "
        "come with scikit-learn: --data-set digits"
    )


def reachable(address):
    """Whether a server answers at all, found out within seconds."""
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def read(builder, split, count=None):
    """Images and labels of a split as arrays."""
    try:
        source = builder.as_data_source(split)
    except NotImplementedError as error:
        raise DataError(
            f"The data in {builder.data_dir} cannot be read example by example: {error}. Prepare "
            "them in the format array_record or parquet in another folder, --data-dir"
        ) from error
    size = min(len(source), count or len(source))
    examples = [source[i] for i in range(size)]
    images = np.stack([example["image"] for example in examples])
    return images, np.array([example["label"] for example in examples], "int32")


def changed(images, change):
    if change == "mean":
        return np.rint(images.mean(axis=-1, keepdims=True)).astype("uint8")
    return images[:, 8:24, 8:24] if change == "center" else images


def check(images, labels, levels, classes):
    """Raises DataError unless these are images with values and labels in range."""
    if images.ndim != 4 or images.dtype.kind not in "iu":
        raise DataError(
            "Expected images as integers (n, height, width, channels). Received: "
            f"{images.dtype} {images.shape}"
        )
    for name, values, number in (("images", images, levels), ("labels", labels, classes)):
        if values.min() < 0 or values.max() >= number:
            raise DataError(
                f"Expected {name} with values from 0 to {number - 1}. Received: values from "
                f"{values.min()} to {values.max()}"
            )
