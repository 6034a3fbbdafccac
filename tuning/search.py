"""The search: Keras Tuner proposes, the examples' training scores."""

import json
import math
import os
import shutil
import time

import keras
import keras_tuner
import numpy as np

from examples.common import options as common
from examples.common.training import Training
from keras_sets import callbacks
from tuning import search_spaces
from tuning import workers

OBJECTIVE = "val_loss"
# Trials at random before the Gaussian process decides. Keras Tuner's default is three for each
# hyperparameter, which leaves nothing of a search of a dozen trials.
RANDOM_TRIALS = 6


class OutOfTime(keras_tuner.errors.FatalError):
    """The time budget is used up; the trial at hand is not over."""


class _ResumableOracle:
    """Makes an oracle's files good for going on after a kill at any moment.

    Every file is written at once or not at all. The oracle's own file says which trials there
    are; a trial that it does not know had not begun.
    """

    def populate_space(self, trial_id):
        # The Gaussian process draws its starts from a generator that is not saved.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        return super().populate_space(trial_id)

    def save(self):
        callbacks.write_atomically(self._get_oracle_fname(), json.dumps(self.get_state()))

    def _save_trial(self, trial):
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        callbacks.write_atomically(path, json.dumps(trial.get_state()))

    def reload(self):
        super().reload()
        self.trials = {trial_id: self.trials[trial_id] for trial_id in self.start_order}
        interrupted, self._retry_queue = self._retry_queue, []
        for trial_id in interrupted:
            trial = self.trials[trial_id]
            if trial.status not in ("COMPLETED", "FAILED"):
                trial.metrics = type(trial.metrics)()
                self._retry_queue.append(trial_id)
            elif trial_id not in self.end_order:
                self.end_order.append(trial_id)


def make_oracle(options, space):
    """The oracle of `options.tuner` over the hyperparameters of a search space."""
    kind, arguments = {
        "random": (keras_tuner.oracles.RandomSearchOracle, {"max_trials": options.max_trials}),
        "bayesian": (
            keras_tuner.oracles.BayesianOptimizationOracle,
            {"max_trials": options.max_trials, "num_initial_points": RANDOM_TRIALS},
        ),
        # Brackets follow each other until there are enough trials.
        "hyperband": (
            keras_tuner.oracles.HyperbandOracle,
            {"max_epochs": options.epochs, "hyperband_iterations": None},
        ),
    }[options.tuner]
    hyperparameters = keras_tuner.HyperParameters()
    space(hyperparameters, options)
    oracle = type("Oracle", (_ResumableOracle, kind), {})(
        objective=keras_tuner.Objective(OBJECTIVE, "min"),
        hyperparameters=hyperparameters,
        seed=options.seed + 1,  # Keras Tuner takes 0 for no seed
        **arguments,
    )
    oracle.max_trials = options.max_trials
    oracle.verbose = 0
    return oracle


