"""A run: its folder, its log, and training that can be killed and resumed."""

import copy
import csv
import io
import json
import logging
import pathlib
import shutil
import sys
import tempfile
import time

import keras
import numpy as np

from examples.common.datasets import Ahead
from examples.common.options import RunError
from examples.common.options import first_line
from keras_sets import callbacks

LOG = logging.getLogger("examples")


def make_optimizer(options, accumulate=1):
    """The optimizer of the options, with gradients clipped to norm 1.

    With `accumulate` above 1 it steps once in so many batches, by the mean of their gradients.
    """
    parts = {"clipnorm": 1.0, "weight_decay": options.weight_decay}
    if accumulate > 1:
        parts["gradient_accumulation_steps"] = accumulate
    if options.optimizer == "adam":
        return keras.optimizers.Adam(options.learning_rate, **parts)
    # Matrices between hidden states get Muon's steps; the first and the last layer Adam's.
    return keras.optimizers.Muon(
        options.learning_rate,
        adam_weight_decay=options.weight_decay,
        adam_lr_ratio=0.5,
        exclude_layers=[
            "cell/kernel$",
            "projection",
            "output",
            "embedding",
            "equivariant_0",
            "initial_",
            "readout",
        ],
        **parts,
    )


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


def build_networks(parser, options, builders):
    """Builds the networks of a command and prints their names and sizes.

    Args:
        parser: Ends the program with its message when a network cannot be built.
        options: The parsed options.
        builders: Dict from names to functions without arguments that return a model.

    Returns:
        Dict from names to models.
    """
    keras.config.set_dtype_policy(options.dtype_policy)
    if options.initial_model is not None and len(builders) > 1:
        parser.error(
            "argument --initial-model: holds the weights of one network, but this run trains "
            f"{len(builders)}: {', '.join(builders)}"
        )
    networks = {}
    for name, build in builders.items():
        keras.utils.set_random_seed(options.seed)
        try:
            networks[name] = build()
        except ValueError as error:
            parser.error(str(error))
        size = networks[name].count_params()
        print(f"{name}: {size:,} parameters, on {keras.backend.backend()}")
    return networks


def open_run(parser, options, task, name, networks):
    """The run of the options with its folder prepared; bad ones end the program."""
    run = Run(task, name, options)
    try:
        if options.initial_model is not None:
            for model in networks.values():
                load_initial_weights(model, options.initial_model)
        run.prepare()
    except RunError as error:
        parser.error(str(error))
    return run


def train(parser, run, model, data, validation_data, **arguments):
    """A `Training` that is done; a checkpoint of another network ends the program."""
    try:
        training = Training(run, model, **arguments)
        training.fit(data, validation_data)
    except ValueError as error:
        if run.options.resume:
            parser.error(str(error))
        raise
    return training


