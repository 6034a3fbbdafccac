"""Sets of 1 to 10 numbers, uniform on [0, 100]; the target is the largest."""

import numpy as np

MOST_NUMBERS = 10
LARGEST = 100.0

# MAE of Lee et al. 2019, table 1, and its standard deviation where that is given.
PUBLISHED = {
    "mean": (2.133, None),
    "sum": (1.902, None),
    "max": (0.1355, 0.0074),
    "set-transformer": (0.2085, None),
}
MODELS = ("mean", "sum", "max", "logsumexp", "set-transformer")


def draw(rng, count):
    """Draws sets from `rng`, padded with masked zeros.

    Returns:
        `({"entities": (count, 10, 1), "mask": (count, 10)}, targets)`, targets `(count, 1)`.
    """
    sizes = rng.integers(1, MOST_NUMBERS + 1, count)
    numbers = rng.uniform(0, LARGEST, (count, MOST_NUMBERS)).astype("float32")
    mask = np.arange(MOST_NUMBERS) < sizes[:, None]
    numbers = np.where(mask, numbers, np.float32(0))
    # All numbers are positive: the padding is never the largest.
    targets = numbers.max(axis=1, keepdims=True)
    return {"entities": numbers[..., None], "mask": mask}, targets
