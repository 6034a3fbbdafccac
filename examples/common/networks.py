"""Networks of a command: built and announced, or loaded from files."""

import contextlib

import keras

from examples.common import devices
from examples.common.options import RunError
from examples.common.options import first_line
from keras_sets import utils


def build_networks(options, builders):
    """Builds the networks of a command and prints their names and sizes.

    They are in the precision of the options, and one alone starts from `--initial-model`.

    Args:
        options: The parsed options.
        builders: Dict from names to functions without arguments that return a model.

    Returns:
        Dict from names to models.

    Raises:
        RunError: A network cannot be built or not be trained on several devices, or the initial
            model does not fit it.
    """
    if keras.config.backend() == "jax":
        # It may have started, for several devices: then it trains as it is.
        with contextlib.suppress(RuntimeError):
            utils.keep_memory()
    keras.config.set_dtype_policy(options.dtype_policy)
    if options.initial_model is not None and len(builders) > 1:
        raise RunError(
            "argument --initial-model: holds the weights of one network, but this run trains "
            f"{len(builders)}: {', '.join(builders)}"
        )
    networks = {}
    for name, build in builders.items():
        keras.utils.set_random_seed(options.seed)
        try:
            networks[name] = build()
        except ValueError as error:
            raise RunError(first_line(error)) from error
        if options.devices > 1:
            devices.check(networks[name])
        size = networks[name].count_params()
        print(f"{name}: {size:,} parameters, on {keras.backend.backend()}")
        if options.initial_model is not None:
            load_initial_weights(networks[name], options.initial_model)
    return networks


def build_network(options, name, build):
    """The one network of a command, as in `build_networks`."""
    return build_networks(options, {name: build})[name]


def build_again(options, build, seed):
    """The network of one of many trainings, from that seed or from `--initial-model`."""
    keras.utils.set_random_seed(seed)
    network = build()
    if options.initial_model is not None:
        load_initial_weights(network, options.initial_model)
    return network


def load_model(path, what):
    """A saved model; raises RunError when that cannot be had."""
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of many types, by what is wrong with the file
        raise RunError(f"{what} {path} cannot be used: {first_line(error)}") from error


def load_initial_weights(model, path):
    """Copies the weights of a saved model; raises RunError when that cannot be done."""
    saved = load_model(path, "The initial model")
    try:
        model.set_weights(saved.get_weights())
    except ValueError as error:
        raise RunError(f"The initial model {path} cannot be used: {first_line(error)}") from error
