"""scikit-learn's handwritten digits as a data set of TensorFlow Datasets, without a download."""

import numpy as np
import tensorflow_datasets as tfds
from sklearn import datasets

TEST_IMAGES = 360


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 digits of 8 x 8 pixels with 17 grey levels; a random fifth of them for tests."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Optical recognition of handwritten digits, as scikit-learn bundles them.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager):
        digits = datasets.load_digits()
        images, labels = digits.images.astype("uint8")[..., None], digits.target
        order = np.random.default_rng(0).permutation(len(images))
        splits = {"train": order[TEST_IMAGES:], "test": order[:TEST_IMAGES]}
        return {
            name: self._generate_examples(indices, images, labels)
            for name, indices in splits.items()
        }

    def _generate_examples(self, indices, images, labels):
        for i in indices.tolist():
            yield i, {"image": images[i], "label": int(labels[i])}
