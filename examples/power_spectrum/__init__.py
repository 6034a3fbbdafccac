"""The power spectrum of a random periodic function, from the set of its samples."""
