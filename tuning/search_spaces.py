"""What a search varies: one function for each task.

A search space is a function of Keras Tuner's `hp` and of the command line, which lists the
widths, depths and iterations to choose from. It returns options of the task's example, all that
it ever sets, None for those that a trial leaves out: the search trains what the example would
train with these options.

This module imports neither Keras nor a backend: `--cpu` must act before they start.
"""

import dataclasses
import importlib
from collections.abc import Callable


def clustering(hp, options):
    """`Swarm` networks."""
    return {
        "model": "swarm",
        "hidden": hp.Choice("width", options.widths),
        "layers": hp.Choice("depth", options.depths),
        "iterations": hp.Choice("iterations", options.iterations),
        "pooling": hp.Choice("pooling", ["mean", "max", "logsumexp"]),
        "dropout": hp.Choice("dropout", [0.0, 0.1, 0.2]),
        "learning_rate": hp.Float("learning_rate", 1e-3, 2e-2, sampling="log"),
    }


def mixture(hp, options):
    """Encoders of points without pooling or with it, then slots that share out the points."""
    return {
        "hidden": hp.Choice("width", options.widths),
        "layers": hp.Choice("depth", options.depths),
        "iterations": hp.Choice("iterations", options.iterations),
        "model": hp.Choice("encoder", ["deep-sets", "equivariant-mean", "equivariant-max"]),
        "learning_rate": hp.Float("learning_rate", 2e-4, 5e-3, sampling="log"),
    }


def power_spectrum(hp, options):
    """The note's networks, as in its figure 2."""
    return {
        "figure": "2",
        "networks": "note",
        "widths": hp.Choice("width", options.widths),
        "depths": hp.Choice("depth", options.depths),
        "learning_rate": hp.Float("learning_rate", 2e-4, 1e-2, sampling="log"),
    }


def images(hp, options):
    """Causal `Swarm` networks that predict images value by value, and blocks of a transformer."""
    width = hp.Choice("width", options.widths)
    block = hp.Choice("block", ["none", "feed-forward", "attention"])
    return {
        "hidden": width,
        "feed_forward": None if block == "none" else 2 * width,
        "heads": 4 if block == "attention" else None,
        "layers": hp.Choice("depth", options.depths),
        "iterations": hp.Choice("iterations", options.iterations),
        "dropout": hp.Choice("dropout", [0.0, 0.1, 0.2]),
        "learning_rate": hp.Float("learning_rate", 1e-3, 2e-2, sampling="log"),
    }


@dataclasses.dataclass(frozen=True)
class Task:
    """A search space and the example that has the data and the networks.

    The example's package holds `__main__.parse(arguments)`, `data.training_data(options)`,
    which returns training and validation data, and `model.compiled(options)`. Where that is not
    the network to use, `model.for_use(model, options)` returns the one with the same weights that
    is.

    Attributes:
        example: Name of a package in `examples`.
        space: The search space.
    """

    example: str
    space: Callable

    def module(self, name):
        return importlib.import_module(f"examples.{self.example}.{name}")

    def parse(self, arguments):
        """The example's options."""
        return self.module("__main__").parse(arguments)


TASKS = {
    "clustering": Task("amortized_clustering", clustering),
    "mixture": Task("mixture_of_gaussians", mixture),
    "power-spectrum": Task("power_spectrum", power_spectrum),
    "images": Task("image_transformer", images),
}


def as_arguments(options):
    """Options as the arguments of a command line, without those that are None."""
    return [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
