"""One backend a process: the one that KERAS_BACKEND names, else the first one installed."""

import gc
import importlib.metadata
import importlib.util
import os

# Imports and traces make many objects that stay, which Python would search after every 700.
gc.set_threshold(200_000, 10, 10)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests compile many small functions and run each a few times. XLA stops at a flag that it does
# not know: where a release does not know one of these, set XLA_FLAGS to those it knows.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if importlib.util.find_spec("jaxlib"):
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) >= (0, 10):
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # 0.4.35 and 0.5.0 do not know it
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# Nobody reads the lines of Python that JAX notes beside every operation that it compiles.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
BACKENDS = ("tensorflow", "jax", "torch")
INSTALLED = [name for name in BACKENDS if importlib.util.find_spec(name)]
if "KERAS_BACKEND" not in os.environ and INSTALLED:
    os.environ["KERAS_BACKEND"] = INSTALLED[0]

import contextlib  # noqa: E402
import csv  # noqa: E402
import pathlib  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

pytest.register_assert_rewrite("tests.export_cases", "tests.laws")
# What does not depend on the backend is tested on this one, the quickest; what the others do
# of it, where that takes long, is a short form.
THOROUGH = "torch"
once = pytest.mark.skipif(keras.config.backend() != THOROUGH, reason="the same on every backend")
DATA = pathlib.Path(__file__).parent / "data"


def pytest_collection_modifyitems(items):
    """What other backends read comes first."""
    items.sort(key=lambda item: item.path.name != "test_golden.py")


def pytest_collection_finish():
    """What has been imported stays: the collector of garbage need not go through it again."""
    gc.collect()
    gc.freeze()


def load_arrays(name):
    """Arrays of the original implementation, see data/README.md."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return dict(arrays)


def losses_of(run):
    """The losses of every epoch of a command's run, in training and in validation."""
    with open(run / "metrics.csv") as file:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(file)]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def backend():
    return keras.config.backend()


@pytest.fixture
def thorough(backend):
    """Whether tests of what does not depend on the backend run in full."""
    return backend == THOROUGH


@pytest.fixture
def on_one_backend(thorough):
    """For long tests of what all examples share, which another one tests on every backend."""
    if not thorough:
        pytest.skip(f"runs on {THOROUGH}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where TensorFlow Datasets keeps the digits."""
    pytest.importorskip("tensorflow_datasets")
    from examples.common import image_sets

    path = tmp_path_factory.mktemp("data")
    image_sets.load("digits", path)
    return path


def shortened(options):
    """Further options of a command, as words, where its networks are compiled; elsewhere none."""
    return [] if keras.config.backend() == THOROUGH else options.split()


@pytest.fixture
def no_rendering(monkeypatch):
    """Commands set their pictures up but write no files: for tests that look at none."""
    from examples.common import plots

    monkeypatch.setattr(plots, "save", lambda figure, path: plots.plt.close(figure))


@pytest.fixture(scope="module")
def sketches():
    """Pictures are the same on every backend: all but one set them up and write empty files."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        if keras.config.backend() != THOROUGH:
            touch = lambda figure, path, **options: pathlib.Path(path).touch()  # noqa: E731
            patch.setattr(Figure, "savefig", touch)
        yield


@pytest.fixture
def format(backend):
    """A format that models are exported to from this backend."""
    return "torch" if backend == "torch" else "tf_saved_model"


@pytest.fixture
def float64():
    """Everything in float64, on every backend."""
    before = keras.config.floatx()
    with contextlib.ExitStack() as stack:
        if keras.config.backend() == "jax":
            import jax

            wide = getattr(jax, "enable_x64", None)
            if wide is None:
                from jax.experimental import enable_x64 as wide
            stack.enter_context(wide(True))
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        yield
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)
