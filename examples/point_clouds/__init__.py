"""Point clouds: digits as sets of pixels, and orbits of a chaotic map, in classes."""
