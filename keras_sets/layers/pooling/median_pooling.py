from typing import Any

import keras

from keras_sets._typing import Config
from keras_sets.layers.pooling.quantile_pooling import QuantilePooling


@keras.saving.register_keras_serializable(package="keras_sets")
class MedianPooling(QuantilePooling):
    """Median of every feature over the entities of a set.

    `keras_sets.layers.QuantilePooling` of the share 0.5: of an even number of entities the mean of
    the two in the middle; an entity of weight w counts like w copies.

    Args:
        keepdims: If True, the entity axes stay with size 1.

    Call arguments, output shape, masking, symmetry:
        As for `keras_sets.layers.QuantilePooling`.

    Example:

    >>> import numpy as np, keras_sets
    >>> points = np.array([[[1.0], [2.0], [9.0]]])
    >>> pooling = keras_sets.layers.MedianPooling()
    >>> float(pooling(points)[0, 0]), float(pooling(points, weights=np.array([[1, 1, 3]]))[0, 0])
    (2.0, 9.0)

    Reference:
        As for `keras_sets.layers.QuantilePooling`.
    """

    def __init__(self, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(0.5, keepdims, **kwargs)

    def get_config(self) -> Config:
        config = super().get_config()
        del config["q"]
        return config
