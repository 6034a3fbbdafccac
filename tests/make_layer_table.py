"""Writes the table of `docs/layers.md` from the registry of cases.

    KERAS_BACKEND=torch python -m tests.make_layer_table

`tests/test_site.py` fails when the page is behind the registry.
"""

import inspect
import pathlib

from keras_sets import layers
from keras_sets import models
from tests import check_export
from tests.cases import CASES

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "layers.md"
BEGIN, END = "<!-- from tests/make_layer_table.py -->\n", "<!-- end -->\n"
HEADER = "| layer | computes | symmetry | mask | weights | streaming | chunks | export |"
SYMMETRIES = ("equivariant", "invariant", "causal", "group")


def rows_of(cls):
    """Rows of the registry whose layer is of this class."""
    return [case for case in CASES if type(case.make()) is cls]


def in_chunks(case):
    x, _, _ = case.inputs()
    try:
        models.predict_in_chunks([case.make()], [x])
    except ValueError:
        return False
    return True


def streaming(cls):
    """How a causal layer takes one entity after the other."""
    names = ("streaming_cell", "scan")
    return next((f"`{name}`" for name in names if hasattr(cls, name)), "–")


def parts(layer):
    """A layer, its sub-layers, and its pooling."""
    return {type(part) for part in layer._flatten_layers()}


def exported():
    """Layers of the models that are exported to every format in `tests/check_export.py`."""
    return set().union(*(parts(make()) for make in check_export.MODELS.values()))


def line(name, cls, rows, everywhere):
    summary = inspect.getdoc(cls).partition("\n")[0].rstrip(".").replace("`keras_sets.layers.", "`")
    symmetries = [s for s in SYMMETRIES if any(case.symmetry == s for case in rows)]
    weights = "factors" if all(case.group is not None for case in rows) else "copies"
    saved = "SavedModel" if any(case.slow for case in rows) else "–"
    cells = [
        f"[`{name}`][keras_sets.layers.{name}]",
        summary,
        ", ".join(symmetries),
        "yes",
        weights,
        streaming(cls),
        "yes" if any(in_chunks(case) for case in rows) else "–",
        "all formats" if cls in everywhere else saved,
    ]
    return f"| {' | '.join(cells)} |"


def table():
    everywhere = exported()
    lines = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    for name in layers.__all__:
        cls = getattr(layers, name)
        rows = rows_of(cls) if isinstance(cls, type) else []
        if rows:
            lines.append(line(name, cls, rows, everywhere))
    return "".join(f"{text}\n" for text in lines)


def up_to_date(page):
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(up_to_date(PAGE.read_text()))
