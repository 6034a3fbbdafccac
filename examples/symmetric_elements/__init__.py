"""Sets whose elements have a symmetry of their own: noisy signals, and images."""
