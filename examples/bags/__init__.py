"""Bags of digits: is there a 9 among them? Networks that learn from few labelled bags."""
