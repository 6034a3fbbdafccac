"""Training on several devices, and sets that are shared among them.

A process has one device here, so what needs more runs in `devices_worker.py`.
"""

import argparse
import csv
import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from examples.amortized_clustering import __main__ as command
from examples.common import callbacks
from examples.common import devices
from examples.common.options import RunError
from examples.common.run import Run
from keras_sets import losses
from tests import devices_worker

ROOT = pathlib.Path(__file__).parent.parent
BACKEND = keras.config.backend()


def worker(*arguments, **environment):
    """The result of one check, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices_worker", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def curves(path):
    """The numbers of the log of a run, or of its only part, by column."""
    (log,) = path.rglob("metrics.csv")
    with open(log) as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def check_curves(path, rtol, columns=("loss", "val_loss"), several="several"):
    """Those of several devices are those of one, and training has changed something."""
    one, several = curves(path / "one"), curves(path / several)
    assert len(one["loss"]) == len(several["loss"]) == 2 and one["loss"][0] != one["loss"][1]
    for column in columns:
        np.testing.assert_allclose(several[column], one[column], rtol, 1e-6, err_msg=column)


@pytest.fixture(scope="module")
def checked(tmp_path_factory, folder):
    path = tmp_path_factory.mktemp("devices")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {"JAX_PLATFORMS": "cpu", "TFDS_DATA_DIR": str(folder)}
    return path, worker("jax", path, XLA_FLAGS=flags, **environment)


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is for JAX")
class TestJAX:
    def test_curves_are_those_of_one_device(self, checked):
        """Four devices, then resumed on two."""
        path = checked[0] / "amortized_clustering"
        check_curves(path, 1e-5, ("loss", "val_loss", "ari", "val_ari", "learning_rate"))

    @pytest.mark.parametrize("name", list(devices_worker.EXAMPLES)[1:])
    def test_every_example_trains_as_on_one_device(self, checked, name):
        path, found = checked
        assert name in found["shared"]
        # A batch of 5 that is repeated counts as 10 in the mean over an epoch.
        columns = ("loss", "val_loss") if name != "point_clouds" else ("val_loss",)
        check_curves(path / name, 1e-5, columns)

    def test_a_sharded_set_gives_the_same(self, checked):
        for name, found in checked[1]["sharded"].items():
            assert found["outputs"] < 2e-6 and found["gradients"] < 2e-6, name

    def test_a_sharded_set_stays_sharded(self, checked):
        sharded = checked[1]["sharded"]
        assert not any(sharded[name]["gathers"] for name in ("swarm", "mean"))
        assert sharded["swarm"]["stays"]
        # The check can fail: a running sum does gather.
        assert sharded["causal_mean"]["gathers"]

    def test_documentation(self, checked):
        assert checked[1]["documentation"] < 1e-5


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
@pytest.mark.parametrize("name", ["amortized_clustering", "image_transformer"])
def test_curves_on_tensorflow_are_those_of_one_device(tmp_path, folder, name):
    worker("train_both", tmp_path, name, TFDS_DATA_DIR=str(folder))
    check_curves(tmp_path / name, 1e-5)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def processes(*arguments):
    """What processes that work together print last; None of one that dies."""
    port = free_port()
    address = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": f"localhost:{port}", "MASTER_PORT": port}
    address |= {"MASTER_ADDR": "localhost", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    number = {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2", "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.devices_worker", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **address, **number, "KERAS_DISTRIBUTION_PROCESS_ID": i, "RANK": i},
        )
        for i in "01"
    ]
    try:
        ended = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    assert started[0].returncode == 0, ended[0][1]
    return [json.loads(out.splitlines()[-1]) if "{" in out else None for out, _ in ended]


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is for JAX")
def test_two_processes_on_jax(tmp_path, monkeypatch, checked):
    """They train as one does. One dies: the other says so, and both go on from the checkpoint.

    So does an example, in whose folder process 0 alone writes.
    """
    path = checked[0] / "amortized_clustering"
    example = path / "processes"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.distribution, "initialize", lambda: None)
    shown = {}
    try:
        exec(devices_worker.documented("keras.distribution.initialize()"), shown)
    finally:
        keras.distribution.set_distribution(None)
    expected = shown["history"].history["loss"]
    assert len(expected) == 3 and expected[2] < 0.7 * expected[0]
    first, dead = processes("jax_process", example, tmp_path / "whole", tmp_path / "killed")
    np.testing.assert_allclose(first["losses"], [expected], rtol=1e-5)
    np.testing.assert_allclose(first["set_axis"], devices_worker.set_axis(), rtol=1e-5)
    assert dead is None and "Gloo" in first["error"]
    for resumed in processes("jax_process", example, tmp_path / "killed"):
        np.testing.assert_allclose(resumed["losses"], [expected[2:]], rtol=1e-5)
        assert resumed["error"] is None
    check_curves(path, 1e-5, ("loss", "val_loss", "ari", "val_ari"), "processes")
    assert (example / "log.txt").read_text().count("resumed after epoch 1") == 1
    assert (example / "scores.json").exists()


@pytest.mark.skipif(BACKEND != "torch", reason="torch.distributed is torch's")
def test_two_processes_on_torch(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    torch = pytest.importorskip("torch")
    code = devices_worker.documented("torch.distributed.init_process_group")
    shown = {}
    address = f"tcp://localhost:{free_port()}"
    alone = f'init_process_group("gloo", init_method="{address}", rank=0, world_size=1)'
    try:
        exec(code.replace('init_process_group("gloo")', alone), shown)
    finally:
        torch.distributed.destroy_process_group()
    assert shown["losses"][-1] < 0.3 * shown["losses"][0]
    first, dead = processes("torch_process")
    np.testing.assert_allclose(first["losses"], shown["losses"], rtol=1e-5)
    assert dead is None and "peer" in first["error"]


@pytest.mark.parametrize(
    "number, message",
    [
        ("0", "_NUM_PROCESSES: expected an integer of at least 1, received '0'"),
        pytest.param(
            "2",
            f"_NUM_PROCESSES: 2 processes need JAX, received the backend {BACKEND}",
            marks=pytest.mark.skipif(BACKEND == "jax", reason="JAX can"),
        ),
        pytest.param(
            "2",
            "--devices: expected a multiple of the 2 processes, received 1",
            marks=pytest.mark.skipif(BACKEND != "jax", reason="the others cannot at all"),
        ),
    ],
)
def test_processes_that_cannot_train(tmp_path, monkeypatch, capsys, number, message):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", number)
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "0")
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "localhost:1")
    with pytest.raises(SystemExit) as error:
        command.main(["--smoke", "--output", str(tmp_path / "run")])
    assert error.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bayesflow_needs_one_process(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(SystemExit):
        importlib.import_module("examples.simulation_based_inference.__main__").main([])
    assert "this example needs one process" in capsys.readouterr().err


class TestOneOfTwoProcesses:
    """Process 1, with what process 0 says given."""

    @pytest.fixture
    def hear(self, monkeypatch):
        monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
        monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "1")
        return lambda say: monkeypatch.setattr(devices, "gather", lambda own: [say(own), own])

    def test_the_clock_is_that_of_process_0(self, hear):
        budget = callbacks.TimeBudget(minutes=1)
        budget.set_model(types.SimpleNamespace(stop_training=False))
        budget.on_train_begin()
        for seconds, stops in ((59.0, False), (60.0, True)):
            hear(lambda own: seconds)  # noqa: B023
            budget.on_train_batch_end(0)
            assert budget.elapsed == seconds and budget.model.stop_training == stops

    def test_the_folder_is_that_of_process_0(self, hear, tmp_path):
        options = argparse.Namespace(output=str(tmp_path), free=(), log_to_stdout=True)
        run = Run("task", "name", options)
        hear(lambda own: 0)
        run.prepare()
        run.write_results("table", {})
        assert not list(tmp_path.iterdir()) and run.part("a").shared == tmp_path / "a"
        hear(lambda own: 1)
        with pytest.raises(RunError, match="Process 0 had to stop"):
            run.prepare()

    def test_options_have_to_be_the_same(self, hear):
        said = []
        hear(lambda own: said.append(own) or own)
        for seed, folder in ((0, "a"), (0, "b"), (1, "b")):
            devices.compare(argparse.Namespace(seed=seed, output=folder))
        assert said[0] == said[1] != said[2]
        hear(lambda own: said[2])
        with pytest.raises(RunError, match="different options"):
            devices.compare(argparse.Namespace(seed=0, output="a"))

    def test_every_process_has_its_share(self, hear):
        filled = devices.DivisibleBatches(Batches((np.arange(6), np.arange(6))), 4)
        np.testing.assert_array_equal(filled[0][0], np.arange(6))
        filled = devices.DivisibleBatches(Batches((np.arange(8), np.arange(8))), 4)
        np.testing.assert_array_equal(filled[0][0], np.arange(4, 8))


class Batches(keras.utils.PyDataset):
    """Batches that are given."""

    def __init__(self, *batches):
        super().__init__()
        self.batches = batches
        self.epoch = 0

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]

    def start_at(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self):
        self.epoch += 1


class TestDivisibleBatches:
    def batch(self, sets):
        points = np.arange(2.0 * sets).reshape(sets, 2)
        return {"entities": points, "mask": points > 1}, {"a": points, "b": -points}, points[:, 0]

    def test_a_batch_that_does_not_divide_is_repeated(self):
        given = Batches(self.batch(4), self.batch(6), self.batch(3))
        filled = devices.DivisibleBatches(given, 4)
        assert len(filled) == 3
        for index, repeats in enumerate((1, 2, 4)):
            inputs, targets, weights = filled[index]
            expected, expected_targets, expected_weights = given[index]
            assert inputs["mask"].dtype == "int8"
            for array, once in (
                (inputs["entities"], expected["entities"]),
                (inputs["mask"], expected["mask"]),
                (targets["a"], expected_targets["a"]),
                (targets["b"], expected_targets["b"]),
                (weights, expected_weights),
            ):
                np.testing.assert_array_equal(array, np.concatenate([once] * repeats))

    def test_batches_that_validate_are_repeated_alike(self):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(loss="mse")
        for sizes, repeats in (((8, 4), 1), ((4, 6), 2), ((8, 3), 4), ((6,), 2)):
            given = Batches(*map(self.batch, sizes))
            assert devices.repeats_of_all(model, given, 4) == repeats, sizes
        filled = devices.DivisibleBatches(Batches(self.batch(4), self.batch(6)), 4, repeats=2)
        assert [len(filled[i][2]) for i in range(2)] == [8, 12]

    def test_a_loss_that_divides_by_its_weights_sees_all_of_them(self):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(loss=losses.GaussianMixtureLoss())
        found = devices.repeats_of_all(model, Batches(self.batch(8)), 4)
        assert found == (4 if BACKEND == "tensorflow" else 1)

    def test_epochs_are_those_of_the_dataset(self):
        given = Batches()
        filled = devices.DivisibleBatches(given, 4)
        filled.start_at(2)
        assert given.epoch == 2
        filled.on_epoch_end()
        assert given.epoch == 3


def test_batch_normalization_needs_jax():
    """On TensorFlow it would take the statistics of every device alone."""
    plain, normalized = keras.layers.Dense(1), keras.layers.BatchNormalization(name="norm")
    devices.check(keras.Sequential([keras.Input((2,)), plain]))
    inner = keras.Sequential([keras.Input((1,)), normalized])
    network = keras.Sequential([keras.Input((2,)), plain, inner], name="network")
    if BACKEND != "tensorflow":
        devices.check(network)
        return
    with pytest.raises(RunError, match="network needs JAX.* normalization, norm"):
        devices.check(network)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--devices 0", "expected a positive integer, received '0'"),
        ("--devices 3", "argument --devices: expected a divisor of the batch size 4, received 3"),
        pytest.param(
            "--devices 99 --batch-size 99",
            "expected at most 1, the devices that jax has (cpu:0), received 99",
            marks=pytest.mark.skipif(BACKEND != "jax", reason="JAX's message"),
        ),
        pytest.param(
            "--devices 2",
            "2 devices need JAX or TensorFlow, received the backend torch",
            marks=pytest.mark.skipif(BACKEND != "torch", reason="torch's message"),
        ),
    ],
)
def test_devices_that_are_not_there(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        command.main(["--smoke", "--output", str(tmp_path / "run"), *arguments.split()])
    printed = capsys.readouterr().err
    assert error.value.code == 2 and message in printed
    assert not (tmp_path / "run").exists()
    if "99" in arguments:
        assert "--xla_force_host_platform_device_count=99" in printed


def test_every_example_has_the_option(monkeypatch):
    """Each shares its batches among as many devices as it is told before it does anything."""
    asked = []

    def distribute(count):
        asked.append(count)
        raise RunError("that is all")

    monkeypatch.setattr(devices, "distribute", distribute)
    for name in devices_worker.EXAMPLES:
        main = importlib.import_module(f"examples.{name}.__main__").main
        with pytest.raises(SystemExit):
            main(["--smoke", "--devices", "2", "--batch-size", "4"])
    assert asked == [2] * 11
    folders = {path.parent.name for path in ROOT.glob("examples/*/__main__.py")}
    assert folders - set(devices_worker.EXAMPLES) == {"simulation_based_inference"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--accumulate 4 --batch-size 12", "multiple of 4 times 2 devices"),
        ("--sample model.keras", "--sample and --prepare-from train nothing"),
    ],
)
def test_options_that_exclude_several_devices(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(devices, "distribute", lambda count: None)
    main = importlib.import_module("examples.image_transformer.__main__").main
    with pytest.raises(SystemExit):
        main(["--devices", "2", *arguments.split()])
    assert message in capsys.readouterr().err