class Run:
    """The output folder of a run and the configuration written in it."""

    def __init__(self, task, name, options):
        self.options = options
        self.name = name
        self.path = pathlib.Path(options.output or pathlib.Path("runs", task, name))
        self.configuration = {
            "task": task,
            "backend": keras.backend.backend(),
            **{k: v for k, v in sorted(vars(options).items()) if k not in {*options.free, "free"}},
        }

    def prepare(self):
        """Checks and makes the folder; raises RunError before anything is changed."""
        recorded = self._recorded_configuration()
        if self.options.resume:
            self._check_resumable(recorded)
        elif self.path.exists() and not self.path.is_dir():
            raise RunError(f"The output {self.path} exists and is not a folder")
        elif self.path.is_dir() and any(self.path.iterdir()):
            if not self.options.overwrite:
                raise RunError(
                    f"The output folder {self.path} is not empty. Give another --output, "
                    "--resume to go on with the run in it, or --overwrite to replace it"
                )
            if recorded is None:
                raise RunError(
                    f"The output folder {self.path} holds files of something that is not a "
                    "run: --overwrite leaves it alone. Give another --output"
                )
        self._check_writable()
        if self.options.overwrite and recorded is not None:
            shutil.rmtree(self.path)
            self.path.mkdir()
        text = json.dumps(self.configuration, indent=2)
        callbacks.write_atomically(self.path / "config.json", text + "\n")
        self._start_log()

    def _recorded_configuration(self):
        path = self.path / "config.json"
        try:
            recorded = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {first_line(error)}") from error
        if not isinstance(recorded, dict):
            raise RunError(f"{path} is not the configuration of a run")
        return recorded

    def _check_resumable(self, recorded):
        if recorded is None:
            raise RunError(f"There is no run to resume in {self.path}")
        different = [
            f"{key.replace('_', '-')} was {recorded.get(key)!r}, is {value!r}"
            for key, value in json.loads(json.dumps(self.configuration)).items()
            if recorded.get(key) != value and not (key == "epochs" and self._extends(recorded))
        ]
        if different:
            raise RunError(
                f"The run in {self.path} has another configuration: {'; '.join(different)}. "
                "Resume with the options it began with, or give another --output"
            )

    def _extends(self, recorded):
        """More or fewer epochs are the same run, unless a schedule depends on them."""
        return recorded.get("schedule") == "constant"

    def _check_writable(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RunError(f"The output folder {self.path} cannot be written: {error}") from error

    def _start_log(self):
        LOG.handlers.clear()
        LOG.setLevel(logging.INFO)
        LOG.propagate = False
        if self.options.log_to_stdout:
            handler = logging.StreamHandler(sys.stdout)
        else:
            handler = logging.FileHandler(self.path / "log.txt")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOG.addHandler(handler)

    def part(self, *names):
        """One of several trainings of this run, in a folder of its own below the run's."""
        part = copy.copy(self)
        part.name = "-".join(names)
        part.path = self.path / part.name
        part.path.mkdir(exist_ok=True)
        LOG.info("training %s", part.name)
        return part

    def save_model(self, model):
        temporary = self.path / ".model.part.keras"
        model.save(temporary)
        temporary.replace(self.path / "model.keras")


class RunLog(callbacks.StatefulCallback):
    """Every epoch's numbers: `metrics.csv`, the log, and TensorBoard on request."""

    def __init__(self, path, budget, tensorboard=False):
        super().__init__()
        self.path = path
        self.budget = budget
        self.rows = []
        self._writer = None
        if tensorboard:
            from tensorboard.summary import Writer

            self._writer = Writer(str(path / "tensorboard"))

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}}
        rate = self.model.optimizer.learning_rate
        row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        row["seconds"] = round(self.budget.elapsed, 1)
        self.rows.append(row)
        self.write()
        LOG.info(", ".join(f"{key} {value:.6g}" for key, value in row.items()))
        if self._writer is not None:
            for key, value in row.items():
                if key != "epoch":
                    self._writer.add_scalar(key, value, epoch + 1)
            self._writer.flush()

    def write(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]) if self.rows else ["epoch"])
        writer.writeheader()
        writer.writerows(self.rows)
        callbacks.write_atomically(self.path / "metrics.csv", text.getvalue())

    def get_state(self):
        return {"rows": self.rows}

    def set_state(self, state):
        self.rows = state["rows"]


class WeightTraces(callbacks.StatefulCallback):
    """Follows a few entries of every weight through training.

    Attributes:
        names: Path of each weight.
        values: One list an epoch, with an array of entries for every weight.
    """

    def __init__(self, entries=13, seed=0):
        super().__init__()
        self.entries = entries
        self.seed = seed
        self.values = []

    @property
    def names(self):
        return [weight.path for weight in self.model.trainable_weights]

    def on_epoch_end(self, epoch, logs=None):
        rng = np.random.default_rng(self.seed)
        traced = []
        for weight in self.model.trainable_weights:
            flat = keras.ops.convert_to_numpy(weight).reshape(-1)
            chosen = rng.choice(flat.size, min(self.entries, flat.size), replace=False)
            traced.append([float(value) for value in flat[np.sort(chosen)]])
        self.values.append(traced)

    def get_state(self):
        return {"values": self.values}

    def set_state(self, state):
        self.values = state["values"]


