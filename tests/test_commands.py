"""What all commands have in common: one line for every mistake, and a list of the examples."""

import contextlib
import errno
import importlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import zipfile
from importlib import metadata

import keras
import pytest

import keras_sets
from examples.__main__ import main as list_examples
from examples.amortized_clustering import __main__ as clustering
from examples.common import networks
from examples.common import options
from examples.common.run import Run
from keras_sets import _commands as commands
from tests import make_golden

EXAMPLES = [
    f"examples.{path.parent.name}" for path in make_golden.ROOT.glob("examples/*/__main__.py")
]
SHIPPED = make_golden.ROOT / "keras_sets" / "models" / "weights" / "digits.keras"


def rewrite(path, change):
    """A copy of a trained network with other members."""
    with zipfile.ZipFile(SHIPPED) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def rename_class(members):
    config = members["config.json"].replace(b"keras_sets>Swarm", b"nobody>Swarm")
    members["config.json"] = config.replace(b'"Swarm"', b'"Nobodys"')


def damage(path):
    content = bytearray(SHIPPED.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    path.write_bytes(content)


BAD_MODELS = {
    "damaged": damage,
    "no_config": lambda path: rewrite(path, lambda members: members.pop("config.json")),
    "no_weights": lambda path: rewrite(path, lambda members: members.pop("model.weights.h5")),
    "unknown_class": lambda path: rewrite(path, rename_class),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_cannot_be_loaded(name, tmp_path):
    path = tmp_path / "model.keras"
    BAD_MODELS[name](path)
    with pytest.raises(options.RunError, match="The initial model .*model.keras cannot") as error:
        networks.load_initial_weights(keras.Sequential(), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_command_that_starts_from_one(name, tmp_path, capsys):
    path = tmp_path / "model.keras"
    BAD_MODELS[name](path)
    call = ["--smoke", "--output", str(tmp_path / "run"), "--initial-model", str(path)]
    with pytest.raises(SystemExit, match="2"):
        clustering.main(call)
    error = capsys.readouterr().err
    assert "The initial model" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_interrupted_command_ends_with_one_line(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(interrupted.__globals__, "__package__", "examples.bags")
    main = options.command(interrupted)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("python -m examples.bags: interrupted. ") and "--resume" in line
    with pytest.raises(KeyboardInterrupt):
        main(["--smoke"])


@options.command
def full_disk(arguments=None):
    if arguments:
        raise RuntimeError(f"unable to write (errno = 28, '{os.strerror(errno.ENOSPC)}')")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("arguments", [None, ["from h5py"]])
def test_a_full_disk(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        full_disk(arguments)
    error = capsys.readouterr().err
    assert "error: the disk is full" in error and len(error.splitlines()) == 1


def test_other_errors_keep_their_traceback():
    @options.command
    def fail(arguments=None):
        raise FileNotFoundError("no.txt")

    with pytest.raises(FileNotFoundError):
        fail()


@pytest.mark.parametrize("text", ["[1, 2]", '"run"', "{", "3"])
def test_configurations_of_no_run(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    given = options.parse(options.make_parser("t", "", {}), {}, ["--output", str(tmp_path)])
    given.resume = True
    with pytest.raises(options.RunError, match="config.json (is not|cannot be read)"):
        Run("t", "t", given).prepare()


@pytest.mark.parametrize("name", ["tuning", *EXAMPLES])
def test_backends(name, capsys, monkeypatch):
    if name == "tuning":
        pytest.importorskip("keras_tuner")
    command = importlib.import_module(f"{name}.__main__")
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(SystemExit, match="2"):
        command.main(["--task", "mixture"] if name == "tuning" else [])
    message = "KERAS_BACKEND: expected one of tensorflow, jax, torch, received 'theano'"
    assert capsys.readouterr().err == f"python -m {name}: error: {message}\n"


def test_backends_of_the_export():
    """Python imports Keras before this command can look at its options."""
    done = subprocess.run(
        [sys.executable, "-m", "keras_sets.export", "--help"],
        cwd=make_golden.ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "theano"},
    )
    assert done.returncode == 2 and not done.stdout
    message = "error: KERAS_BACKEND: expected one of tensorflow, jax, torch, received 'theano'\n"
    assert done.stderr == message


@pytest.mark.parametrize("command, ends", [("-m", True), ("train.py", False)])
def test_a_backend_that_is_not_installed(command, ends, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [command])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SystemExit, match="2") if ends else contextlib.nullcontext():
        commands.check_backend()
    assert capsys.readouterr().err == "error: KERAS_BACKEND: jax is not installed\n" * ends


def test_help_says_what_follows_the_clock():
    text = " ".join(options.make_parser("digit_sum", "", {}).format_help().split())
    assert "follow the clock" in text and "within its budget" in text


def test_help_shows_defaults_as_they_are_typed():
    parser = options.make_parser("digit_sum", "", {})
    parser.add_argument("--sizes", nargs="+", default=[1, 2], help="of sets")
    parser.add_argument("--lengths", nargs="+", default=[3, 4], help="of words (default: all)")
    text = " ".join(parser.format_help().split())
    assert "of sets (default: 1 2)" in text and "weights and order (default: 0)" in text
    assert "of words (default: all)" in text and "(default: 3" not in text
    assert "runs/digit_sum/NAME" in text


def test_list_of_examples(capsys):
    list_examples()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert {line.split()[2] for line in lines} == set(EXAMPLES)
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("file", ["oracle.json", "trial_0/trial.json"])
def test_damaged_searches(file, tmp_path, capsys, monkeypatch):
    tuning = pytest.importorskip("tuning.__main__")
    from tuning import search

    monkeypatch.setattr(search.Search, "load_data", lambda self: None)
    monkeypatch.setattr(search.Search, "search", lambda self: self.oracle.create_trial("tuner0"))
    call = ["--task", "mixture", "--smoke", "--output", str(tmp_path / "search")]
    tuning.main(call)
    path = tmp_path / "search" / file
    json.loads(path.read_text())
    path.write_text(path.read_text()[:20])
    with pytest.raises(SystemExit, match="2"):
        tuning.main(call)
    error = capsys.readouterr().err
    assert "cannot be read" in error and len(error.splitlines()) == 1


def test_a_source_tree_that_is_not_installed(monkeypatch):
    """Without metadata the package is imported all the same."""

    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    source = pathlib.Path(keras_sets.__file__).read_text()
    scope = {"__name__": "keras_sets"}
    exec(compile(source, keras_sets.__file__, "exec"), scope)  # noqa: S102
    assert scope["__version__"] == "0+unknown"
