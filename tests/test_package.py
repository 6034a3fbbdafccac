"""The package as a whole: what it imports, what it shows, what it leaves to `ops`."""

import ast
import importlib
import inspect
import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest

import keras_sets

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "keras_sets"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    "keras_sets",
    *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], prefix="keras_sets.")),
]
PUBLIC = [name for name in MODULES if hasattr(importlib.import_module(name), "__all__")]

# Reductions that over entities need masks, weights and float32 sums.
REDUCTIONS = {
    "all", "amax", "amin", "any", "argmax", "argmin", "average", "count_nonzero", "cumprod",
    "cumsum", "logsumexp", "max", "mean", "median", "min", "prod", "quantile", "std", "sum", "var",
}  # fmt: skip
# Put this behind a line that reduces over something else, and say over what.
EXEMPTION = "# not entities:"


def name_of(path):
    return str(path.relative_to(ROOT))


def test_version():
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    assert keras_sets.__version__ == project["version"] == metadata.version("keras-sets")


def test_import_brings_keras_and_numpy_only():
    code = """
import json, sys
import keras, numpy
before = set(sys.modules)
import keras_sets
print(json.dumps(sorted({m.split(".")[0] for m in set(sys.modules) - before})))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    brought = set(json.loads(done.stdout.splitlines()[-1]))
    assert brought <= {"keras_sets", "keras", "numpy", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_imports_keras_and_numpy_only(path):
    """At the top of a module; inside of functions other packages are allowed."""
    allowed = {"keras", "keras_sets", "numpy", *sys.stdlib_module_names}
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in allowed, f"{name_of(path)}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_private_keras(path):
    assert "keras.src" not in path.read_text()


def keras_ops_names(tree):
    """What `keras.ops` is called in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "keras":
            yield from (a.asname or a.name for a in node.names if a.name == "ops")
        elif isinstance(node, ast.ImportFrom) and node.module == "keras.ops":
            raise AssertionError("import `ops` from keras, not single operations")
    yield "keras.ops"


def entity_reductions(source):
    """Lines that reduce with `keras.ops` over other axes than the last."""
    tree = ast.parse(source)
    lines = source.splitlines()
    names = set(keras_ops_names(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in REDUCTIONS or ast.unparse(node.func.value) not in names:
            continue
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        axis = ast.unparse(node.args[1]) if len(node.args) > 1 else keywords.get("axis")
        exempt = any(EXEMPTION in line for line in lines[node.lineno - 1 : node.end_lineno])
        if axis != "-1" and not exempt:
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parts[-2] in ("layers", "models")], ids=name_of
)
def test_reductions_over_entities_are_in_ops(path):
    found = list(entity_reductions(path.read_text()))
    assert not found, (
        f"use a function of keras_sets.ops, or `{EXEMPTION} ...` where the axis is not one of "
        f"entities: {found}"
    )


def test_entity_reductions_are_found():
    source = "from keras import ops\nimport keras\n"
    assert list(entity_reductions(source + "y = ops.mean(x, axis=1)"))
    assert list(entity_reductions(source + "y = ops.sum(x)"))
    assert list(entity_reductions(source + "y = keras.ops.cumsum(x, 1)"))
    assert not list(entity_reductions(source + "y = ops.max(x, axis=-1)"))
    assert not list(entity_reductions(source + "y = set_ops.set_mean(x)"))
    assert not list(entity_reductions(source + f"y = ops.sum(x)  {EXEMPTION} all weights"))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    """`__all__` is sorted, holds what the module imports to show, and all is described."""
    module = importlib.import_module(module)
    assert module.__doc__, f"{module.__name__} has no docstring"
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        member = getattr(module, name)
        if inspect.isclass(member) or inspect.isroutine(member) or inspect.ismodule(member):
            assert member.__dict__.get("__doc__") or getattr(member, "__doc__", None), name
            if inspect.isclass(member):
                assert "__doc__" in vars(member) and vars(member)["__doc__"], name
    if module.__file__.endswith("__init__.py"):
        shown = set()
        for node in ast.parse(pathlib.Path(module.__file__).read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_sets"):
                shown |= {alias.asname or alias.name for alias in node.names}
        shown = {name for name in shown if not name.startswith("_")}
        assert shown == set(module.__all__) - {"__version__"}


# Layers that models of the package are made of, of no use on their own.
PARTS_OF_MODELS = {
    "CausalNeighborhoodPooling", "ImageEmbedding", "MixtureRefinement", "SortEntities",
    "SwarmBlock", "TakeEntities", "ZeroAbsent",
}  # fmt: skip


def test_registered_layers_are_public():
    """A layer that is registered for saving is also exported, but for private ones and parts."""
    hidden = []
    for path in (PACKAGE / "layers").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
                if "register_keras_serializable" in decorators:
                    assert "package='keras_sets'" in decorators, node.name
                    if node.name not in keras_sets.layers.__all__:
                        hidden.append(node.name)
    assert set(hidden) == PARTS_OF_MODELS


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=name_of)
def test_models_hold_no_layers(path):
    """Layers live in `keras_sets.layers`: what a file names is then found in one place."""
    assert "register_keras_serializable" not in path.read_text()


def test_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_no_large_file_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"git does not answer: {done.stderr.strip()}")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    large = [p for p in paths if p.is_file() and p.stat().st_size > 2 * 2**20]
    assert not large, f"files over 2 MB: {[name_of(p) for p in large]}"


def test_readme_and_ci_run_the_same_command():
    """The command that the README gives is the one that is run automatically."""
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("not a repository")
    (command,) = [line for line in script.read_text().splitlines() if "-m tox" in line]
    readme = (ROOT / "README.md").read_text()
    if not readme.strip():
        pytest.skip("the README is empty")
    assert command in readme.splitlines(), f"the README does not give `{command}`"
