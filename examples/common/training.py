"""Training that can be killed and resumed."""

import keras

from examples.common import devices
from examples.common.callbacks import LearningRate
from examples.common.callbacks import Pictures
from examples.common.callbacks import RunLog
from examples.common.callbacks import TimeBudget
from examples.common.callbacks import WeightTraces
from examples.common.datasets import ArrayDataset
from examples.common.datasets import PrefetchedDataset
from examples.common.devices import DivisibleBatches
from examples.common.devices import Sharing
from examples.common.devices import repeats_of_all
from examples.common.options import RunError
from examples.common.options import first_line
from examples.common.options import process_index
from examples.common.run import LOG
from keras_sets.callbacks import Backtracking
from keras_sets.callbacks import Checkpoint


class Training:
    """What `fit` needs to log, to draw, to keep within its time, and to go on after a kill.

    With `--resume` the newest checkpoint is restored here. After `fit`, `finish()` leaves the
    best weights in the model, saves it and draws the last pictures.

    ```python
    training = Training(run, model, batches, validation)
    model.fit(
        training.batches,
        validation_data=training.validation,
        epochs=options.epochs,
        initial_epoch=training.initial_epoch,
        shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
        callbacks=training.callbacks,
    )
    training.finish()
    ```

    Args:
        run: The `Run`, prepared. Its options say the time budget, the schedule and so on.
        model: The compiled model.
        batches: Dataset to train on, with `start_at(epoch)`.
        validation: Data that validate, a dataset or `(inputs, targets)`.
        draw: Function that draws the task's pictures, called during training and at its end.
        quiet: True draws nothing and prints nothing: for one of many trainings of a run.

    Raises:
        RunError: The checkpoint to go on from belongs to another network, or is damaged.
    """

    def __init__(self, run, model, batches, validation, draw=lambda: None, quiet=False):
        options = run.options
        self.run = run
        self.model = model
        self.validation = validation
        sharing = []
        if options.devices > 1:
            batches = DivisibleBatches(batches, options.devices)
            if isinstance(validation, tuple):
                # As many on each device as Keras takes where there is one.
                validation = ArrayDataset(*validation, 32 * options.devices, shuffle=False)
            repeats = repeats_of_all(model, validation, options.devices)
            self.validation = DivisibleBatches(validation, options.devices, repeats)
            sharing = [Sharing()]
        self.batches = PrefetchedDataset(batches)
        self._draw_task = draw
        self._quiet = quiet
        self._budget = TimeBudget(options.time_budget or float("inf"))
        self._backtracking = Backtracking(
            "val_loss", options.backtracking_horizon, options.backtracking_factor
        )
        self._log = RunLog(run.path, self._budget, len(batches), options.tensorboard)
        self._traces = WeightTraces(seed=options.seed)
        saved = [self._log, self._traces, self._budget, self._backtracking]
        for callback in saved:
            callback.set_model(model)
        if not model.optimizer.built:
            # TensorFlow traces a step twice when the optimizer makes its variables in it.
            model.optimizer.build(model.trainable_variables)
        checkpoint = Checkpoint(run.shared / "checkpoints", saved)
        self._epochs_done = self._restore(checkpoint, options.resume)
        # Keras may tell a dataset of more epoch ends than there are epochs.
        order = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.batches.start_at(epoch)
        )
        schedule = []
        if options.schedule != "constant":
            first = (options.schedule, options.learning_rate, options.epochs)
            schedule = [LearningRate(*first, self._budget, self._backtracking)]
        self.callbacks = [
            order,
            *sharing,
            self._budget,
            *schedule,
            self._log,
            self._traces,
            self._backtracking,
            Pictures(self.draw, options.plot_interval),
            *([checkpoint] if process_index() == 0 else []),
        ]

    def _restore(self, checkpoint, resume):
        newest = [int(path.stem.removeprefix("epoch-")) for path in checkpoint.files()[-1:]]
        found = sum(newest) if resume else -1
        if set(devices.gather(found)) != {found}:
            raise RunError(
                f"The processes do not see the same checkpoint in {checkpoint.directory}: they "
                "have to share the output folder"
            )
        if not resume:
            return 0
        try:
            done = checkpoint.restore(self.model)
        except ValueError as error:
            raise RunError(first_line(error)) from error
        if done > self.run.options.epochs:
            raise RunError(
                f"argument --epochs: {done} epochs are done in {self.run.shared}, and cannot be "
                f"undone. Received: {self.run.options.epochs}"
            )
        if done:
            LOG.info("resumed after epoch %d", done)
            if not self._quiet:
                print(f"Resuming after epoch {done}.", flush=True)
        return done

    @property
    def initial_epoch(self):
        """Epochs that are done; all of them when the time is used up, so that none follows."""
        out_of_time = self.seconds >= 60 * self._budget.minutes
        return self.run.options.epochs if out_of_time else self._epochs_done

    @property
    def seconds(self):
        """Time spent so far, before kills as well."""
        return self._budget.elapsed

    @property
    def rows(self):
        """What `metrics.csv` holds of every epoch, those before kills as well."""
        return self._log.rows

    @property
    def steps(self):
        """Batches so far, those before kills as well."""
        return self._log.steps

    @property
    def best(self):
        """The smallest validation loss so far."""
        return self._backtracking.best

    @property
    def duration(self):
        """Epochs and minutes as text."""
        return f"{len(self._log.rows)} epochs in {self.seconds / 60:.1f} minutes"

    def finish(self):
        """Puts the best weights in the model, saves it, and draws."""
        self._backtracking.restore_best()
        self.run.save_model(self.model)
        self.draw()

    def draw(self):
        if self._quiet:
            return
        from examples.common import plots

        path = self.run.path
        plots.learning_curves(self._log.rows, path / "learning_curves.png")
        plots.weight_traces(self._traces.names, self._traces.values, path / "weight_traces.png")
        self._draw_task()


def train_part(run, names, model, batches, validation):
    """One of many trainings of a run, without prints and pictures; the model has been compiled.

    Args:
        run: The `Run`, prepared.
        names: Strings that name the training, and its folder in that of the run.
        model, batches, validation: As for `Training`.

    Returns:
        The `Training`, finished.
    """
    training = Training(run.part(*names), model, batches, validation, quiet=True)
    model.fit(
        training.batches,
        validation_data=training.validation,
        epochs=run.options.epochs,
        initial_epoch=training.initial_epoch,
        shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
        verbose=0,
        callbacks=training.callbacks,
    )
    training.finish()
    return training
