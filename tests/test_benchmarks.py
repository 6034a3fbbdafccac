"""The subjects of the benchmarks run, and the commands report what they measured."""

import functools
import json
import time

import keras
import numpy as np
import pytest

import keras_sets
from benchmarks import __main__ as benchmarks
from benchmarks import every_layer
from benchmarks import subjects
from benchmarks import time_to_result

SMALL = {"sets": 2, "points": 4, "hidden": 4, "iterations": 2}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_subjects_of_layers(causal, training):
    size = {**SMALL, "causal": causal, "training": training}
    step, facts = subjects.network("swarm", **size)
    step()
    assert facts["parameters"] > 0
    step, facts = subjects.products(**size)
    step()
    # One product of a (8, 4) or (8, 8) matrix with 16 columns; three at training.
    assert facts["gigaflop"] == pytest.approx(2e-9 * 8 * 4 * 16 * (1 + causal) * (1 + 2 * training))
    step, facts = subjects.traffic(**size)
    step()
    copies = (16 + 3 * causal) + (30 + 4 * causal) * training
    assert facts["gigabyte"] == pytest.approx(1e-9 * 4 * 8 * 4 * copies)


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "causal"])
def test_the_original_computes_what_the_layer_does(pooling, convolutions):
    torch = pytest.importorskip("torch", reason="the original is PyTorch")
    from benchmarks.original import Swarm

    original = Swarm(2, 3, 5, 4, causal=pooling == "causal", convolutions=convolutions)
    layer = keras_sets.layers.Swarm(3, hidden_units=5, iterations=4, pooling=pooling)
    names = {"from_inputs": "cell.Wih", "from_hidden": "cell.Whh", "from_pooled": "cell.Whp"}
    names["output"] = "ffwd"
    arrays = {}
    for name, value in original.state_dict().items():
        module, kind = name.split(".")
        arrays[f"{names[module]}.{kind}"] = value.numpy()
    keras_sets.convert.load_torch_swarm(layer, arrays)
    x = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
    expected = original(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize("option", ["remat", "jit_compile"])
def test_options_change_no_loss(option):
    losses = []
    for value in (False, True):
        keras.utils.set_random_seed(0)
        step, _ = subjects.network("swarm", **SMALL, **{option: value})
        losses.append([step()["loss"] for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_bare_products_have_the_precision_of_the_policy(policy):
    step, facts = subjects.products(**SMALL, policy=policy)
    step()
    assert f"mixed_{facts['dtype']}" == policy


@pytest.mark.parametrize("name", subjects.LINEAR)
def test_subjects_of_scaling(name):
    subjects.layer(name, 6)[0]()


@pytest.mark.parametrize("name", [*every_layer.NAMES, every_layer.PRODUCTS])
def test_subjects_of_every_layer(name, monkeypatch, backend):
    monkeypatch.setattr(every_layer, "POLICIES", ("float32",))
    if backend == "tensorflow":  # traces each layer in tests of its own, and takes longest for it
        compile = functools.partialmethod(keras.Model.compile, run_eagerly=True)
        monkeypatch.setattr(keras.Model, "compile", compile)
    step, facts = every_layer.every_layer(name, 2, 20, 16)
    seconds = step()
    kinds = {"float32, training", "float32, inference"}
    assert set(seconds) == kinds and min(seconds.values()) > 0
    assert {f"{kind}, first" for kind in kinds} <= set(facts)


def test_accelerator(capsys, monkeypatch, backend):
    monkeypatch.setattr(benchmarks, "Worker", InThisProcess)
    names = (every_layer.ALONE, "SetNormalization")
    monkeypatch.setattr(every_layer, "NAMES", names)
    size = ["--sets", "2", "--points", "4", "--hidden", "4"]
    benchmarks.main(["accelerator", *size, "--repeats", "1", "--backends", backend])
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line.split() for line in lines if "SetNormalization" in line)
    assert len(row) == 7 and min(map(float, row[1:])) >= 0
    assert "float32, inference" in lines[-1]


@pytest.mark.parametrize("method", ["once", "passes", "scratch", "anew"])
def test_chunks_see_every_entity(method):
    subjects.chunks(30, method, chunk=10, hidden=4, iterations=2)[0]()


def test_epochs_compile_as_often_with_data_on_the_way(backend):
    facts = [subjects.epoch(held, tasks=60, hidden=4, iterations=2)[0]() for held in (False, True)]
    assert facts[0] == facts[1]
    assert facts[0]["steps"] == 3
    # Batches of two sizes.
    assert facts[0]["programs"] in ([None] if backend == "torch" else [1, 2])


@pytest.mark.parametrize("held", [False, True])
def test_epochs_of_set_datasets(held):
    step, facts = subjects.set_epoch(held, sets=40, hidden=4)
    step()
    assert facts["steps"] == 2


def test_padded_shares():
    shares = subjects.padding()[1]["shares"]
    assert shares["0.25, 4"] < 0.15 and shares["0.5, 8"] < 0.15
    assert shares["1.0, 1"] > shares["1.0, 4"] > shares["1.0, 8"]


class InThisProcess:
    """A `Worker` without a process of its own."""

    def __init__(self, subject, backend=None, warm_up=3, variables=None, **options):
        self.step, self.facts = getattr(subjects, subject)(**options)

    def measure(self, steps=1):
        start = time.perf_counter()
        result = self.step()
        self.facts.update(result if isinstance(result, dict) else {})
        return time.perf_counter() - start

    def close(self):
        pass


def test_command(tmp_path, capsys, monkeypatch, backend, thorough):
    if not thorough:
        # Five processes are the same five on every backend, their subjects are not.
        monkeypatch.setattr(benchmarks, "Worker", InThisProcess)
    path = tmp_path / "results.json"
    arguments = ["data", "--sets", "40", "--repeats", "1", "--backends", backend]
    benchmarks.main([*arguments, "--json", str(path)])
    results = json.loads(path.read_text())
    assert f"{results['ratio']:.1f}x" in capsys.readouterr().out
    one, many = results["milliseconds"]["one_by_one"], results["milliseconds"]["together"]
    assert results["ratio"] == pytest.approx(one / many)
    assert results[f"SetDataset, {backend}"]["ratio"] > 0 and results["padded shares"]["1.0, 8"] > 0


def test_what_a_log_has_reached(tmp_path):
    path = tmp_path / "metrics.csv"
    reached = time_to_result.reached
    assert reached(path, "val_ari", 0.8, 1) is None
    path.write_text("epoch,val_ari,val_loss,seconds\n1,0.5,2.0,10.5\n2,0.8,1.5,20.5\n3,0.9,1.0,3")
    assert reached(path, "val_ari", 0.8, 1) == 20.5
    assert reached(path, "val_ari", 0.85, 1) is None
    assert reached(path, "val_loss", 2.0, -1) == 10.5


@pytest.fixture
def quick_example(tmp_path, monkeypatch):
    """A command that has a log at once."""
    (tmp_path / "quick_example.py").write_text(
        "import argparse, pathlib\n"
        "parser = argparse.ArgumentParser()\n"
        "for name in 'schedule time-budget epochs seed plot-interval output'.split():\n"
        "    parser.add_argument(f'--{name}', required=True)\n"
        "output = pathlib.Path(parser.parse_args().output)\n"
        "output.mkdir()\n"
        "(output / 'metrics.csv').write_text('val_loss,seconds\\n1.0,0.5\\n')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ["quick_example"]


def test_time_to_result(capsys, monkeypatch, backend, thorough, quick_example):
    command = ["examples.max_regression", "--smoke"] if thorough else quick_example
    monkeypatch.setattr(time_to_result, "TASKS", {"any": (command, "val_loss", 1e9, -1)})
    results = benchmarks.main(["result", "--backends", backend, "--repeats", "1"])
    (seconds,) = results[f"any, {backend}"]
    # Of epochs whose seconds are rounded.
    assert 0 <= seconds < 600 and f"{backend}  " in capsys.readouterr().out
    monkeypatch.setattr(time_to_result, "TASKS", {"any": ([*command, "--no"], "a", 0, 1)})
    with pytest.raises(RuntimeError, match="unrecognized arguments: --no"):
        benchmarks.main(["result", "--backends", backend, "--repeats", "1"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["speed"], "scaling"),
        (["layers", "--repeats", "0"], "expected a positive integer, received '0'"),
        (["layers", "--hidden", "-4"], "expected a positive integer, received '-4'"),
        (["data", "--json", "no/such/folder.json"], "no/such is no folder"),
        (["data", "--json", "."], "is a folder, expected a file"),
        (["accelerator", "--iterations", "5"], "--iterations: accelerator has no use for it"),
        (["scaling", "--points", "500"], "at least 1000, received 500"),
        (["training", "--dtype-policy", "mixed_bfloat16"], "training has no use for it"),
    ],
)
def test_bad_input(capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmarks.main(arguments)
    assert message in capsys.readouterr().err
