"""Command-line options that all examples have.

This module imports neither Keras nor a backend: `--cpu` must act before they start.
"""

import argparse
import contextlib
import errno
import functools
import importlib.util
import os
import sys
import traceback

BACKENDS = ("tensorflow", "jax", "torch")
joined = False  # whether this process trains with others by now, see `devices.distribute`


class RunError(Exception):
    """Something that the user must decide: a command ends with its message, in one line."""


GO_ON = {
    "python -m examples": "The same command with --resume goes on after the last whole epoch",
    "python -m tuning": "The same command goes on",
}


def command(main):
    """Makes the main function of a command end with one line where the user must do something."""

    @_leaving_the_others()
    @functools.wraps(main)
    def run(arguments=None):
        try:
            return main(arguments)
        except RunError as error:
            message = str(error)
        except (OSError, RuntimeError) as error:  # h5py says it without a number
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            message = f"the disk is full: {first_line(error)}"
        except KeyboardInterrupt:
            if arguments is not None:  # of a program that calls it
                raise
            print(
                f"\n{name()}: interrupted. {GO_ON.get(name().split('.')[0], '')}", file=sys.stderr
            )
            sys.exit(130)
        print(f"{name()}: error: {message}", file=sys.stderr)
        sys.exit(2)

    def name():
        return f"python -m {main.__globals__['__package__']}"

    return run


@contextlib.contextmanager
def _leaving_the_others():
    """An error ends one of several processes at once; JAX would wait minutes for the others."""
    try:
        yield
    except BaseException as error:
        if not joined:
            raise
        code = error.code if isinstance(error, SystemExit) else 1
        if code == 1:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def process_count():
    """How many processes train together, by the variable that Keras reads."""
    return _process_number("KERAS_DISTRIBUTION_NUM_PROCESSES", least=1)


def process_index():
    """The number of this process. Process 0 alone prints and writes the run's folder."""
    if process_count() == 1:
        return 0
    return _process_number("KERAS_DISTRIBUTION_PROCESS_ID", least=0)


def _process_number(name, least):
    text = os.environ.get(name) or str(least)
    if not text.isdecimal() or int(text) < least:
        raise RunError(f"{name}: expected an integer of at least {least}, received {text!r}")
    return int(text)


def first_line(error):
    """What an exception says, without the lines that follow."""
    message = str(error).strip().partition("\n")[0]
    return (
        message
        if isinstance(error, (OSError, ValueError))
        else f"{type(error).__name__}: {message}"
    )


def check_backend():
    """Raises RunError unless KERAS_BACKEND is one of the three, and installed."""
    name = os.environ.get("KERAS_BACKEND")
    if name and name not in BACKENDS:
        raise RunError(f"KERAS_BACKEND: expected one of {', '.join(BACKENDS)}, received {name!r}")
    if name and importlib.util.find_spec(name) is None:
        raise RunError(f"KERAS_BACKEND: {name} is not installed")


def positive_integer(text):
    return _number(text, int, lambda value: value > 0, "a positive integer")


def non_negative_integer(text):
    return _number(text, int, lambda value: value >= 0, "a non-negative integer")


def positive_number(text):
    return _number(text, float, lambda value: value > 0, "a positive number")


def fraction(text):
    return _number(text, float, lambda value: 0 <= value < 1, "a number in [0, 1)")


