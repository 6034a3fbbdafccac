"""Training on several devices, and sets that are shared among them.

A process has one device here, so what needs more runs in `devices_worker.py`.
"""

import csv
import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from examples.amortized_clustering import __main__ as command
from examples.amortized_clustering import data
from examples.common import devices
from keras_sets import losses
from keras_sets import metrics
from tests import devices_worker

ROOT = pathlib.Path(__file__).parent.parent
BACKEND = keras.config.backend()
# Batches of 6 divide by 2 devices, not by 4, and neither do the 4 sets that validate. A busy
# machine does not use up the time budget.
RUN = (
    "--smoke --model swarm --buckets 1 --entities 20 20 --batch-size 6 --schedule constant".split()
)
RUN += "--time-budget 60".split()


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
    """All numbers of a run's log but the time, `(epochs, columns)`."""
    with open(path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name != "seconds"]
    assert {"loss", "val_loss", "ari", "val_ari"} <= set(columns)
    return np.array([[float(row[name]) for name in columns] for row in rows])


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution is for JAX")
class TestJAX:
    @pytest.fixture(scope="class")
    def checked(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("devices")
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
        return path, worker("jax", path, *RUN, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")

    def test_curves_are_those_of_one_device(self, checked):
        """Four devices, then resumed on two."""
        path, _ = checked
        one, several = curves(path / "one"), curves(path / "several")
        assert one.shape[0] == several.shape[0] == 2
        np.testing.assert_allclose(several, one, rtol=1e-5, atol=1e-6)
        assert (one[0] != one[1]).sum() > 3

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
@pytest.mark.usefixtures("no_rendering")
def test_curves_on_tensorflow_are_those_of_one_device(tmp_path):
    one, several = tmp_path / "one", tmp_path / "several"
    worker("train", *RUN, "--epochs", 2, "--output", several, "--devices", 4, "--cpu")
    command.main([*RUN, "--epochs", "2", "--output", str(one)])
    np.testing.assert_allclose(curves(several), curves(one), rtol=1e-4, atol=1e-5)


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
def test_two_processes_on_jax(tmp_path, monkeypatch):
    """They train as one does. One dies: the other says so, and both go on from the checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.distribution, "initialize", lambda: None)
    shown = {}
    try:
        exec(devices_worker.documented("keras.distribution.initialize()"), shown)
    finally:
        keras.distribution.set_distribution(None)
    expected = shown["history"].history["loss"]
    assert len(expected) == 3 and expected[2] < 0.7 * expected[0]
    first, dead = processes("jax_process", tmp_path / "whole", tmp_path / "killed")
    np.testing.assert_allclose(first["losses"], [expected], rtol=1e-5)
    np.testing.assert_allclose(first["set_axis"], devices_worker.set_axis(), rtol=1e-5)
    assert dead is None and "Gloo" in first["error"]
    for resumed in processes("jax_process", tmp_path / "killed"):
        np.testing.assert_allclose(resumed["losses"], [expected[2:]], rtol=1e-5)
        assert resumed["error"] is None


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


class TestDivisibleBatches:
    tasks = data.generate_tasks(10, entities=(8, 12))
    plain = data.ClusteringDataset(tasks, 4, buckets=1, rotate=True)
    filled = devices.DivisibleBatches(plain, 4)

    def test_batches(self):
        assert len(self.filled) == len(self.plain) == 3
        for i, sets in enumerate((4, 4, 2)):
            inputs, labels = self.plain[i]
            filled_inputs, filled_labels, weights = self.filled[i]
            assert weights.dtype == "float32"
            np.testing.assert_array_equal(weights, np.where(np.arange(4) < sets, 4 / sets, 0))
            assert filled_inputs["mask"].dtype == "int8"
            for array, whole in (
                (inputs["entities"], filled_inputs["entities"]),
                (inputs["mask"], filled_inputs["mask"]),
                (labels, filled_labels),
            ):
                assert len(whole) == 4
                np.testing.assert_array_equal(whole[:sets], array)

    def test_loss_and_metrics_are_those_of_the_batch(self):
        _, labels = self.plain[2]
        _, filled_labels, weights = self.filled[2]
        logits = np.random.default_rng(0).normal(size=(4, 12, 10)).astype("float32")
        loss = losses.MatchedCrossentropy()
        expected = float(loss(labels, logits[:2]))
        filled = float(loss(filled_labels, logits, sample_weight=weights))
        assert filled == pytest.approx(expected, rel=1e-6)
        assert float(loss(filled_labels, logits)) != pytest.approx(expected, rel=1e-3)
        values = []
        for arguments in ((labels, logits[:2]), (filled_labels, logits, weights)):
            accuracy = metrics.MatchedAccuracy()
            accuracy.update_state(*arguments)
            values.append(float(accuracy.result()))
        assert values[1] == pytest.approx(values[0], rel=1e-6)

    def test_epochs_are_those_of_the_dataset(self):
        filled = devices.DivisibleBatches(data.ClusteringDataset(self.tasks, 4, buckets=1), 4)
        other = data.ClusteringDataset(self.tasks, 4, buckets=1)
        filled.start_at(2)
        filled.on_epoch_end()
        other.start_at(3)
        np.testing.assert_array_equal(filled[0][1], other[0][1])


@pytest.mark.parametrize(
    "count, message",
    [
        ("0", "expected a positive integer, received '0'"),
        pytest.param(
            "99",
            "expected at most 1, the devices that jax has (cpu:0), received 99",
            marks=pytest.mark.skipif(BACKEND != "jax", reason="JAX's message"),
        ),
        pytest.param(
            "2",
            "2 devices need JAX or TensorFlow, received the backend torch",
            marks=pytest.mark.skipif(BACKEND != "torch", reason="torch's message"),
        ),
    ],
)
def test_devices_that_are_not_there(tmp_path, capsys, count, message):
    with pytest.raises(SystemExit) as error:
        command.main(["--smoke", "--output", str(tmp_path / "run"), "--devices", count])
    printed = capsys.readouterr().err
    assert error.value.code == 2 and message in printed
    assert not (tmp_path / "run").exists()
    if BACKEND == "jax" and count == "99":
        assert "--xla_force_host_platform_device_count=99" in printed
