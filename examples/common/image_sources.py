"""The data sets by name; without imports, for the command line."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        builder: Its name in TensorFlow Datasets.
        levels: Number of values of a pixel.
        address: Where it is downloaded from; None for no download.
        change: None, `"mean"` for the mean of the channels, or `"center"` for the 16 x 16
            pixels in the middle.
    """

    builder: str
    levels: int = 256
    address: str | None = None
    change: str | None = None


_TORONTO = "https://www.cs.toronto.edu"
SOURCES = {
    "digits": Source("digits", levels=17),
    "mnist": Source("mnist", address="https://storage.googleapis.com"),
    "fashion_mnist": Source(
        "fashion_mnist", address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    ),
    "cifar10": Source("cifar10", address=_TORONTO),
    "cifar100": Source("cifar100", address=_TORONTO),
    "bw_cifar": Source("cifar10", address=_TORONTO, change="mean"),
    "small": Source("cifar10", address=_TORONTO, change="center"),
}
