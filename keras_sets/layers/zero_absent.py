import keras

from keras_sets.layers.base import SetLayer


@keras.saving.register_keras_serializable(package="keras_sets")
class ZeroAbsent(SetLayer):
    """The entities as they are, and zeros where there is none.

    Keras' own layers know nothing of absent entities: before one of them, this keeps what
    stands in the padding, NaN included, from its weights' gradients; after one of them, it
    takes the bias out of the padding.
    """

    def build(self, input_shape):
        self.built = True

    def compute(self, x, mask, weights, training):
        return x

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
