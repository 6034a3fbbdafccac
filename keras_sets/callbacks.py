"""Keras callbacks: a time budget, backtracking, and checkpoints that survive a kill."""

import io
import json
import os
import pathlib
import re
import time
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sets import validation
from keras_sets._files import make_folder
from keras_sets._files import write_atomically
from keras_sets._typing import Config

__all__ = ["Backtracking", "Checkpoint", "DamagedCheckpoint", "StatefulCallback", "TimeBudget"]


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose state a `Checkpoint` saves and restores.

    A subclass implements `get_state()`, which returns a dict of JSON values and NumPy
    arrays, and `set_state(state)`, called with that dict after training has begun.
    """

    def get_state(self) -> Config:
        return {}

    def set_state(self, state: Config) -> None:
        pass


def model_state(model: keras.Model) -> list[np.ndarray]:
    """All variables of a model and of its optimizers as a list of arrays."""
    # Copies: on torch `convert_to_numpy` shares memory with the variable.
    arrays = [np.array(keras.ops.convert_to_numpy(v)) for v in _variables(model)]
    # NumPy's files do not know bfloat16; float32 holds its values exactly.
    return [a.astype("float32") if a.dtype.name == "bfloat16" else a for a in arrays]


def set_model_state(model: keras.Model, arrays: list[np.ndarray]) -> None:
    """Inverse of `model_state`. Nothing is changed when the arrays do not fit."""
    variables = _variables(model)
    expected = [tuple(variable.shape) for variable in variables]
    received = [array.shape for array in arrays]
    if expected != received:
        unbuilt = [name for name, optimizer in _optimizers(model).items() if not optimizer.built]
        hint = "".join(f". Build `model.{n}` first, by `build(variables)`" for n in unbuilt)
        raise ValueError(
            "The state does not fit the model: expected variables of shapes "
            f"{expected}. Received: {received}{hint}"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _variables(model):
    if getattr(model, "optimizer", None) is None:
        raise ValueError(
            "`model` must be compiled, because the state of its optimizer belongs to it: call "
            f"`model.compile` first. Received: model={model!r}"
        )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    # Weights and seed states, but no metrics: these start anew with every epoch.
    optimizers = _optimizers(model).values()
    return [*model.variables, *(v for optimizer in optimizers for v in optimizer.variables)]


def _optimizers(model):
    """That of `compile` first, then those that a `train_step` of one's own uses, by name."""
    known = model.optimizer, getattr(model.optimizer, "inner_optimizer", None)
    others = {k: v for k, v in vars(model).items() if isinstance(v, keras.optimizers.Optimizer)}
    return {"optimizer": known[0], **{k: v for k, v in sorted(others.items()) if v not in known}}


def _optimizer_class(model):
    """The name of the optimizer's class, inside of a loss scale; those of several in one string."""
    optimizers = (getattr(o, "inner_optimizer", o) for o in _optimizers(model).values())
    return ", ".join(type(optimizer).__name__ for optimizer in optimizers)


def backend_random_state() -> list[np.ndarray]:
    """States of the generators that a backend keeps for itself, as a list of arrays.

    On torch, layers without a seed draw from torch's own generators. TensorFlow and JAX
    draw from the `SeedGenerator`s of the layers, which are variables of the model.
    """
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def set_backend_random_state(arrays: list[np.ndarray]) -> None:
    """Inverse of `backend_random_state`."""
    if not arrays or keras.backend.backend() != "torch":
        return
    import torch

    first, *others = (torch.from_numpy(np.array(array)) for array in arrays)
    torch.set_rng_state(first)
    if len(others) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(others)


class TimeBudget(StatefulCallback):
    """Stops training when its wall-clock time is used up.

    The batch at hand is finished, then the epoch ends early with its validation. Time
    spent before a kill counts, as far as a `Checkpoint` saved it.

    Args:
        minutes: Positive number, minutes of training with validation.
    """

    def __init__(self, minutes: float) -> None:
        super().__init__()
        if not validation.is_number(minutes) or not minutes > 0:
            raise ValueError(
                "Received an invalid value for `minutes`, expected a positive number. "
                f"Received: minutes={minutes!r}"
            )
        self.minutes = minutes
        self._spent = 0.0
        self._started: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds spent so far."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._spent + running

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._spent, self._started = self.elapsed, time.monotonic()  # `fit` may be interrupted
        if self._spent >= 60 * self.minutes:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._spent, self._started = self.elapsed, None

    def get_state(self) -> Config:
        return {"elapsed": self.elapsed}

    def set_state(self, state: Config) -> None:
        self._spent = state["elapsed"]


