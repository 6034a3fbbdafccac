"""Images value by value: a causal SWARM trained in bits per dimension, and images drawn from it."""
