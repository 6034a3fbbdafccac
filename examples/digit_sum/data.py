"""Sets of digits from 1 to 9, written as text; the target is their sum."""

import numpy as np

LARGEST_DIGIT = 9
MOST_DIGITS = 9
PADDING = 0
MODELS = ("deep-sets", "lstm", "gru")
PUBLISHED = (
    "Published (Zaheer et al. 2017, and the authors' notebook): deep sets 100 % at every length,\n"
    "LSTM and GRU 0 % from 20 digits on."
)


def draw(rng, count, longest=MOST_DIGITS, lengths=None):
    """Draws sets of digits from `rng`, padded with zeros at the end.

    Args:
        rng: A `numpy.random.Generator`.
        count: How many sets.
        longest: Width of the arrays.
        lengths: How many digits, one number or `(count,)`. None: uniform on 1..9.

    Returns:
        `(digits, sums)`: int32 `(count, longest)` and float32 `(count, 1)`.
    """
    if lengths is None:
        lengths = rng.integers(1, MOST_DIGITS + 1, count)
    lengths = np.broadcast_to(lengths, (count,))
    if lengths.max() > longest:
        raise ValueError(
            f"`longest` must hold all digits, at least {lengths.max()}. Received: longest={longest}"
        )
    digits = rng.integers(1, LARGEST_DIGIT + 1, (count, longest))
    digits = np.where(np.arange(longest) < lengths[:, None], digits, PADDING).astype("int32")
    return digits, digits.sum(axis=1, keepdims=True).astype("float32")
