"""Trained networks as scikit-learn estimators, as `keras.wrappers` has them for one's own."""

from keras_sets.wrappers.amortized_clustering import AmortizedClustering

__all__ = ["AmortizedClustering"]
