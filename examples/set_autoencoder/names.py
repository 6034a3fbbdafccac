"""Data sets, decoders and their settings by name; without imports, for the command line."""

DATA_SETS = ("digits", "mnist", "fashion_mnist")
DECODERS = ("queries", "dense")

_COMMON = {
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "schedule": "cosine",
    "latent": 32,
    "hidden": 128,
    "harmonics": 8,
}
# The share of the points that a set has: all of 8 x 8 pixels, about 30 of 28 x 28.
_DATA = {
    "digits": {"epochs": 30, "share": 1.0, "harmonics": 3},
    "mnist": {"epochs": 3, "share": 0.3},
    "fashion_mnist": {"epochs": 3, "share": 0.15},
}


def settings(data_set):
    """The defaults for a data set."""
    return {**_COMMON, **_DATA[data_set]}
