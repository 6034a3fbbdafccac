"""Searches for hyperparameters of the examples' networks with Keras Tuner."""