def _number(text, kind, accept, expected):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")
    return value


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something, as they would be typed.

    Not those of switches and empty options, nor where the help itself names the default.
    """

    def _get_help_string(self, action):
        silent = action.default is None or action.default is False or action.default == ""
        if silent or "(default:" in (action.help or ""):
            return action.help
        text = super()._get_help_string(action)
        if isinstance(action.default, list):
            text = text.replace("%(default)s", " ".join(map(str, action.default)))
        return text


# Options of every example that do not change what a run computes up to an epoch.
FREE_ON_RESUME = frozenset(
    "output resume overwrite dry_run cpu devices log_to_stdout tensorboard plot_interval "
    "time_budget smoke".split()
)


def make_parser(task, description, defaults):
    """A parser with the options of every example; the task adds its own.

    Args:
        task: Name of the example's package.
        description: What the example does.
        defaults: Defaults of `epochs`, `time_budget`, `batch_size` and `learning_rate`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{task}",
        description=description,
        formatter_class=HelpFormatter,
    )
    run = parser.add_argument_group("run")
    run.add_argument("--output", help=f"folder of the run (default: runs/{task}/NAME)")
    run.add_argument("--run", default="", help="run id, appended to the name of the run")
    run.add_argument(
        "--resume", action="store_true", help="go on with the run in the output folder"
    )
    run.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in the output folder"
    )
    run.add_argument(
        "--seed", type=non_negative_integer, default=0, help="seed of data, weights and order"
    )
    run.add_argument("--smoke", action="store_true", help="a run of seconds, for tests")
    run.add_argument(
        "--dry-run", action="store_true", help="print the model's name and size, then exit"
    )
    run.add_argument(
        "--log-to-stdout", action="store_true", help="log to the terminal, not to log.txt"
    )
    run.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs")
    run.add_argument(
        "--plot-interval",
        type=positive_number,
        default=5.0,
        help="minutes between pictures during training",
    )
    add_machine_group(parser)

    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=positive_integer, help="most epochs")
    training.add_argument(
        "--time-budget",
        type=positive_number,
        help="minutes of training, for each network where there are several; inf for no limit",
    )
    training.add_argument("--batch-size", type=positive_integer, help="sets in a batch")
    training.add_argument(
        "--optimizer",
        choices=["adam", "muon"],
        help="Muon takes orthogonalised steps in the matrices between iterations",
    )
    training.add_argument("--learning-rate", type=positive_number, help="first learning rate")
    training.add_argument(
        "--weight-decay",
        type=positive_number,
        metavar="W",
        help="shrink weights by W times the learning rate in each step, against overfitting "
        "(default: none)",
    )
    training.add_argument(
        "--initial-model", metavar="FILE", help="start from the weights of a .keras file"
    )
    training.add_argument(
        "--schedule",
        choices=["constant", "cosine", "step"],
        help="course of the learning rate: constant, falling to 0 over all epochs, or falling to "
        "a tenth after 70 %% of them. With --time-budget the last two follow the clock as well: "
        "a run that is killed and resumed gives the same numbers only if it ends within its "
        "budget",
    )
    training.add_argument(
        "--backtracking-horizon",
        type=fraction,
        default=0.2,
        help="fraction of the epochs without progress after which the best weights return",
    )
    training.add_argument(
        "--backtracking-factor",
        type=fraction,
        default=0.9,
        help="factor of the learning rate when the best weights return",
    )
    training.add_argument(
        "--dtype-policy",
        choices=["float32", "mixed_float16", "mixed_bfloat16"],
        default="float32",
        help="precision of the computation",
    )
    parser.set_defaults(**defaults)
    return parser


def add_machine_group(parser):
    """The group of options that say what a run computes on."""
    group = parser.add_argument_group("machine")
    group.add_argument("--cpu", action="store_true", help="use no accelerator")
    group.add_argument(
        "--devices",
        type=positive_integer,
        default=1,
        metavar="N",
        help="share every batch among the first N devices (JAX, TensorFlow), those of all "
        "processes together; N divides the batch size",
    )


def add_data_group(parser, data_sets, description):
    """The group of options that choose among data sets, of which some are in a folder.

    Args:
        data_sets: Names of data sets, the default first.
        description: Where they come from.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--data-set", choices=data_sets, default=data_sets[0], help=description)
    group.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of TensorFlow Datasets (default: its own, ~/tensorflow_datasets)",
    )
    return group


def parse(parser, smoke, arguments=None, free=()):
    """Parses the arguments; with `--smoke` the defaults are those of `smoke`.

    Args:
        free: Names of the task's own options that do not change what a run computes up to an
            epoch. A run that goes on may change these and those in `FREE_ON_RESUME`, which
            together are `options.free`.
    """
    check_backend()
    if parser.parse_known_args(arguments)[0].smoke:
        parser.set_defaults(**smoke)
    options = parser.parse_args(arguments)
    if options.resume and options.overwrite:
        parser.error("--resume and --overwrite exclude each other")
    options.free = FREE_ON_RESUME.union(free)
    if options.devices > 1 and options.batch_size % options.devices:
        parser.error(
            f"argument --devices: expected a divisor of the batch size {options.batch_size}, "
            f"received {options.devices}"
        )
    prepare_backend(options)
    if options.devices > 1 or process_count() > 1:
        # Before anything else: TensorFlow makes virtual devices when it starts.
        from examples.common import devices

        devices.distribute(options.devices)
        devices.compare(options)
    return options


# To compile takes most of a smoke run's time on JAX. Every release of XLA knows these.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def prepare_backend(options):
    """Sets up a backend that is imported from now on.

    With `--cpu` it keeps to the processor, and with `--smoke` XLA does not optimise, unless there
    are several devices: gradients of maxima can be wrong then.
    """
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
    if options.smoke and getattr(options, "devices", 1) == 1:
        os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)
