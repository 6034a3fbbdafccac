"""Searches for hyperparameters: kills and resuming, chief and workers, results, bad input."""

import argparse
import contextlib
import csv
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.src.distribute import oracle_chief
from keras_tuner.src.distribute import oracle_client

from examples.power_spectrum import data as power_spectrum
from examples.power_spectrum import model as power_spectrum_model
from keras_sets import losses
from tests.conftest import THOROUGH
from tests.conftest import shortened
from tuning import __main__ as command
from tuning import results
from tuning import search
from tuning import search_spaces
from tuning import workers

pytestmark = pytest.mark.usefixtures("sketches")
ROOT = pathlib.Path(__file__).resolve().parent.parent
# The task whose networks compile fastest.
TRIALS = 3 if keras.config.backend() == THOROUGH else 2
SWEEP = ["--task", "power-spectrum", "--smoke", "--max-trials", TRIALS]
SWEEP += shortened("--optimizer adam")
TUNERS = ["random", "hyperband", "bayesian"]


def call(*arguments):
    command.main([str(argument) for argument in arguments])


def table(path):
    """The table of results without the seconds."""
    with open(path / "results.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


class Killed(BaseException):
    """What no program can catch."""


class WithoutTraining(search.Search):
    """A search whose scores are a function of the hyperparameters."""

    def run_trial(self, trial):
        values = trial.hyperparameters.values
        score = np.log(values["width"]) + abs(np.log(values["learning_rate"]) + 5)
        score += values["dropout"] + 1 / values.get("tuner/epochs", 1)
        return {"val_loss": float(score), "parameters": values["width"], "seconds": 1.0}


def make_search(path, tuner="random", max_trials=5, seed=0, role=None):
    path.mkdir(exist_ok=True)
    options = argparse.Namespace(
        tuner=tuner,
        max_trials=max_trials,
        seed=seed,
        epochs=9,
        time_budget=None,
        widths=[8, 16, 32],
        depths=[1, 2],
        iterations=[2, 5],
    )
    run = argparse.Namespace(path=path, options=options)
    return WithoutTraining(run, search_spaces.TASKS["clustering"], [], role)


def rows_of(path, **arguments):
    make_search(path, **arguments).search()
    return results.read_trials(path)


class TestOracle:
    @pytest.mark.parametrize("tuner", TUNERS)
    def test_killed_before_any_write(self, tmp_path, monkeypatch, tuner, thorough):
        """Whatever file was not written any more: no trial is lost and none counts twice."""
        # Of the Gaussian process one trial only: it takes a second for each.
        trials = search.RANDOM_TRIALS + 1 if tuner == "bayesian" else 5
        stride = 5 if tuner == "bayesian" or not thorough else 1
        whole = rows_of(tmp_path / "whole", tuner=tuner, max_trials=trials)
        assert len(whole) == trials
        write = search.callbacks.write_atomically
        left = [0]

        def write_or_die(path, content):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            write(path, content)

        monkeypatch.setattr(search.callbacks, "write_atomically", write_or_die)
        kills = 0
        for writes in range(0, 1000, stride):
            left[0] = writes
            path = tmp_path / f"killed-{writes}"
            try:
                make_search(path, tuner, trials).search()
                break
            except Killed:
                kills += 1
            left[0] = -1
            assert rows_of(path, tuner=tuner, max_trials=trials) == whole, writes
            ended = make_search(path, tuner, trials).oracle.end_order
            assert sorted(ended) == [row["trial"] for row in whole]
        assert kills >= 6 * trials / stride - 1

    def test_killed_again_and_again(self, tmp_path, monkeypatch):
        whole = rows_of(tmp_path / "whole")
        write = search.callbacks.write_atomically
        calls = []

        def write_or_die(path, content):
            calls.append(path)
            if len(calls) % 8 == 0:
                raise Killed
            write(path, content)

        monkeypatch.setattr(search.callbacks, "write_atomically", write_or_die)
        for kills in range(20):  # noqa: B007
            try:
                rows = rows_of(tmp_path / "killed")
                break
            except Killed:
                pass
        assert kills > 2 and rows == whole

    @pytest.mark.parametrize("tuner", ["random", "hyperband"])
    def test_seed(self, tmp_path, tuner):
        # 0 is no seed for Keras Tuner, but one for us.
        first, again, other = (
            rows_of(tmp_path / name, tuner=tuner, seed=seed)
            for name, seed in (("a", 0), ("b", 0), ("c", 1))
        )
        assert first == again != other

    def test_more_trials_later(self, tmp_path):
        few = rows_of(tmp_path / "run", max_trials=3)
        assert len(few) == 3
        assert rows_of(tmp_path / "run", max_trials=5) == rows_of(tmp_path / "all", max_trials=5)

    def test_gaussian_process_is_at_work(self, tmp_path):
        trials = search.RANDOM_TRIALS + 1
        bayesian = rows_of(tmp_path / "bayesian", tuner="bayesian", max_trials=trials)
        random = rows_of(tmp_path / "random", max_trials=trials)
        assert bayesian[:-1] == random[:-1] and bayesian[-1] != random[-1]

    def test_no_finite_score(self, tmp_path, monkeypatch):
        class Diverging(WithoutTraining):
            def run_trial(self, trial):
                if trial.trial_id == "1":
                    raise search.keras_tuner.errors.FailedTrialError("astray")
                return super().run_trial(trial)

        found = make_search(tmp_path / "run", max_trials=3)
        found.__class__ = Diverging
        found.search()
        rows = results.write_table(tmp_path / "run")
        assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
        assert len(results.completed(rows)) == 2 and results.best_of(rows)["trial"] != "1"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished search."""
    path = tmp_path_factory.mktemp("tuning") / "sweep"
    call(*SWEEP, "--output", path)
    return path


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tuning", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class TestSearch:
    def test_results(self, sweep, thorough):
        rows = table(sweep)
        assert [row["trial"] for row in rows] == [str(i) for i in range(TRIALS)]
        assert {row["status"] for row in rows} == {"completed"}
        for row in rows:
            network = power_spectrum_model.note_network(int(row["depth"]), int(row["width"]), 4)
            assert int(row["parameters"]) == network.count_params()
            assert 2e-4 <= float(row["learning_rate"]) <= 1e-2
        for name in ("results.png", "heat_map.png"):
            assert (sweep / name).stat().st_size > 1000 * thorough - 1

    def test_best_model(self, sweep):
        """It has the score of the table on the data that validate."""
        best = min(float(row["score"]) for row in table(sweep))
        model = keras.models.load_model(sweep / "best.keras")
        model.compile(loss=power_spectrum_model.log_power_error)
        options = search_spaces.TASKS["power-spectrum"].parse(["--smoke", "--figure", "2"])
        _, (inputs, powers) = power_spectrum.training_data(options)
        assert model.evaluate(inputs, powers, verbose=0) == pytest.approx(best, rel=1e-5)

    def test_the_same_command_again(self, sweep, capsys):
        before = table(sweep)
        call(*SWEEP, "--output", sweep)
        assert table(sweep) == before
        assert f"of {TRIALS}): " not in capsys.readouterr().out

    @pytest.fixture(scope="class")
    def interrupted(self, tmp_path_factory):
        """The folder of a search whose time is over within its second trial, and its output."""
        path, calls, printed = tmp_path_factory.mktemp("interrupted") / "run", [], io.StringIO()

        def check(deadline):
            calls.append(deadline)
            # In the second epoch of the second trial, of two steps each.
            if len(calls) == 9:
                raise search.OutOfTime

        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(search.Deadline, "check", check)
            call(*SWEEP, "--output", path)
        return path, printed.getvalue()

    def test_killed_and_resumed(self, sweep, interrupted, tmp_path, thorough):
        path = tmp_path / "killed"
        if thorough:
            process = start(*SWEEP, "--output", path)
            deadline = time.monotonic() + 300
            while not (path / "trial_1" / "checkpoints" / "epoch-00001.npz").exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        else:
            shutil.copytree(interrupted[0], path)
        states = [row["status"] for row in results.read_trials(path)]
        assert states.count("completed") < TRIALS, "the search ended before it was killed"
        call(*SWEEP, "--output", path)
        assert table(path) == table(sweep)

    def test_time_budget(self, sweep, interrupted, tmp_path, thorough):
        path = shutil.copytree(interrupted[0], tmp_path / "run")
        assert [row["status"] for row in table(path)] == ["completed", "unfinished"]
        assert (path / "trial_1" / "checkpoints" / "epoch-00001.npz").exists()
        assert "time budget is used up" in interrupted[1]
        call(*SWEEP, "--output", path, "--time-budget", "1e-9")
        assert [row["status"] for row in table(path)] == ["completed", "unfinished"]
        if thorough:  # the test before this one goes on as well
            call(*SWEEP, "--output", path, "--time-budget", "100")
            assert table(path) == table(sweep)

    @pytest.mark.usefixtures("on_one_backend")
    def test_hyperband_goes_on_with_the_best(self, tmp_path):
        path = tmp_path / "run"
        options = ["--tuner", "hyperband", "--epochs", 3, "--max-trials", 4]
        call(*SWEEP, *options, *shortened("--widths 4 --depths 1"), "--output", path)
        rows = table(path)
        assert [row["tuner/epochs"] for row in rows] == ["1", "1", "1", "3"]
        first = min(rows[:3], key=lambda row: float(row["score"]))
        assert rows[3]["tuner/trial_id"] == first["trial"]

        def losses_of(row):
            with open(path / f"trial_{row['trial']}" / "metrics.csv", newline="") as file:
                return [epoch["val_loss"] for epoch in csv.DictReader(file)]

        assert len(losses_of(rows[3])) == 3 and losses_of(rows[3])[:1] == losses_of(first)
        # The command of a trial has its epochs.
        task = search_spaces.TASKS["power-spectrum"]
        space = types.SimpleNamespace(widths=[4, 8], depths=[1, 2])
        commands = [results.chosen(task, space, row) for row in results.read_trials(path)]
        assert [options["epochs"] for options in commands] == [1, 1, 1, 3]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--task", "clustering", "--tasks", 20, "--entities", 10, 10, "--tuner", "bayesian"],
            ["--task", "mixture", "--points", 10, 10],
            ["--task", "images", "--images", 20],
        ],
        ids=["clustering", "mixture", "images"],
    )
    def test_tasks(self, tmp_path, capsys, monkeypatch, arguments):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
        path = tmp_path / "run"
        small = shortened("--widths 4 --depths 1 --iterations 2 --optimizer adam")
        call(*arguments, *small, *"--smoke --epochs 1 --max-trials 1 --output".split(), path)
        (row,) = table(path)
        assert row["status"] == "completed" and np.isfinite(float(row["score"]))
        # The printed command is that of the trial.
        (words,) = [
            line.split()
            for line in capsys.readouterr().out.splitlines()
            if line.startswith("python -m examples")
        ]
        task = search_spaces.TASKS[arguments[1]]
        assert words[2] == f"examples.{task.example}"
        options = task.parse(words[3:])
        assert (options.hidden, options.layers) == (int(row["width"]), int(row["depth"]))
        assert options.time_budget == np.inf
        model = keras.models.load_model(path / "best.keras")
        assert model.count_params() == int(row["parameters"])
        if task.example == "amortized_clustering":  # the answer of the last step alone is scored
            assert model.output.shape == (None, None, 10)
            model.compile(loss=losses.MatchedCrossentropy())
            _, validation = task.module("data").training_data(options)
            score = model.evaluate(validation, verbose=0)
            assert score == pytest.approx(float(row["score"]), rel=1e-5)


@pytest.mark.parametrize(
    "block, feed_forward, heads",
    [("none", None, None), ("feed-forward", 16, None), ("attention", 16, 4)],
)
def test_blocks_of_images(block, feed_forward, heads):
    hp = keras_tuner.HyperParameters()
    hp.Fixed("block", block)
    task = search_spaces.TASKS["images"]
    space = types.SimpleNamespace(widths=[8], depths=[2], iterations=[3])
    options = task.parse(search_spaces.as_arguments(task.space(hp, space)))
    assert (options.feed_forward, options.heads) == (feed_forward, heads)
    assert (options.hidden, options.layers, options.iterations) == (8, 2, 3)


def worker_here(arguments, env, **options):
    """Starts a chief; a worker does its work in this process, which starts for nothing."""
    if env["KERASTUNER_TUNER_ID"] == "chief":
        return subprocess.Popen(arguments, env=env, **options)
    with pytest.MonkeyPatch.context() as patch:
        for name in workers.VARIABLES:
            patch.setenv(name, env[name])
        call(*arguments[3:])
    return types.SimpleNamespace(poll=lambda: 0, kill=list, wait=list, stdin=io.StringIO())


class TestWorkers:
    def test_chief_and_workers(self, sweep, tmp_path, capsys, monkeypatch, thorough):
        """They share one oracle, whose trials are those of a search in one process."""
        path = tmp_path / "run"
        if not thorough:
            starts = types.SimpleNamespace(Popen=worker_here, PIPE=subprocess.PIPE)
            monkeypatch.setattr(workers, "subprocess", starts)
        call(*SWEEP, "--output", path, "--workers", 2 if thorough else 1)
        assert len(table(path)) == TRIALS and list(table(path)[0]) == list(table(sweep)[0])
        for row, expected in zip(table(path), table(sweep), strict=True):
            for name in ("score", "learning_rate"):  # these travel in single precision
                assert float(row.pop(name)) == pytest.approx(float(expected.pop(name)), rel=1e-5)
            assert row == expected
        for row in results.read_trials(path):
            trial = json.loads((path / f"trial_{row['trial']}" / "trial.json").read_text())
            assert trial["score"] == row["score"] and trial["status"] == "COMPLETED"
        assert keras.models.load_model(path / "best.keras").count_params() > 0
        # Nothing is left to do, neither for workers nor for one process.
        before = table(path)
        capsys.readouterr()
        call(*SWEEP, "--output", path)
        assert table(path) == before
        assert f"of {TRIALS}): " not in capsys.readouterr().out

    def test_the_chief_waits_for_a_worker_that_starts_late(self, tmp_path, monkeypatch):
        """A fast one may have done all trials before it asks for its first."""
        monkeypatch.setenv(workers.CHILD, "worker0 worker1")
        path = tmp_path / "run"
        make_search(path).search()
        oracle = make_search(path, role="chief").oracle
        for name in ("worker0", "worker1"):
            assert not oracle_chief.exit_chief(oracle)
            assert oracle.create_trial(name).status == "STOPPED"
        assert oracle_chief.exit_chief(oracle)

    def test_a_worker_without_a_chief(self, tmp_path, capsys, monkeypatch):
        for name, value in zip(
            workers.VARIABLES, ("worker0", "127.0.0.1", workers.free_port()), strict=True
        ):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(oracle_client, "TIMEOUT", 0.1)
        with pytest.raises(SystemExit):
            call(*SWEEP, "--output", tmp_path / "run")
        assert "the chief of the search has ended or cannot" in capsys.readouterr().err

    def test_a_process_that_fails_ends_the_search(self):
        assert "ended with exit code 2" in workers.run(["--task", "no such task"], 2)

    def test_children_end_with_their_parent(self):
        code = "from tuning import workers; workers.end_with_parent(); import time; time.sleep(99)"
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            env={**os.environ, workers.CHILD: "1"},
        )
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1)
        child.stdin.close()
        assert child.wait(60) == 1

    def test_role(self, monkeypatch):
        assert workers.own_role() is None
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        with pytest.raises(ValueError, match="KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_PORT$"):
            workers.own_role()
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8000")
        for name, role in (("chief", "chief"), ("worker3", "worker")):
            monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
            assert workers.own_role() == role


class TestBadInput:
    def fails(self, capsys, *arguments):
        with pytest.raises(SystemExit) as error:
            call(*arguments)
        assert error.value.code == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--task", "chess"], "'clustering', 'mixture', 'power-spectrum', 'images'"),
            (["--tuner", "grid"], "'random', 'hyperband', 'bayesian'"),
            ([*SWEEP, "--max-trials", "0"], "expected a positive integer, received '0'"),
            ([*SWEEP, "--time-budget", "0"], "expected a positive number"),
            ([*SWEEP, "--widths", "8", "x"], "expected a positive integer, received 'x'"),
            ([*SWEEP, "--workers", "-1"], "expected a non-negative integer"),
            ([*SWEEP, "--no-such-option"], "unrecognized arguments: --no-such-option"),
            ([*SWEEP, "--learning-rate", "0.1"], "--learning-rate: a search chooses this"),
            ([*SWEEP, "--figure", "5"], "--figure: a search chooses this"),
            ([*SWEEP, "--initial-model", "x.keras"], "--initial-model: a search"),
            ([*SWEEP, "--tuner", "hyperband", "--schedule", "cosine"], "--schedule: a search"),
            ([*SWEEP, "--networks", "circle"], "--networks: a search"),
            ([*SWEEP, "--repeats", "3"], "--repeats: a search"),
            (["--task", "images", "--feed-forward", "8"], "--feed-forward: a search chooses this"),
            (["--task", "images", "--heads", "2"], "--heads: a search chooses this"),
        ],
        ids=str,
    )
    def test_options(self, tmp_path, capsys, arguments, message):
        path = tmp_path / "run"
        assert message in self.fails(capsys, *arguments, "--output", path)
        assert not path.exists()

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--tuner", "bayesian"], "tuner was 'random', is 'bayesian'"),
            (["--seed", "7"], "seed was 0, is 7"),
            (["--widths", "4", "16"], "widths was [4, 8], is [4, 16]"),
            (["--epochs", "9"], "epochs was 2, is 9"),
            (["--samples", "33"], "samples was 32, is 33"),
            (["--task", "mixture"], "task was 'power-spectrum', is 'mixture'"),
        ],
        ids=str,
    )
    def test_another_search(self, sweep, capsys, arguments, message):
        before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
        assert message in self.fails(capsys, *SWEEP, *arguments, "--output", sweep)
        assert before == {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}

    @pytest.mark.usefixtures("on_one_backend")
    def test_trials_of_other_epochs_do_not_compare(self, tmp_path, capsys):
        options = [*SWEEP, "--schedule", "constant", "--output", tmp_path / "run", "--max-trials"]
        call(*options, 1)
        assert "epochs was 2, is 3" in self.fails(capsys, *options, 2, "--epochs", 3)

    def test_data_that_cannot_be_had(self, tmp_path, capsys, monkeypatch):
        def unavailable(options):
            raise ValueError("no network")

        monkeypatch.setattr(power_spectrum, "training_data", unavailable)
        assert "no network" in self.fails(capsys, *SWEEP, "--output", tmp_path / "run")

    def test_files_of_others(self, tmp_path, capsys):
        (tmp_path / "thesis.txt").write_text("years of work")
        assert "not a search" in self.fails(capsys, *SWEEP, "--output", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_workers_of_workers(self, tmp_path, capsys, monkeypatch):
        for name, value in zip(workers.VARIABLES, ("worker0", "127.0.0.1", "8000"), strict=True):
            monkeypatch.setenv(name, value)
        assert "--workers" in self.fails(capsys, *SWEEP, "--workers", "2", "--output", tmp_path)
