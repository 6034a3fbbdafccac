"""The README's code runs and its links lead somewhere."""

import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")]


def test_the_code_runs():
    code, estimator, clustering, mixture = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102
    model, points, mask = scope["model"], scope["points"], scope["mask"]
    loss = model.evaluate([points, mask], scope["labels"], verbose=0, return_dict=True)["loss"]
    assert np.isfinite(loss) and loss < np.log(2)
    exec(compile(estimator, "README.md", "exec"), scope)  # noqa: S102
    assert scope["labels"].shape == points.shape[1:2]
    exec(compile(clustering, "README.md", "exec"), scope)  # noqa: S102
    assert scope["logits"].shape == (*points.shape[:2], 10)
    exec(compile(mixture, "README.md", "exec"), scope)  # noqa: S102
    assert scope["means"].shape == scope["sigmas"].shape == (len(points), 4, 2)


@pytest.mark.parametrize("page", ["README.md", *sorted(DOCS)])
def test_local_links(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} points to {target}, which is missing"


def test_every_layer_is_in_the_table():
    from keras_sets import layers

    bases = {"Pooling", "SetLayer", "SwarmStreamingCell", "get_pooling"}
    missing = [name for name in layers.__all__ if name not in bases and f"`{name}`" not in README]
    assert not missing
