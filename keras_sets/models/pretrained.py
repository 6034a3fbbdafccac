"""Trained networks that come with the package."""

import pathlib

import keras

from keras_sets import validation
from keras_sets.layers import mixture_refinement  # noqa: F401, a file names its layer

_FOLDER = pathlib.Path(__file__).parent / "weights"


def load_pretrained(name: str) -> keras.Model:
    """A network that is trained already.

    - `"clustering_2d"` clusters points in the plane: logits `(batch, n, 10)`, one of up to ten
      clusters for every point, whose numbers mean nothing. `slot_clustering`, trained on 1 to 10
      clusters of many shapes, sizes, shares and units, with background. Start with
      `keras_sets.wrappers.AmortizedClustering`, which refines its answer.
    - `"clustering_2d_protocol"` is the same network, trained on the tasks of the SWARM article: 3
      to 10 Gaussian clusters of equal shares and of similar size, 100 to 1000 points. The better
      one for such points.
    - `"digits"` is an image transformer of handwritten digits, 8 x 8 pixels with 17 grey levels,
      given their class: `keras_sets.models.swarm_image_transformer`, from which
      `keras_sets.models.generate` draws. `Swarm` with 32 hidden units and 6 iterations, and a
      neighborhood of 2 pixels.
    - `"mnist"` is the same for MNIST: 28 x 28 pixels with 256 grey levels. Two blocks of a
      transformer, whose `Swarm` has 108 hidden units, 3 iterations, and a neighborhood of 1 pixel.
    - `"mixture_of_gaussians"` fits a mixture of four Gaussians to points in the plane: `(batch, 4,
      5)`, which `keras_sets.losses.GaussianMixtureLoss().mixture` takes apart. It knows 100 to
      500 points, Gaussians with means in [-4, 4] x [-4, 4] and standard deviation 0.3 along both
      axes: scale your points accordingly. Of less than four, some get a small weight or several
      share one.

    How each was trained, and how good it is, is in the project's README and on its page of
    results, `docs/results.md`.

    Args:
        name: One of the names above.

    Returns:
        A functional `keras.Model`, not compiled. Clustering and the mixture take a dict of
        `"entities"` `(batch, n, 2)` and `"mask"` bool `(batch, n)`, True for a real entity;
        digits a dict of `"images"`, integers `(batch, 8, 8, 1)` from 0 to 16, and `"labels"`
        `(batch,)`; MNIST the same with `(batch, 28, 28, 1)` from 0 to 255.

    Raises:
        ValueError: If there is no such network. Lists those that there are.

    Example:

    >>> import numpy as np, keras_sets
    >>> model = keras_sets.models.load_pretrained("clustering_2d")
    >>> rng = np.random.default_rng(0)
    >>> centers = np.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]])
    >>> points = (centers[:, None] + 0.2 * rng.normal(size=(3, 60, 2))).reshape(1, 180, 2)
    >>> mask = np.ones((1, 180), bool)
    >>> logits = model.predict({"entities": points, "mask": mask}, verbose=0)
    >>> logits.shape
    (1, 180, 10)
    >>> clusters = logits[0].argmax(axis=-1).reshape(3, 60)
    >>> [len(set(cluster)) for cluster in clusters.tolist()]
    [1, 1, 1]
    >>> digits = keras_sets.models.load_pretrained("digits")
    >>> keras_sets.models.generate(digits, 10, labels=np.arange(10), seed=0).shape
    (10, 8, 8, 1)
    >>> mixture = keras_sets.models.load_pretrained("mixture_of_gaussians")
    >>> points = points + np.array([1.0, 2.0])
    >>> parameters = mixture.predict({"entities": points, "mask": mask}, verbose=0)
    >>> parameters.shape
    (1, 4, 5)
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.keras"))
    validation.one_of("name", name, names)
    return keras.saving.load_model(_FOLDER / f"{name}.keras", compile=False)
