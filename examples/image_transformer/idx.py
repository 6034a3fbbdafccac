"""MNIST and Fashion-MNIST of TensorFlow Datasets from their four idx files, without a network."""

import gzip
import hashlib
import pathlib
import tempfile
import zlib

import numpy as np

from examples.common.image_sets import DataError

# The names that both data sets have for them, and the shapes that they hold.
FILES = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
# SHA-256 of what the files hold. TensorFlow Datasets knows those of compressed ones, which
# depend on the program that compressed them.
CHECKSUMS = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def prepare(name, folder, data_dir=None):
    """Prepares a data set from its idx files, as TensorFlow Datasets itself prepares it.

    Args:
        name: `"mnist"` or `"fashion_mnist"`.
        folder: Folder of the four files, compressed with gzip (`.gz`) or not.
        data_dir: Folder of TensorFlow Datasets. None is its default.

    Returns:
        The builder of TensorFlow Datasets, in the format array_record.

    Raises:
        DataError: Unless the files are those that were published.
    """
    contents = read_published(name, folder)
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    with tempfile.TemporaryDirectory() as raw:
        for file, content in contents.items():
            pathlib.Path(raw, file).write_bytes(content)
        # Everything but the download is the builder's own.
        builder._make_download_manager = lambda *args, **kwargs: _Downloaded(raw)
        try:
            builder.download_and_prepare()
        except (OSError, ImportError) as error:
            raise DataError(f"The data set {name} cannot be prepared: {error}") from error
    return builder


def read_published(name, folder):
    """What the four files of a folder hold, by name; raises DataError unless it is right."""
    contents = {}
    for (file, shape), checksum in zip(FILES.items(), CHECKSUMS[name], strict=True):
        contents[file] = content = read(pathlib.Path(folder, file))
        check_shape(file, content, shape)
        if hashlib.sha256(content).hexdigest() != checksum:
            raise DataError(f"{file} is damaged, or not that of {name}: its checksum differs")
    return contents


def read(path):
    """What a file holds, from itself or from its compressed form beside it."""
    compressed = path.with_name(path.name + ".gz")
    try:
        if path.exists():
            return path.read_bytes()
        return gzip.decompress(compressed.read_bytes())
    except FileNotFoundError:
        raise DataError(f"Neither {path} nor {compressed.name} is there") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{compressed} cannot be read: {error}") from error


def check_shape(file, content, shape):
    """Raises DataError unless the content of an idx file holds bytes of a shape."""
    rank, start = content[3:4], content[:3]
    if start != b"\0\0\x08" or rank != bytes([len(shape)]):
        raise DataError(f"{file} does not hold bytes in {len(shape)} axes in the idx format")
    header = 4 + 4 * len(shape)
    received = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if received != shape:
        raise DataError(f"{file} holds an array of shape {received}, expected {shape}")
    expected = header + int(np.prod(shape))
    if len(content) != expected:
        raise DataError(f"{file} has {len(content)} bytes, expected {expected}")


class _Downloaded:
    """A download manager of TensorFlow Datasets whose files are in a folder already."""

    downloaded_size = 0

    def __init__(self, folder):
        self.folder = folder

    def download_and_extract(self, addresses):
        return {
            key: str(pathlib.Path(self.folder, address.rpartition("/")[2].removesuffix(".gz")))
            for key, address in addresses.items()
        }
