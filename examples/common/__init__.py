"""What the examples share: options, run directories, training and pictures."""
