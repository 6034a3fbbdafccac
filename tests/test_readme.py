"""The code of the README and of the pages runs, and their links lead somewhere."""

import pathlib
import re

import numpy as np
import pytest

import keras_sets
from tests.conftest import once

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
# What these show needs files, servers or devices; they have tests of their own.
APART = {"docs/export.md", "docs/devices.md", "docs/install.md"}


def code_of(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.S | re.M)


def run(page):
    """All blocks of a page, one after the other, as a reader would."""
    scope = {}
    for code in code_of(page):
        exec(compile(code, page, "exec"), scope)  # noqa: S102
    return scope


def test_readme_code_runs():
    first, _ = code_of("README.md")
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    scope = run("README.md")
    inputs = {"entities": scope["points"], "mask": scope["mask"]}
    loss = scope["model"].evaluate(inputs, scope["largest"], verbose=0)
    assert np.isfinite(loss) and loss < np.mean(scope["largest"] ** 2)
    assert scope["labels"].shape == scope["points"].shape[1:2]


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


@once
@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page) and page not in APART])
def test_code_of_pages_runs(page):
    run(page)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_local_links(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} points to {target}, which is missing"


def test_every_layer_is_in_the_table():
    bases = {"Pooling", "SetLayer", "SwarmStreamingCell", "get_pooling"}
    names = keras_sets.layers.__all__
    missing = [name for name in names if name not in bases and f"`{name}`" not in README]
    assert not missing
