"""Amortised clustering: a network that has learnt to cluster sets of points."""
