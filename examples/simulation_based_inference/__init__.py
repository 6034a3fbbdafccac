"""Simulation-based inference with BayesFlow and a summary network on sets."""
