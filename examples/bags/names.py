"""Data sets, models and published numbers by name; without imports, for the command line."""

DATA_SETS = ("digits", "mnist", "fashion_mnist")

# How the embeddings of the images, or the answers for single images, become one answer.
MODELS = (
    "attention",
    "gated-attention",
    "embedding-max",
    "embedding-mean",
    "instance-max",
    "instance-mean",
    "instance-logsumexp",
)

NUMBERS = (50, 100, 150, 200, 300, 400, 500)

# AUC of Ilse et al. 2018 on MNIST for `NUMBERS` of training bags, second hand.
PUBLISHED = {
    "attention": (0.768, 0.948, 0.949, 0.970, 0.980, 0.982, 0.986),
    "gated-attention": (0.753, 0.916, 0.955, 0.974, 0.980, 0.983, 0.987),
    "embedding-max": (0.713, 0.914, 0.954, 0.968, 0.980, 0.981, 0.986),
    "embedding-mean": (0.695, 0.841, 0.926, 0.953, 0.974, 0.980, 0.984),
    "instance-max": (0.553, 0.745, 0.960, 0.979, 0.984, 0.986, 0.986),
    "instance-mean": (0.663, 0.676, 0.694, 0.694, 0.709, 0.693, 0.712),
}
