"""All that is public is annotated. `mypy` checks what the annotations say: `tox run -e lint`."""

import importlib
import inspect
import pkgutil

import pytest

import keras_sets

MODULES = [
    module
    for info in pkgutil.walk_packages(keras_sets.__path__, "keras_sets.")
    if not info.name.endswith("__main__")
    and hasattr(module := importlib.import_module(info.name), "__all__")
]
MEMBERS = {
    f"{member.__module__}.{member.__qualname__}": member
    for module in MODULES
    for member in map(vars(module).get, module.__all__)
    if inspect.isclass(member) or inspect.isfunction(member)
}


def functions(member):
    """The function; or what a user calls of a class, what it inherits in this package included."""
    if inspect.isfunction(member):
        yield member
        return
    for cls in member.__mro__:
        ours = cls.__module__.startswith("keras_sets") and not cls.__name__.startswith("_")
        for name, value in vars(cls).items() if ours else ():
            if not name.startswith("_") or name in ("__init__", "__call__"):
                value = getattr(value, "fget", value)
                value = getattr(value, "__func__", value)
                if inspect.isfunction(value):
                    yield value


def unannotated(function):
    signature = inspect.signature(function)
    for name, parameter in signature.parameters.items():
        if parameter.annotation is parameter.empty and name not in ("self", "cls"):
            yield name
    if signature.return_annotation is signature.empty:
        yield "return"


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_public_functions_are_annotated(name):
    missing = {
        function.__qualname__: names
        for function in functions(MEMBERS[name])
        if (names := list(unannotated(function)))
    }
    assert not missing


def test_what_lacks_annotations_is_found():
    class Layer:
        def __init__(self, units):
            pass

        @property
        def symmetry(self):
            return "causal"

        def call(self, inputs: int) -> int:
            return inputs

        def _private(self, x):
            pass

    Layer.__module__ = "keras_sets.layers.layer"
    missing = {f.__name__: list(unannotated(f)) for f in functions(Layer)}
    assert missing == {"__init__": ["units", "return"], "symmetry": ["return"], "call": []}