class Search(keras_tuner.Tuner):
    """Trains and scores the networks that an oracle proposes.

    Every trial is a training of the task's example, with the example's checkpoints, in a folder
    of its own below the run's. A trial that was killed goes on from its last epoch.

    Args:
        run: `examples.common.run.Run`, prepared; its options are those of the search.
        task: `tuning.search_spaces.Task`.
        arguments: Arguments of the example's command line that all trials share.
        role: "chief" and "worker" in a distributed search, else None.
        after_trial: Function without arguments, called when a trial is over.
    """

    def __init__(self, run, task, arguments, role=None, after_trial=lambda: None):
        self.run = run
        self.task = task
        self.arguments = arguments
        self.role = role
        self.after_trial = after_trial
        minutes = run.options.time_budget or math.inf
        self.deadline = Deadline(time.monotonic() + 60 * minutes)
        oracle = make_oracle(run.options, task.space)
        path = run.path.resolve()
        super().__init__(oracle, directory=path.parent, project_name=path.name)
        if role == "chief":
            # Keras Tuner's chief waits for the workers that have asked it for a trial. One that
            # starts slowly would find it gone when others have done all trials.
            oracle.tuner_ids.update(workers.siblings())
        if role != "worker" and (run.path / "oracle.json").exists():
            try:
                self.oracle.reload()
            except Exception as error:  # of many types, by what is wrong with the files
                raise common.RunError(
                    f"The search in {run.path} cannot go on, oracle.json or a trial.json in it "
                    f"cannot be read: {common.first_line(error)}"
                ) from error

    def load_data(self):
        """Reads or draws the data of all trials; raises ValueError when they cannot be had."""
        options = self._options_of(keras_tuner.HyperParameters())
        self.data = self.task.module("data").training_data(options)

    def save(self):
        # The tuner itself has no state.
        if self.role != "worker":
            self.oracle.save()

    def pre_create_trial(self):
        self.deadline.check()

    def run_trial(self, trial):
        """Trains the network of a trial and returns its numbers."""
        options = self._options_of(trial.hyperparameters)
        part = self.run.part(f"trial_{trial.trial_id}")
        part.options = options
        values = trial.hyperparameters.values
        if "tuner/trial_id" in values:
            self._begin_with(part, values["tuner/trial_id"])
        count = f"{int(trial.trial_id) + 1} of {self.run.options.max_trials}"
        title = f"trial {trial.trial_id} ({count})"
        print(f"{title}: {describe(values)}, {options.epochs} epochs", flush=True)

        keras.utils.clear_session()
        keras.config.set_dtype_policy(options.dtype_policy)
        keras.utils.set_random_seed(options.seed)
        model = self.task.module("model").compiled(options)
        batches, validation = self.data
        training = Training(part, model, batches, validation, quiet=True)
        model.fit(
            training.batches,
            validation_data=training.validation,
            epochs=options.epochs,
            initial_epoch=training.initial_epoch,
            shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
            verbose=0,
            callbacks=[self.deadline, *training.callbacks],
        )
        training.finish()
        if not math.isfinite(training.best):
            raise keras_tuner.errors.FailedTrialError(f"No epoch had a finite {OBJECTIVE}.")
        score, parameters, seconds = training.best, model.count_params(), training.seconds
        for_use = getattr(self.task.module("model"), "for_use", None)
        if for_use is not None:
            # What is trained answers after several steps: its loss depends on how many they are.
            network = for_use(model, options)
            network.compile(loss=model.loss)
            score = float(network.evaluate(validation, verbose=0))
            part.save_model(network)
        print(
            f"{title}: {OBJECTIVE} {score:.4f}, {parameters:,} parameters, {seconds:.1f} s",
            flush=True,
        )
        return {OBJECTIVE: score, "parameters": parameters, "seconds": seconds}

    def _options_of(self, hyperparameters):
        """The example's options of a trial."""
        chosen = self.task.space(hyperparameters, self.run.options)
        options = self.task.parse([*self.arguments, *search_spaces.as_arguments(chosen)])
        # The time is that of the search, and the learning rate must not depend on it.
        options.resume, options.time_budget = True, None
        options.epochs = hyperparameters.values.get("tuner/epochs", options.epochs)
        return options

    def _begin_with(self, part, trial_id):
        """Lets a trial go on where another one ended, unless it has done so before."""
        target = part.path / "checkpoints"
        if not target.exists():
            copy = part.path / "checkpoints.part"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.run.path / f"trial_{trial_id}" / "checkpoints", copy)
            copy.rename(target)

    def on_trial_end(self, trial):
        if trial.status != "COMPLETED":
            # Keras Tuner has printed all of the traceback.
            reason = trial.message.strip().splitlines()[-1]
            print(f"trial {trial.trial_id} failed: {reason}", flush=True)
        super().on_trial_end(trial)
        self.after_trial()


def describe(values):
    """Hyperparameters as text, without those that Keras Tuner adds."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if "/" not in name
    )


class Deadline(keras.callbacks.Callback):
    """Interrupts the search after the batch in which its time is over.

    The trial's epochs that are complete have been saved, and the trial goes on from there.
    """

    def __init__(self, moment):
        super().__init__()
        self.moment = moment

    def check(self):
        if time.monotonic() >= self.moment:
            raise OutOfTime

    def on_train_batch_end(self, batch, logs=None):
        self.check()
