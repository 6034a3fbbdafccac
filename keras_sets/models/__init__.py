"""Functions that build functional Keras models on sets.

Every model, but for those of images, takes a dict of inputs: `"entities"` `(batch, n,
features)` and `"mask"` bool `(batch, n)`, True for a real entity; with `weighted=True` also
`"weights"` `(batch, n)`. The set size n is free.
"""

from keras_sets.models.chunks import predict_in_chunks
from keras_sets.models.deep_sets import deep_sets
from keras_sets.models.image_stream import generate
from keras_sets.models.pretrained import load_pretrained
from keras_sets.models.sequence_baselines import bidirectional_lstm
from keras_sets.models.sequence_baselines import sorted_lstm
from keras_sets.models.set_transformer import set_transformer
from keras_sets.models.slot_clustering import slot_clustering
from keras_sets.models.swarm import swarm
from keras_sets.models.swarm_image_transformer import swarm_image_transformer

__all__ = [
    "bidirectional_lstm",
    "deep_sets",
    "generate",
    "load_pretrained",
    "predict_in_chunks",
    "set_transformer",
    "slot_clustering",
    "sorted_lstm",
    "swarm",
    "swarm_image_transformer",
]