class Backtracking(StatefulCallback):
    """Returns to the best weights, with a smaller learning rate, when training goes astray.

    After an epoch whose monitored value is worse than all values before, or better than
    none of the last `horizon` of the epochs (five at least), the weights and the
    optimizer's state of the best epoch come back and the learning rate is multiplied by
    `factor`. A value that is not finite counts as the worst. After a return, as many epochs
    pass before the next one for want of progress.

    Args:
        monitor: Name of a quantity in the logs; smaller is better.
        horizon: Fraction of the epochs so far, in [0, 1).
        factor: Factor of the learning rate at each return, in (0, 1).

    Attributes:
        best: Best value so far.
        returns: Epochs after which the best weights came back.

    Reference:
        The training script of [Vollgraf, 2019](https://arxiv.org/abs/1906.09400).
    """

    def __init__(
        self, monitor: str = "val_loss", horizon: float = 0.2, factor: float = 0.9
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.horizon = validation.fraction("horizon", horizon)
        self.factor = validation.fraction("factor", factor)
        if self.factor == 0:
            raise ValueError("`factor` must be above 0. Received: factor=0")
        self.best = float("inf")
        self.returns: list[int] = []
        self._values: list[float] = []
        self._last_return = -1  # its place in the values
        self._best_state: list[np.ndarray] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise ValueError(
                "Backtracking multiplies the learning rate by `factor`, and expects an optimizer "
                "whose learning rate is a number. Received: one that follows a schedule"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"Backtracking monitors {self.monitor!r}, which is not in the logs of this epoch. "
                "Names with `val_` need `validation_data` and `validation_freq=1`. "
                f"Available: {', '.join(sorted(logs))}"
            )
        value = float(logs[self.monitor])
        if not np.isfinite(value):
            value = float("inf")
        if self._is_astray(value) and self._best_state is not None:
            rates = [optimizer.learning_rate for optimizer in _optimizers(self.model).values()]
            rates = [rate for rate in rates if isinstance(rate, keras.Variable)]
            now = [float(keras.ops.convert_to_numpy(rate)) for rate in rates]
            set_model_state(self.model, self._best_state)
            for rate, before in zip(rates, now, strict=True):
                rate.assign(self.factor * before)
            self.returns.append(epoch)
            self._last_return = len(self._values)
            value = self.best
        elif value < self.best:
            self.best = value
            self._best_state = model_state(self.model)
        self._values.append(value)

    def _is_astray(self, value):
        if not self._values:
            return False
        if value == float("inf") or value > max(self._values):
            return True
        patience = max(5, self.horizon * len(self._values))
        worse = [i for i, earlier in enumerate(self._values) if earlier > value]
        last_worse = worse[-1] if worse else -1
        return len(self._values) - max(last_worse, self._last_return) > patience

    def restore_best(self) -> None:
        """Puts the best weights seen so far in the model."""
        if self._best_state is not None:
            set_model_state(self.model, self._best_state)

    def get_state(self) -> Config:
        state = {
            "best": self.best,
            "values": self._values,
            "returns": self.returns,
            "last_return": self._last_return,
        }
        for i, array in enumerate(self._best_state or []):
            state[f"best_state/{i}"] = array
        return state

    def set_state(self, state: Config) -> None:
        self.best = state["best"]
        self._values = list(state["values"])
        self.returns = list(state["returns"])
        self._last_return = state.get("last_return", -1)
        self._best_state = _numbered(state, "best_state") or None


def _numbered(arrays, prefix):
    """The values at keys `prefix/0`, `prefix/1`, ... in order."""
    count = sum(key.startswith(f"{prefix}/") for key in arrays)
    return [arrays[f"{prefix}/{i}"] for i in range(count)]


class DamagedCheckpoint(ValueError):
    """A checkpoint file that cannot be read back."""


class Checkpoint(keras.callbacks.Callback):
    """Saves all that a run needs to go on after it was killed at any moment.

    After every epoch one file `epoch-<number>.npz` holds the variables of the model (the states
    of random generators among them) and of its optimizer, and the state of the given callbacks.
    Further optimizers that are attributes of the model, for a `train_step` of one's own, are
    saved too; build them before `restore`. The file is complete before it gets its name, so a
    kill leaves the file before it. The last `keep` files stay.

    `restore(model)` reads the newest file that is intact; a damaged one is reported and the one
    before it is used. Put this callback after those whose state it saves. The order of the data
    is no part of the state: `keras_sets.utils.SetDataset` is told its `epoch`, or gives the
    batches of the first epochs again. Arrays that `fit` shuffles come in another order.

    Args:
        directory: Folder of the checkpoints; made when it is missing.
        callbacks: `StatefulCallback`s to save along.
        keep: Positive integer, how many files to keep.

    Raises:
        ValueError: Training begins before checkpoints that lie in the folder, of another run; or
            nothing can be written there.

    Example:

    ```python
    budget = keras_sets.callbacks.TimeBudget(minutes=60)
    checkpoint = keras_sets.callbacks.Checkpoint("run/checkpoints", [budget])
    data = keras_sets.utils.SetDataset(sets, targets)
    epoch = data.epoch = checkpoint.restore(model)  # 0 in a new run
    model.fit(data, initial_epoch=epoch, epochs=100, callbacks=[budget, checkpoint])
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        callbacks: Sequence[StatefulCallback] = (),
        keep: int = 2,
    ) -> None:
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, StatefulCallback):
                raise ValueError(
                    "Received an invalid value for `callbacks`, expected those with a state, "
                    f"`keras_sets.callbacks.StatefulCallback`. Received: {type(callback).__name__}"
                )
        self.keep = validation.positive_integer("keep", keep)
        self._random_state: list[np.ndarray] = []
        self._newest: int | None = None  # that this object has written or restored

    def files(self) -> list[pathlib.Path]:
        """The checkpoint files, oldest first."""
        found = self._numbered_files()
        return [found[number] for number in sorted(found)]

    def _numbered_files(self):
        found = {}
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                match = re.fullmatch(r"epoch-(\d+)\.npz", path.name)
                if match:
                    found[int(match[1])] = path
        return found

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        make_folder("directory", self.directory)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check_later_files(epoch)
        # Not in `restore`: the start of `fit` draws from the generators as well.
        set_backend_random_state(self._random_state)
        self._random_state = []

    def _check_later_files(self, epoch):
        later = [number for number in self._numbered_files() if number > epoch]
        if later and (self._newest is None or epoch < self._newest):
            raise ValueError(
                f"{self.directory} holds checkpoints of later epochs, up to {max(later)}, which "
                "would stay in place of those of this training. Go on from them, by "
                "`epoch = checkpoint.restore(model)` and `fit(initial_epoch=epoch, ...)`, or "
                f"give another `directory`. Received: a training that begins epoch {epoch}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.save(epoch + 1)

    def save(self, epoch: int) -> None:
        """Writes the state after `epoch` epochs."""
        arrays: dict[str, Any] = {
            f"model/{i}": array for i, array in enumerate(model_state(self.model))
        }
        for i, array in enumerate(backend_random_state()):
            arrays[f"random/{i}"] = array
        optimizer = _optimizer_class(self.model)
        described: Config = {"epoch": epoch, "optimizer": optimizer, "callbacks": []}
        for position, callback in enumerate(self.callbacks):
            values = {}
            for key, value in callback.get_state().items():
                if isinstance(value, np.ndarray):
                    arrays[f"callback/{position}/{key}"] = value
                else:
                    values[key] = value
            described["callbacks"].append({"class": type(callback).__name__, **values})
        text = json.dumps(described).encode()
        buffer = io.BytesIO()
        np.savez(buffer, description=np.frombuffer(text, "uint8"), **arrays)
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self.directory / f"epoch-{epoch:05d}.npz", buffer.getvalue())
        self._newest = epoch
        for path in self.files()[: -self.keep]:
            path.unlink()

    def restore(self, model: keras.Model) -> int:
        """Restores the newest intact checkpoint.

        Args:
            model: The compiled model.

        Returns:
            The number of epochs done, for `fit(initial_epoch=...)`; 0 without checkpoints.

        Raises:
            DamagedCheckpoint: There are checkpoints, but none can be read.
            ValueError: The checkpoint belongs to another model, optimizer or other callbacks.
        """
        files = self.files()
        for path in reversed(files):
            try:
                description, arrays = self._read(path)
            except DamagedCheckpoint as error:
                warnings.warn(f"{error}; using the checkpoint before it", stacklevel=2)
                continue
            self._apply(path, model, description, arrays)
            self._newest = description["epoch"]
            return description["epoch"]
        if files:
            raise DamagedCheckpoint(
                f"None of the {len(files)} checkpoints in {self.directory} can be read"
            )
        return 0

    def _read(self, path):
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            return json.loads(arrays.pop("description").tobytes()), arrays
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DamagedCheckpoint(f"Checkpoint {path} is damaged ({error})") from error

    def _apply(self, path, model, description, arrays):
        saved = [entry["class"] for entry in description["callbacks"]]
        expected = [type(callback).__name__ for callback in self.callbacks]
        if saved != expected:
            raise ValueError(
                f"Checkpoint {path} holds the state of the callbacks {saved}, but the run "
                f"has {expected}"
            )
        _variables(model)  # raises unless there is an optimizer
        # Files of earlier versions do not name it.
        optimizer = description.get("optimizer", _optimizer_class(model))
        if optimizer != _optimizer_class(model):
            raise ValueError(
                f"Checkpoint {path} holds the state of the optimizer {optimizer}, whose variables "
                f"mean something else to the one of the model, {_optimizer_class(model)}"
            )
        set_model_state(model, _numbered(arrays, "model"))
        self._random_state = _numbered(arrays, "random")
        for position, callback in enumerate(self.callbacks):
            state = dict(description["callbacks"][position])
            del state["class"]
            prefix = f"callback/{position}/"
            for key, array in arrays.items():
                if key.startswith(prefix):
                    state[key.removeprefix(prefix)] = array
            callback.set_state(state)
