"""Trained models in formats that other programs serve, without Keras and this package.

On the command line: `python -m keras_sets.export --help`.
"""

from keras_sets.export.formats import export_model

__all__ = ["export_model"]
