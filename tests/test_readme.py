"""The README's code runs and its links lead somewhere."""

import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_code_runs():
    code, pretrained = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102
    model, points, mask = scope["model"], scope["points"], scope["mask"]
    loss = model.evaluate([points, mask], scope["labels"], verbose=0, return_dict=True)["loss"]
    assert np.isfinite(loss) and loss < np.log(2)
    exec(compile(pretrained, "README.md", "exec"), scope)  # noqa: S102
    assert scope["logits"].shape == (*points.shape[:2], 10)


def test_local_links():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), f"the README points to {target}, which is missing"


def test_every_layer_is_in_the_table():
    from keras_sets import layers

    bases = {"Pooling", "SetLayer", "SwarmStreamingCell", "get_pooling"}
    missing = [name for name in layers.__all__ if name not in bases and f"`{name}`" not in README]
    assert not missing
