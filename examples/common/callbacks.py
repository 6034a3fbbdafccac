"""Callbacks of the examples: a log, traces of weights, a learning rate, pictures."""

import csv
import io
import time

import keras
import numpy as np

from examples.common import devices
from examples.common.options import process_count
from examples.common.run import LOG
from keras_sets import callbacks


class RunLog(callbacks.StatefulCallback):
    """Every epoch's numbers: `metrics.csv`, the log, and TensorBoard on request.

    Attributes:
        rows: The numbers, a dict an epoch.
        steps: Batches so far. A time budget ends the last epoch before its last batch.
    """

    def __init__(self, path, budget, epoch_steps, tensorboard=False):
        super().__init__()
        self.path = path
        self.budget = budget
        self.epoch_steps = epoch_steps
        self.rows = []
        self.steps = 0
        self._writer = None
        if tensorboard:
            from tensorboard.summary import Writer

            self._writer = Writer(str(path / "tensorboard"))

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1

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
        return {"rows": self.rows, "steps": self.steps}

    def set_state(self, state):
        self.rows = state["rows"]
        # Runs that began before batches were counted had whole epochs, as far as they know.
        self.steps = state.get("steps", len(self.rows) * self.epoch_steps)


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


class TimeBudget(callbacks.TimeBudget):
    """A time budget by the clock of process 0, of which each of several processes knows."""

    _known = 0.0

    @property
    def elapsed(self):
        """Seconds spent so far; of several processes up to the last batch or epoch."""
        return self._known if process_count() > 1 else super().elapsed

    def _ask(self):
        if process_count() > 1:
            self._known = devices.gather(super().elapsed)[0]

    def on_epoch_begin(self, epoch, logs=None):
        self._ask()

    def on_train_batch_end(self, batch, logs=None):
        if self.minutes < float("inf"):
            self._ask()
        super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._ask()

    def set_state(self, state):
        super().set_state(state)
        self._known = state["elapsed"]


class Pictures(keras.callbacks.Callback):
    """Calls `draw()` after an epoch when some minutes have passed since the last time."""

    def __init__(self, draw, minutes):
        super().__init__()
        self.draw = draw
        self.minutes = minutes
        self._last = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        # All processes draw or none, by the clock of process 0.
        if devices.gather(time.monotonic() - self._last)[0] >= 60 * self.minutes:
            self.draw()
            self._last = time.monotonic()
