"""Tasks and models by name; without imports, for the command line."""

TASKS = ("rotation", "correlation", "rank-1", "random")
MODELS = ("deep-sets", "log-variances", "kernel")
