"""Maximum likelihood of a mixture of Gaussians in one forward pass."""
