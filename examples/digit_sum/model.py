"""The networks of the digit sum experiment, of the sizes in the notebook of Deep Sets."""

import keras

from examples.digit_sum.data import LARGEST_DIGIT
from keras_sets import layers as set_layers


def build(name):
    """The network of that name, from int32 `(batch, n)` to the predicted sum, `(batch, 1)`."""
    digits = keras.Input((None,), dtype="int32", name="digits")
    # The padding, 0, becomes the implicit mask of all that follows.
    embedding = keras.layers.Embedding(LARGEST_DIGIT + 1, 100, mask_zero=True, name="embedding")
    x = embedding(digits)
    if name == "deep-sets":
        x = keras.layers.Dense(30, activation="tanh", name="encoder")(x)
        x = set_layers.SumPooling(name="pooling")(x)
    elif name == "lstm":
        x = keras.layers.LSTM(50, name="lstm")(x)
    else:
        x = keras.layers.GRU(80, name="gru")(x)
    return keras.Model(digits, keras.layers.Dense(1, name="output")(x), name=name.replace("-", "_"))
