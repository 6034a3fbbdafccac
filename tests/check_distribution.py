"""Builds sdist and wheel, installs the wheel in a clean environment and imports it.

python tests/check_distribution.py WORK_DIRECTORY
"""

import os
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

IMPORT = """
import importlib.metadata, importlib.resources, os, sys
import keras_sets
where = os.path.realpath(keras_sets.__file__)
assert where.startswith(os.path.realpath(sys.prefix)), f"imported from {where}"
assert keras_sets.__version__ == importlib.metadata.version("keras-sets") == sys.argv[1]
assert importlib.resources.files("keras_sets").joinpath("py.typed").is_file()
x = [[[0.0, 1.0], [2.0, 3.0]]]
import numpy as np
assert keras_sets.layers.MeanPooling()(np.array(x)).shape == (1, 2)
for name in ("clustering_2d", "clustering_2d_protocol", "digits", "mixture_of_gaussians"):
    keras_sets.models.load_pretrained(name)
"""


def run(*command, **kwargs):
    print("$", *map(str, command), flush=True)
    subprocess.run(list(map(str, command)), check=True, **kwargs)


def check_wheel(path):
    """Only the package, its type marker and its licence."""
    names = zipfile.ZipFile(path).namelist()
    info = [name for name in names if ".dist-info/" in name]
    package = [name for name in names if name.startswith("keras_sets/")]
    assert sorted(info + package) == sorted(names), sorted({n.split("/")[0] for n in names})
    assert "keras_sets/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in info), info
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "keras_sets").rglob("*.py")}
    assert sources == {name for name in package if name.endswith(".py")}


def check_sdist(path):
    """All that is needed to build and to test."""
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in ("LICENSE", "README.md", "pyproject.toml", "tox.ini", "keras_sets/py.typed"):
        assert name in names, f"{name} is not in {path.name}"
    for folder in ("keras_sets", "tests", "examples", "tuning"):
        missing = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py")} - names
        assert not missing, f"{sorted(missing)} not in {path.name}"


def main():
    work = pathlib.Path(sys.argv[1])
    with open(ROOT / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    # Without options `build` makes the wheel from the sdist, so that both are tested.
    run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT)
    (wheel,), (sdist,) = (
        list((work / "dist").glob(f"*{version}{s}")) for s in ("-py3-none-any.whl", ".tar.gz")
    )
    check_wheel(wheel)
    check_sdist(sdist)
    clean = work / "clean"
    venv.create(clean, with_pip=True, clear=True)
    python = clean / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # JAX is the smallest backend.
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[jax]")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    environment.pop("PYTHONPATH", None)
    run(python, "-c", IMPORT, version, cwd=work, env=environment)
    print(f"{wheel.name}, {sdist.name}: ok")


if __name__ == "__main__":
    main()
