"""The allocator keeps what a step frees."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_sets import utils

MODULE = pathlib.Path(utils.__file__).parent / "keep_memory.py"
# The module alone, in a process that has no settings yet: pages that are fetched for an array of
# 64 MiB when one of that size has been freed.
SCRIPT = """
import resource, runpy, sys
import numpy as np

kept = sys.argv[2] == "no" or runpy.run_path(sys.argv[1])["keep_memory"]()
def fetched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fetched()
print(kept, fetched())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="settings of glibc")
def test_memory_is_kept():
    pages = {}
    for call in ("no", "yes"):
        command = [sys.executable, "-c", SCRIPT, MODULE, call]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        kept, pages[call] = done.stdout.split()
        assert kept == "True"
    assert int(pages["no"]) > 20 * (int(pages["yes"]) + 1)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX's threads")
def test_too_late():
    keras.ops.sum(np.ones(3))
    with pytest.raises(RuntimeError, match="right after the imports"):
        utils.keep_memory()
