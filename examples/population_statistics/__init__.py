"""Statistics of a distribution from a set of its samples: entropies and mutual information."""
