"""A run: its folder, what is written there, and its log."""

import copy
import json
import logging
import pathlib
import shutil
import sys
import tempfile

import keras

from examples.common import devices
from examples.common.options import RunError
from examples.common.options import first_line
from examples.common.options import process_index
from keras_sets import callbacks

LOG = logging.getLogger("examples")


class Run:
    """The output folder of a run and the configuration written in it.

    Args:
        task: Name of the command.
        name: Name of the run.
        options: Its options.
        extensible: Whether a run that is resumed may have other `epochs`, where no schedule
            depends on them.

    Attributes:
        shared: The folder, from which a run that is resumed reads its checkpoints.
        path: Where this process writes: the folder, or one that vanishes, when process 0 of
            several writes the folder.
    """

    def __init__(self, task, name, options, extensible=True):
        self.options = options
        self.extensible = extensible
        self.name = name
        self.shared = self.path = pathlib.Path(options.output or pathlib.Path("runs", task, name))
        if process_index() > 0:
            self._temporary = tempfile.TemporaryDirectory()
            self.path = pathlib.Path(self._temporary.name)
        self.configuration = {
            "task": task,
            "backend": keras.backend.backend(),
            **{k: v for k, v in sorted(vars(options).items()) if k not in {*options.free, "free"}},
        }

    def prepare(self):
        """Checks and makes the folder; raises RunError before anything is changed."""
        failure = None
        try:
            if process_index() == 0:
                self._prepare_folder()
        except RunError as error:
            failure = error
        stops = any(devices.gather(int(failure is not None)))
        if failure:
            raise failure
        if stops:
            raise RunError("Process 0 had to stop")
        self._start_log()

    def _prepare_folder(self):
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
        return self.extensible and recorded.get("schedule") == "constant"

    def _check_writable(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RunError(f"The output folder {self.path} cannot be written: {error}") from error

    def _start_log(self):
        for handler in LOG.handlers[:]:
            LOG.removeHandler(handler)
            handler.close()
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
        part.shared = self.shared / part.name
        LOG.info("training %s", part.name)
        return part

    def save_model(self, model):
        temporary = self.path / ".model.part.keras"
        model.save(temporary)
        temporary.replace(self.path / "model.keras")

    def write_results(self, table, scores):
        """The text of the final table, and its numbers for programs."""
        (self.path / "table.txt").write_text(table + "\n")
        (self.path / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