# The learning rate as a fraction of its first value, against the share of training done.
SCHEDULES = {
    "cosine": lambda progress: (1 + np.cos(np.pi * progress)) / 2,
    "step": lambda progress: 1.0 if progress < 0.7 else 0.1,
}


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate of every epoch by one of `SCHEDULES`.

    Its course follows the epochs or the time budget, whichever is further.
    """

    def __init__(self, schedule, learning_rate, epochs, budget, backtracking):
        super().__init__()
        self.schedule = SCHEDULES[schedule]
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.budget = budget
        self.backtracking = backtracking

    def on_epoch_begin(self, epoch, logs=None):
        spent = self.budget.elapsed / (60 * self.budget.minutes)
        progress = min(max(epoch / self.epochs, spent), 1)
        reduced = self.backtracking.factor ** len(self.backtracking.returns)
        rate = self.learning_rate * reduced * self.schedule(progress)
        self.model.optimizer.learning_rate.assign(rate)


class Pictures(keras.callbacks.Callback):
    """Calls `draw()` after an epoch when some minutes have passed since the last time."""

    def __init__(self, draw, minutes):
        super().__init__()
        self.draw = draw
        self.minutes = minutes
        self._last = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if time.monotonic() - self._last >= 60 * self.minutes:
            self.draw()
            self._last = time.monotonic()


class Training:
    """`model.fit` with the callbacks of every example.

    Args:
        run: The `Run`, prepared.
        model: The compiled model.
        draw: Function that draws the task's pictures, called during training and after.
        quiet: True draws nothing and prints no progress: for one of many trainings of a run.
        extra_callbacks: Keras callbacks of the caller, called before the others.
        budget, backtracking and so on come from the run's options.
    """

    def __init__(self, run, model, draw=lambda: None, quiet=False, extra_callbacks=()):
        options = run.options
        self.run = run
        self.model = model
        self.draw_task = draw
        self.quiet = quiet
        self.extra_callbacks = extra_callbacks
        self.budget = callbacks.TimeBudget(options.time_budget or float("inf"))
        self.backtracking = callbacks.Backtracking(
            "val_loss", options.backtracking_horizon, options.backtracking_factor
        )
        self.log = RunLog(run.path, self.budget, options.tensorboard)
        self.traces = WeightTraces(seed=options.seed)
        state = [self.log, self.traces, self.budget, self.backtracking]
        for callback in state:
            callback.set_model(model)
        self.checkpoint = callbacks.Checkpoint(run.path / "checkpoints", state)

    def fit(self, data, validation_data):
        """Trains, or goes on; leaves the best weights in the model and saves it."""
        options = self.run.options
        done = self.checkpoint.restore(self.model) if options.resume else 0
        if done:
            LOG.info("resumed after epoch %d", done)
            if not self.quiet:
                print(f"Resuming after epoch {done}.", flush=True)
        data = Ahead(data)
        # Keras may tell a dataset of more epoch ends than there are epochs.
        order = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: data.start_at(epoch)
        )
        schedule = []
        if options.schedule != "constant":
            first = (options.schedule, options.learning_rate, options.epochs)
            schedule = [LearningRate(*first, self.budget, self.backtracking)]
        if done < options.epochs and self.budget.elapsed < 60 * self.budget.minutes:
            self.model.fit(
                data,
                validation_data=validation_data,
                shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
                initial_epoch=done,
                epochs=options.epochs,
                verbose=0 if self.quiet else "auto",
                callbacks=[
                    *self.extra_callbacks,
                    order,
                    self.budget,
                    *schedule,
                    self.log,
                    self.traces,
                    self.backtracking,
                    Pictures(self.draw, options.plot_interval),
                    self.checkpoint,
                ],
            )
        self.backtracking.restore_best()
        self.run.save_model(self.model)
        self.draw()

    def draw(self):
        if self.quiet:
            return
        from examples.common import plots

        plots.learning_curves(self.log.rows, self.run.path / "learning_curves.png")
        plots.weight_traces(
            self.traces.names, self.traces.values, self.run.path / "weight_traces.png"
        )
        self.draw_task()
