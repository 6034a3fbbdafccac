"""Max regression: the largest number of a set, for networks that differ in their pooling."""
