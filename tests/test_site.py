"""The pages of the site are up to date. `tox run -e docs` builds them."""

import importlib
import pathlib
import re

import pytest

import keras_sets
from tests import make_layer_table
from tests.conftest import once

DOCS = pathlib.Path(__file__).parent.parent / "docs"
REFERENCE = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))


@pytest.mark.parametrize("part", keras_sets.__all__)
def test_reference_has_every_public_name(part):
    module = getattr(keras_sets, part)
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
    ]
    shown = {
        path.rpartition(".")[2]
        for path in re.findall(rf"^::: keras_sets\.{part}\.(\S+)$", REFERENCE, re.M)
    }
    assert not set(names) - shown, "missing in docs/api"
    assert not [name for name in shown if not hasattr(module, name)], "in docs/api, but gone"


@once
def test_table_of_layers_is_up_to_date():
    page = make_layer_table.PAGE.read_text()
    assert page == make_layer_table.up_to_date(page), "run python -m tests.make_layer_table"


def rows(page):
    """The cells of the rows of all tables of a page."""
    text = (DOCS / page).read_text()
    return [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in text.splitlines()
        if row[:1] == "|"
    ]


def test_settings_of_the_examples_are_those_of_their_commands():
    shown = 0
    for cells in rows("examples.md"):
        match = re.fullmatch(r"`python -m (examples\.\w+)`", cells[0])
        if not match or "BayesFlow" in cells[1]:
            continue
        defaults = importlib.import_module(f"{match[1]}.__main__").DEFAULTS
        expected = [defaults[key] for key in ("optimizer", "learning_rate", "batch_size")]
        assert [cells[2].lower(), float(cells[3]), int(cells[4])] == expected, cells[0]
        shown += 1
    assert shown == 11
