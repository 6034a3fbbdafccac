"""What the examples share: options, datasets, run directories, training and pictures."""
