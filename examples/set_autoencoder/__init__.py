"""Set autoencoder: point clouds of digits to a vector, and back to a set of unknown size."""
