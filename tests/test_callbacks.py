"""Time budget, backtracking, and checkpoints that survive a kill."""

import shutil

import keras
import numpy as np
import pytest

from keras_sets import callbacks
from keras_sets import models


def small_model(learning_rate=0.1, dropout=0.0):
    keras.utils.set_random_seed(1)
    model = models.swarm(2, 3, hidden_units=4, iterations=2, dropout=dropout)
    model.compile(keras.optimizers.Adam(learning_rate), "mse")
    return model


def small_data():
    rng = np.random.default_rng(0)
    x = {"entities": rng.normal(size=(6, 5, 2)), "mask": np.ones((6, 5), bool)}
    return x, rng.normal(size=(6, 5, 3))


def epochs(callback, values, perturb=True):
    """Reports `values` of val_loss to a callback, with other weights in every epoch."""
    for epoch, value in enumerate(values):
        if perturb:
            for weight in callback.model.trainable_weights:
                weight.assign(np.full(weight.shape, float(epoch)))
        callback.on_epoch_end(epoch, {"val_loss": value})


class TestTimeBudget:
    def test_stops_when_the_time_is_used_up(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
        budget = callbacks.TimeBudget(minutes=1)
        budget.set_model(small_model())
        budget.on_train_begin()
        now[0] += 59
        budget.on_train_batch_end(0)
        assert not budget.model.stop_training
        now[0] += 0.5
        budget.on_train_batch_end(1)
        assert budget.elapsed == 59.5 and not budget.model.stop_training
        now[0] += 1
        budget.on_train_batch_end(2)
        assert budget.model.stop_training
        budget.on_train_end()
        now[0] += 1000  # not of training
        assert budget.elapsed == 60.5

    def test_counts_the_time_before_a_resume(self, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
        first = callbacks.TimeBudget(minutes=1)
        first.on_train_begin()
        now[0] += 40
        second = callbacks.TimeBudget(minutes=1)
        second.set_state(first.get_state())
        second.on_train_begin()
        now[0] += 10
        assert second.elapsed == pytest.approx(50)

    def test_counts_the_time_before_an_interrupt(self, monkeypatch):
        """Then `fit` has no end; the time until the next one is none of training."""
        now = 0.0
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: now)
        budget = callbacks.TimeBudget(minutes=2)
        budget.set_model(small_model())
        budget.on_train_begin()
        now = 100.0
        budget.on_train_batch_end(0)
        now = 1000.0
        budget.on_train_begin()
        assert budget.elapsed == 100
        assert not budget.model.stop_training
        now = 1020.0
        budget.on_train_batch_end(0)
        assert budget.model.stop_training

    def test_ends_a_fit_within_an_epoch(self):
        class Steps(keras.callbacks.Callback):
            count = 0

            def on_train_batch_end(self, batch, logs=None):
                self.count += 1

        model, steps = small_model(), Steps()
        x, y = small_data()
        budget = callbacks.TimeBudget(minutes=np.float32(1e-9))
        model.fit(x, y, batch_size=1, epochs=3, verbose=0, callbacks=[steps, budget])
        assert steps.count == 1

    @pytest.mark.parametrize("minutes", [0, -1, "ten", None, True])
    def test_bad_minutes(self, minutes):
        with pytest.raises(ValueError, match="minutes"):
            callbacks.TimeBudget(minutes)


class TestBacktracking:
    def make(self, **kwargs):
        callback = callbacks.Backtracking(**kwargs)
        callback.set_model(small_model(learning_rate=0.1))
        return callback

    def weights(self, callback):
        return float(keras.ops.convert_to_numpy(callback.model.trainable_weights[0]).flat[0])

    def learning_rate(self, callback):
        return float(callback.model.optimizer.learning_rate)

    def test_progress_changes_nothing(self):
        callback = self.make()
        epochs(callback, [3.0, 2.0, 2.5, 1.0])
        assert callback.returns == [] and self.weights(callback) == 3
        assert self.learning_rate(callback) == pytest.approx(0.1)

    def test_worst_value_returns_to_the_best_weights(self):
        callback = self.make(factor=0.5)
        epochs(callback, [3.0, 1.0, 2.0, 4.0])
        assert callback.returns == [3]
        assert self.weights(callback) == 1
        assert self.learning_rate(callback) == pytest.approx(0.05)

    def test_stagnation_returns_after_the_horizon(self):
        values = [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        callback = self.make()
        epochs(callback, values)
        # Worse than none of the last five epochs: the sixth value in a row.
        assert callback.returns == [6]
        assert self.weights(callback) == 1

    def test_a_return_is_given_the_horizon_to_help(self):
        callback = self.make(factor=0.5)
        # After the return nothing is better than the best, 1, nor worse than all before.
        epochs(callback, [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, *[2.0] * 5])
        assert callback.returns == [6]
        assert self.learning_rate(callback) == pytest.approx(0.05)
        resumed = self.make(factor=0.5)
        resumed.set_state(callback.get_state())
        for again in (callback, resumed):
            epochs(again, [2.0, 2.0])
            assert len(again.returns) == 2

    def test_a_long_horizon_waits_longer(self):
        values = [100.0, 50.0, 40.0, 90.0, *[51.0 + i for i in range(8)]]
        early, late = self.make(horizon=0.0), self.make(horizon=0.99)
        epochs(early, values)
        epochs(late, values)
        assert early.returns and not late.returns

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_a_value_that_is_not_finite_is_the_worst(self, value):
        callback = self.make()
        epochs(callback, [3.0, value])
        assert callback.returns == [1] and self.weights(callback) == 0
        # A value that was returned from is none to be better than.
        late = self.make()
        epochs(late, [value, 2.0, value, 3.0, 1.0])
        assert late.returns == [2] and self.weights(late) == 4
        worse = self.make()
        epochs(worse, [2.0, value, 3.0])
        assert worse.returns == [1, 2]

    def test_restores_the_optimizer_too(self):
        callback = self.make()
        model = callback.model
        x, y = small_data()
        model.fit(x, y, verbose=0)
        best = callbacks.model_state(model)
        callback.on_epoch_end(0, {"val_loss": 1.0})
        model.fit(x, y, verbose=0)
        callback.restore_best()
        for expected, restored in zip(best, callbacks.model_state(model), strict=True):
            np.testing.assert_array_equal(expected, restored)

    def test_returns_with_further_optimizers(self):
        callback = self.make(factor=0.5)
        second = callback.model.second = keras.optimizers.SGD(0.1, momentum=0.9)
        second.build(callback.model.trainable_variables)
        epochs(callback, [3.0])
        second.variables[-1].assign(second.variables[-1] + 1)
        epochs(callback, [4.0])
        assert (keras.ops.convert_to_numpy(second.variables[-1]) == 0).all()
        assert float(second.learning_rate) == self.learning_rate(callback) == pytest.approx(0.05)

    def test_unknown_quantity(self):
        callback = self.make(monitor="val_accuracy")
        with pytest.raises(ValueError, match="val_accuracy.*Available: val_loss"):
            callback.on_epoch_end(0, {"val_loss": 1.0})

    def test_a_learning_rate_that_follows_a_schedule(self):
        callback = self.make()
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
        callback.model.compile(keras.optimizers.Adam(schedule), "mse")
        with pytest.raises(ValueError, match="learning rate is a number. Received: .* schedule"):
            callback.on_train_begin()

    @pytest.mark.parametrize("arguments", [{"horizon": 1}, {"factor": 0}, {"factor": "half"}])
    def test_bad_arguments(self, arguments):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            callbacks.Backtracking(**arguments)

    def test_an_epoch_without_validation(self):
        with pytest.raises(ValueError, match="'val_loss', which.*validation_freq=1.*: loss$"):
            self.make().on_epoch_end(0, {"loss": 1.0})


def fit(directory, epochs, *others):
    """Trains to `epochs`, going on from what is in the directory."""
    model = small_model(dropout=0.3)
    backtracking = callbacks.Backtracking()
    checkpoint = callbacks.Checkpoint(directory, [backtracking])
    done = checkpoint.restore(model)
    x, y = small_data()
    history = model.fit(
        x,
        y,
        batch_size=2,
        shuffle=False,
        validation_data=(x, y),
        initial_epoch=done,
        epochs=epochs,
        verbose=0,
        callbacks=[backtracking, checkpoint, *others],
    )
    return callbacks.model_state(model), backtracking.best, history.history["loss"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a training of four epochs gives, and its directory as it was after each of them."""
    now, copies = tmp_path_factory.mktemp("now"), tmp_path_factory.mktemp("copies")
    copy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shutil.copytree(now, copies / str(epoch + 1))
    )
    return fit(now, 4, copy), copies


@pytest.fixture
def after(run, tmp_path):
    """`after(epochs)` puts there what a training that is killed then has left."""
    return lambda epochs: shutil.copytree(run[1] / str(epochs), tmp_path, dirs_exist_ok=True)


class TestCheckpoint:
    def test_resumed_equals_uninterrupted(self, run, after, tmp_path):
        (whole, whole_best, losses), _ = run
        after(2)
        resumed, best, last = fit(tmp_path, 4)
        assert last == losses[2:]
        for a, b in zip(whole, resumed, strict=True):
            np.testing.assert_array_equal(a, b)
        assert best == whole_best

    def test_keeps_the_last_files(self, after, tmp_path):
        after(4)
        assert [p.name for p in callbacks.Checkpoint(tmp_path).files()] == [
            "epoch-00003.npz",
            "epoch-00004.npz",
        ]

    @pytest.mark.parametrize("length", [0, 10, 0.5, 0.99])
    def test_truncated_file_is_reported_and_the_one_before_used(self, after, tmp_path, length):
        after(3)
        newest = tmp_path / "epoch-00003.npz"
        content = newest.read_bytes()
        newest.write_bytes(content[: int(length * len(content)) if length < 1 else length])
        model = small_model(dropout=0.3)
        checkpoint = callbacks.Checkpoint(tmp_path, [callbacks.Backtracking()])
        with pytest.warns(UserWarning, match="epoch-00003.npz is damaged.*the checkpoint before"):
            assert checkpoint.restore(model) == 2

    def test_flipped_bytes_are_noticed(self, after, tmp_path):
        after(2)
        newest = tmp_path / "epoch-00002.npz"
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 0xFF
        newest.write_bytes(bytes(content))
        checkpoint = callbacks.Checkpoint(tmp_path, [callbacks.Backtracking()])
        with pytest.warns(UserWarning, match="damaged"):
            assert checkpoint.restore(small_model(dropout=0.3)) == 1

    def test_no_intact_file(self, tmp_path):
        (tmp_path / "epoch-00001.npz").write_bytes(b"nothing")
        with (
            pytest.warns(UserWarning, match="damaged"),
            pytest.raises(callbacks.DamagedCheckpoint, match="None of the 1 checkpoints"),
        ):
            callbacks.Checkpoint(tmp_path).restore(small_model())

    @pytest.mark.parametrize(
        "make, optimizer, message",
        [
            (
                lambda: models.swarm(2, 3, hidden_units=5, iterations=2),
                "adam",
                "does not fit the model",
            ),
            # Its variables have the same shapes, and mean something else.
            (lambda: small_model(dropout=0.3), "adamw", "optimizer Adam, .*, AdamW"),
        ],
        ids=["model", "optimizer"],
    )
    def test_another_model_or_optimizer_changes_nothing(
        self, after, tmp_path, make, optimizer, message
    ):
        after(1)
        other = make()
        other.compile(optimizer, "mse")
        before = callbacks.model_state(other)
        checkpoint = callbacks.Checkpoint(tmp_path, [callbacks.Backtracking()])
        with pytest.raises(ValueError, match=message):
            checkpoint.restore(other)
        for a, b in zip(before, callbacks.model_state(other), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_metrics_of_a_model_are_no_state(self):
        """They start anew with every epoch, and a new process has none yet."""
        model = small_model()
        count = len(callbacks.model_state(model))
        model.own_metric = keras.metrics.Mean()
        assert len(callbacks.model_state(model)) == count

    def test_a_scaled_optimizer_goes_by_its_own_name(self, tmp_path):
        checkpoint = callbacks.Checkpoint(tmp_path)
        for name, message in (("adam", None), ("adamw", "optimizer Adam, .*, AdamW")):
            model = small_model()
            inner = keras.optimizers.get(name)
            model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
            if message is None:
                checkpoint.set_model(model)
                checkpoint.save(1)
            else:
                with pytest.raises(ValueError, match=message):
                    checkpoint.restore(model)

    def test_further_optimizers(self, tmp_path):
        """Those of a `train_step` of one's own."""

        def make(build=True):
            model = small_model()
            model.second = keras.optimizers.SGD(0.1, momentum=0.9)
            if build:
                model.second.build(model.trainable_variables)
            return model

        checkpoint, model = callbacks.Checkpoint(tmp_path), make()
        for variable in model.second.variables[2:]:
            variable.assign(variable + 0.5)
        checkpoint.set_model(model)
        checkpoint.save(1)
        with pytest.raises(ValueError, match="Build `model.second` first"):
            checkpoint.restore(make(build=False))
        restored = make()
        assert checkpoint.restore(restored) == 1
        for variable in restored.second.variables[2:]:
            assert (keras.ops.convert_to_numpy(variable) == 0.5).all()

    def test_other_callbacks(self, after, tmp_path):
        after(1)
        with pytest.raises(ValueError, match="Backtracking.*TimeBudget"):
            callbacks.Checkpoint(tmp_path, [callbacks.TimeBudget(1)]).restore(
                small_model(dropout=0.3)
            )

    def test_callbacks_without_a_state(self, tmp_path):
        with pytest.raises(ValueError, match="`callbacks`.*Received: EarlyStopping"):
            callbacks.Checkpoint(tmp_path, [keras.callbacks.EarlyStopping()])

    def test_a_model_that_is_not_compiled(self, after, tmp_path):
        after(1)
        checkpoint = callbacks.Checkpoint(tmp_path, [callbacks.Backtracking()])
        with pytest.raises(ValueError, match="`model` must be compiled"):
            checkpoint.restore(models.swarm(2, 3, hidden_units=4, iterations=2))

    def test_files_of_another_run_are_not_mistaken_for_its_own(self, after, tmp_path):
        """Only the last files stay, which those of a run that was longer would be."""
        after(3)
        kept = callbacks.Checkpoint(tmp_path).files()
        checkpoint = callbacks.Checkpoint(tmp_path, [callbacks.Backtracking()])
        with pytest.raises(ValueError, match="later epochs, up to 3.*begins epoch 0"):
            checkpoint.on_epoch_begin(0)
        assert checkpoint.restore(small_model(dropout=0.3)) == 3
        with pytest.raises(ValueError, match="initial_epoch=epoch"):
            checkpoint.on_epoch_begin(0)
        checkpoint.on_epoch_begin(3)
        assert checkpoint.files() == kept

    def test_damaged_files_are_written_anew(self, after, tmp_path):
        after(3)
        (tmp_path / "epoch-00003.npz").write_bytes(b"nothing")
        checkpoint = callbacks.Checkpoint(tmp_path, [callbacks.Backtracking()])
        with pytest.warns(UserWarning, match="damaged"):
            checkpoint.on_epoch_begin(checkpoint.restore(small_model(dropout=0.3)))

    def test_an_interrupted_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "file"
        callbacks.write_atomically(path, "old")
        monkeypatch.setattr(callbacks.os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            callbacks.write_atomically(path, "new")
        assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1

    def test_new_run_starts_at_zero(self, tmp_path):
        assert callbacks.Checkpoint(tmp_path / "none").restore(small_model()) == 0


@pytest.mark.parametrize("name", ["file", "file/folder"])
def test_a_folder_that_cannot_be_written_ends_before_training(name, tmp_path):
    (tmp_path / "file").write_text("")
    model, (x, y) = small_model(), small_data()
    before = [np.array(weight) for weight in model.get_weights()]
    with pytest.raises(ValueError, match="`directory`, expected a folder that can be written"):
        model.fit(x, y, verbose=0, callbacks=[callbacks.Checkpoint(tmp_path / name)])
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
