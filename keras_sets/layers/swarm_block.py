import keras

from keras_sets import validation
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.part_options import build_part


@keras.saving.register_keras_serializable(package="keras_sets")
class SwarmBlock(PartOptions, keras.layers.Layer):
    """A block of a transformer with a `Swarm` in place of its attention.

    ```
    h = x + swarm(norm(x))
    y = h + outer(activation(inner(norm(h))))
    ```

    Args:
        swarm: A `keras_sets.layers.Swarm`, whose outputs have the features of the inputs.
        feed_forward_units: Positive integer, units of the hidden layer of the feed-forward
            network.
        activation: Activation of that layer.

    Call arguments:
        inputs: `(batch, *entities, features)`.

    Output shape:
        As the inputs.

    Symmetry:
        That of the `Swarm`.

    Reference:
        [Xiong et al., 2020, On Layer Normalization in the Transformer
        Architecture](https://arxiv.org/abs/2002.04745), figure 1 (b).
    """

    def __init__(self, swarm, feed_forward_units, activation="gelu", **kwargs):
        units = validation.positive_integer("feed_forward_units", feed_forward_units)
        super().__init__(**kwargs)
        self.swarm = swarm
        self.feed_forward_units = units
        options = self._part_arguments()
        self.norms = [
            keras.layers.LayerNormalization(name=f"{part}_normalization", **options)
            for part in ("swarm", "feed_forward")
        ]
        self.inner = keras.layers.Dense(units, activation, name="inner", **options)
        self.outer = keras.layers.Dense(swarm.units, name="outer", **options)

    @property
    def _parts(self):
        return *self.norms, self.inner, self.outer

    def build(self, input_shape):
        for layer in (*self.norms, self.inner):
            layer.build(input_shape)
        build_part(self.swarm, input_shape)
        self.outer.build((*input_shape[:-1], self.feed_forward_units))
        self.built = True

    def call(self, inputs, training=None):
        h = inputs + self.swarm(self.norms[0](inputs), training=training)
        return h + self.outer(self.inner(self.norms[1](h)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "swarm": keras.saving.serialize_keras_object(self.swarm),
            "feed_forward_units": self.feed_forward_units,
            "activation": keras.activations.serialize(self.inner.activation),
        }

    @classmethod
    def from_config(cls, config):
        swarm = keras.saving.deserialize_keras_object(config["swarm"])
        return super().from_config({**config, "swarm": swarm})
