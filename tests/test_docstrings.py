"""Runs the examples in all docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import keras_sets


def modules_of(package):
    names = [package.__name__]
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            names.append(module.name)
    return names


def all_modules():
    names = modules_of(keras_sets)
    try:
        import examples
    except ImportError:
        return names
    return names + modules_of(examples)


OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(name):
    """Doctests of a module; of its public classes and functions, not of private ones."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if name.startswith("keras_sets"):
            raise
        pytest.skip(f"{name} needs a package that is not installed: {error}")
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    return [test for test in found if test.examples]


@pytest.fixture
def no_graphs(backend):
    """TensorFlow runs the operations of an example: making graphs of them takes longer."""
    if backend != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("no_graphs")
@pytest.mark.parametrize("name", all_modules())
def test_docstrings(name):
    for test in examples_of(name):
        result = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
        assert result.failed == 0, f"{test.name}: {result.failed} examples failed"


@pytest.mark.parametrize("part", ["layers", "losses", "metrics"])
def test_public_classes_have_examples(part):
    module = getattr(keras_sets, part)
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and name != "IgnoreMasked"
    ]
    bases = {"SetLayer", "Pooling"}
    for name in set(names) - bases:
        assert ">>>" in (getattr(module, name).__doc__ or ""), f"{name} has no example"
