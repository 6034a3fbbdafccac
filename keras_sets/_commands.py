"""Commands of this package end with one line where Keras could not be imported.

`python -m keras_sets.export` imports the package, and with it Keras, before the command itself:
so the package imports this module first.
"""

import importlib.util
import os
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend():
    """Ends the command that is being started unless KERAS_BACKEND is known and installed."""
    name = os.environ.get("KERAS_BACKEND")
    # Python calls itself "-m" until it has found the module to run.
    if not name or sys.argv[:1] != ["-m"]:
        return
    if name not in BACKENDS:
        problem = f"expected one of {', '.join(BACKENDS)}, received {name!r}"
    elif importlib.util.find_spec(name) is None:
        problem = f"{name} is not installed"
    else:
        return
    print(f"error: KERAS_BACKEND: {problem}", file=sys.stderr)
    sys.exit(2)


check_backend()
