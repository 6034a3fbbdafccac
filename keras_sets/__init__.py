"""Neural networks on sets, as ordinary Keras 3 layers."""

from importlib import metadata

from keras_sets import _commands  # noqa: F401, before Keras
from keras_sets import callbacks
from keras_sets import convert
from keras_sets import export
from keras_sets import groups
from keras_sets import layers
from keras_sets import losses
from keras_sets import metrics
from keras_sets import models
from keras_sets import ops
from keras_sets import testing
from keras_sets import utils
from keras_sets import wrappers

try:
    __version__ = metadata.version("keras-sets")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "callbacks",
    "convert",
    "export",
    "groups",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "testing",
    "utils",
    "wrappers",
]
