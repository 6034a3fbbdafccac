"""Which formats there are, and models on sets exported in each of them."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_sets import validation
from keras_sets.export import runtimes
from keras_sets.export import writers


@dataclasses.dataclass(frozen=True)
class _Format:
    """A format of `keras.Model.export`.

    Attributes:
        file: What it is called in the output folder; "" where it is a folder itself.
        runtime: Opens a file, to ask it the questions that the model is asked too.
        needs: For every backend that exports it, the packages that this takes.
        free_sizes: Whether it has free batch and set sizes.
        half_precision: Whether it takes models that compute in half precision.
    """

    file: str
    runtime: Callable[..., Any]
    needs: dict[str, tuple[str, ...]]
    free_sizes: bool = True
    half_precision: bool = True


FORMATS = {
    "tf_saved_model": _Format("", runtimes.tensorflow, {"tensorflow": (), "jax": ("tensorflow",)}),
    "onnx": _Format(
        "model.onnx",
        runtimes.onnxruntime,
        {
            "tensorflow": ("tf2onnx", "onnxruntime"),
            "torch": ("onnx", "onnxscript", "onnxruntime"),
        },
        half_precision=False,
    ),
    "openvino": _Format(
        "model.xml",
        runtimes.openvino,
        {"tensorflow": ("openvino",), "torch": ("openvino",)},
        half_precision=False,
    ),
    "litert": _Format(
        "model.tflite",
        runtimes.litert,
        {"tensorflow": ()},
        free_sizes=False,
        half_precision=False,
    ),
    "torch": _Format("model.pt2", runtimes.torch, {"torch": ()}),
}


def export_model(
    model: keras.Model | str | os.PathLike[str],
    output: str | os.PathLike[str],
    format: str = "tf_saved_model",
    batch_size: int | None = None,
    set_size: int | None = None,
) -> pathlib.Path:
    """Writes a model in a format that other programs serve, without Keras and this package.

    What is served takes the inputs of the model under their names, for the models of
    `keras_sets.models` these are `"entities"` `(batch, n, features)`, `"mask"` bool
    `(batch, n)` and perhaps `"weights"` `(batch, n)`. Batch and set sizes are free, unless
    they are fixed here. Axes of unknown size at the same place in several inputs are of the
    same size: the mask of a set has the n of its entities.

    | `format` | what is written | exported from the backends |
    |---|---|---|
    | `"tf_saved_model"` | a TensorFlow SavedModel, the folder itself | TensorFlow, JAX |
    | `"onnx"` | `model.onnx` | TensorFlow, torch |
    | `"openvino"` | `model.xml` and `model.bin` | TensorFlow, torch |
    | `"litert"` | `model.tflite`, with fixed sizes | TensorFlow |
    | `"torch"` | `model.pt2`, of `torch.export` | torch |

    A `.keras` file loads on every backend, so that a model of any backend can be had in every
    format. Whatever is written is asked before it is handed over, at two sizes, with absent
    entities, with empty sets, without entities and without sets, and refused unless it answers
    like the model. (SavedModels from JAX take at least one set and one entity.)

    Args:
        model: A functional `keras.Model`, a built `keras.Sequential`, or the path of a `.keras`
            file. Layers of your own that the file holds must have been registered, by
            importing the module that defines them.
        output: Folder to write, which does not exist or is empty. It appears when all is
            written; a failure leaves nothing behind.
        format: One of the names above.
        batch_size: None, or the one batch size that can be served.
        set_size: None, or the one set size that can be served.

    Returns:
        The `pathlib.Path` of what was written: the folder of a SavedModel, else the file.

    Raises:
        ValueError: If an argument is wrong, or the backend cannot export this model in this
            format; the message names a way that does.
        ImportError: If a package is missing.

    Example:

    >>> import keras, keras_sets, pathlib, tempfile
    >>> model = keras_sets.models.deep_sets(2, 3, num_layers=1)
    >>> form = "torch" if keras.config.backend() == "torch" else "tf_saved_model"
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = keras_sets.export.export_model(model, folder / "served", format=form)
    >>> path.exists()
    True
    """
    validation.one_of("format", format, FORMATS)
    for name, value in (("batch_size", batch_size), ("set_size", set_size)):
        if value is not None:
            validation.positive_integer(name, value)
    output = pathlib.Path(os.path.abspath(output))
    _check_output(output)
    _check_backend(format)
    if not isinstance(model, keras.Model):
        model = _load(model)
    inputs = _inputs(model)
    symbols = _symbols(model, inputs)
    _check_sizes(format, inputs, symbols, batch_size, set_size)
    _check_precision(format, model)
    specs = _input_specs(inputs, symbols, batch_size, set_size)

    # Next to the output, so that it can be moved there in one step. A folder that is there stays:
    # it may be a mounted one, a link, or the current one.
    exists = output.is_dir()
    parent = output if exists else next(parent for parent in output.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{output.name}.") as temporary:
        written = pathlib.Path(temporary, "export")
        written.mkdir()
        try:
            path = str(written / FORMATS[format].file)
            writers.write(model, path, format, specs)
            _check_answers(model, path, format, specs)
        except Exception as error:
            raise ValueError(
                f"Keras could not export model '{model.name}' as {format} from "
                f"{keras.config.backend()}: {_reason(error)}. {_another_way(format)}"
            ) from error
        if exists:
            for part in written.iterdir():
                os.rename(part, output / part.name)
        else:
            output.parent.mkdir(parents=True, exist_ok=True)
            os.rename(written, output)
    return output / FORMATS[format].file


def _check_output(output):
    if output.is_dir():
        free = not any(output.iterdir())
    else:
        free = next(path for path in (output, *output.parents) if path.exists()).is_dir()
    if not free:
        raise ValueError(
            "Received an invalid value for `output`, expected a folder that does not exist or is "
            f"empty. Received: output={str(output)!r}"
        )


def _check_backend(format):
    backend = keras.config.backend()
    needs = FORMATS[format].needs
    if backend not in needs:
        raise ValueError(
            f"`format={format!r}` is not exported from the backend {backend}, only from "
            f"{' and '.join(needs)}. {_another_way(format)}"
        )
    missing = [name for name in needs[backend] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"`format={format!r}` from the backend {backend} needs a package that is not "
            f"installed: pip install {' '.join(missing)}"
        )


def _another_way(format):
    backends = [name for name in FORMATS[format].needs if name != keras.config.backend()]
    if not backends:
        format, backends = "tf_saved_model", ["tensorflow"]
    return (
        "Instead, save the model with `model.save('model.keras')` and run `KERAS_BACKEND="
        f"{backends[0]} python -m keras_sets.export model.keras --format {format} --output FOLDER`."
    )


def _load(path):
    expected = "Received an invalid value for `model`, expected a Keras model or the path of a "
    try:
        path = os.fspath(path)
    except TypeError:
        raise ValueError(f"{expected}.keras file. Received: {type(path).__name__}") from None
    if not os.path.isfile(path):
        raise ValueError(f"{expected}.keras file, but there is no such file. Received: {path!r}")
    if not path.endswith(".keras") or not zipfile.is_zipfile(path):
        raise ValueError(
            f"{expected}.keras file. This is none, or it is truncated. Received: {path!r}"
        )
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of many types, by what is wrong with the file
        raise ValueError(
            f"{expected}.keras file that Keras can load. Layers that do not come with "
            "keras_sets must be imported first (on the command line: --import MODULE). "
            f"Received: {path!r}, {_reason(error)}"
        ) from error


def _reason(error):
    """What went wrong, in one line of the many that Keras may say."""
    # Around the error of a layer Keras writes "Exception encountered when calling ...:", colours
    # and the arguments.
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    text = re.split(r"Exception encountered(?:: | when calling .*\n)", text)[-1].strip()
    return f"{type(error).__name__}: {text.partition(chr(10))[0]}"


def _inputs(model):
    if isinstance(model, keras.Sequential) and model.built:
        return model.inputs[0]
    if hasattr(model, "operations"):
        return model.input
    raise ValueError(
        "Received an invalid value for `model`, expected a functional model or a built "
        f"Sequential, whose inputs are known. Received: model={model!r}"
    )


def _symbols(model, inputs):
    """What the size of every axis is called; axes that always have one size share a name."""
    inputs = tree.map_structure(lambda x: keras.InputSpec(shape=x.shape, dtype=x.dtype), inputs)
    rank = max(len(x.shape) for x in tree.flatten(inputs))
    symbols = ["batch", *(f"n{axis}" for axis in range(1, rank))]
    if len(_free(inputs, symbols) - {"batch"}) > 1:
        # Such as those of edges, `(batch, n, n, features)`: only the model knows.
        alike = ["batch", *["n1"] * (rank - 1)]
        if not _takes(model, inputs, symbols) and _takes(model, inputs, alike):
            return alike
    return symbols


def _free(inputs, symbols):
    """The names of the sizes that are not known."""
    shapes = [x.shape for x in tree.flatten(inputs)]
    return {
        symbol
        for shape in shapes
        for size, symbol in zip(shape, symbols, strict=False)
        if size is None
    }


def _takes(model, inputs, symbols):
    try:
        _predict(model, _question(_input_specs(inputs, symbols), 2, 3, "all"))
    except Exception:  # of any layer
        return False
    return True


def _check_sizes(format, inputs, symbols, batch_size, set_size):
    """Raises a ValueError unless the sizes are those that the format needs and the model has."""
    free = _free(inputs, symbols)
    shapes = [x.shape for x in tree.flatten(inputs)]
    if set_size is not None and len(free - {"batch"}) != 1:
        raise ValueError(
            "Expected a model with one axis of unknown size, beside that of the batch, for "
            f"`set_size` to fix. Received: set_size={set_size} and inputs of shapes {shapes}"
        )
    if batch_size is not None and any(shape[0] not in (None, batch_size) for shape in shapes):
        raise ValueError(
            "Expected a model with a free batch size, for `batch_size` to fix. Received: "
            f"batch_size={batch_size} and inputs of shapes {shapes}"
        )
    unknown = {
        "batch_size": "batch" in free and batch_size is None,
        "set_size": bool(free - {"batch"}) and set_size is None,
    }
    if not FORMATS[format].free_sizes and any(unknown.values()):
        missing = " and ".join(f"`{name}`" for name, value in unknown.items() if value)
        raise ValueError(
            f"`format={format!r}` has no free sizes, expected {missing} as well. "
            f"Received: inputs of shapes {shapes}"
        )


def _half_precision(model):
    return sorted({layer.compute_dtype for layer in model.layers} & {"bfloat16", "float16"})


def _check_precision(format, model):
    half = _half_precision(model)
    if half and not FORMATS[format].half_precision:
        others = [name for name, other in FORMATS.items() if other.half_precision]
        raise ValueError(
            f"`format={format!r}` takes models that compute in float32, but model "
            f"'{model.name}' computes in {' and '.join(half)}. Instead, export it as "
            f"{' or '.join(others)}, or build it again in float32 and give it the weights."
        )


def _input_specs(inputs, symbols, batch_size=None, set_size=None):
    """The inputs with the shape, dtype, served name and names of the free sizes of each."""

    def spec(path, x):
        sizes = [batch_size] + [set_size] * (len(x.shape) - 1)
        shape = [
            given if size is None else size for size, given in zip(x.shape, sizes, strict=True)
        ]
        name = path[-1] if path and isinstance(path[-1], str) else x.name
        spec = keras.InputSpec(shape=tuple(shape), dtype=x.dtype, name=name)
        spec.symbols = symbols[: len(shape)]
        return spec

    specs = [spec(path, x) for path, x in tree.flatten_with_path(inputs)]
    return tree.pack_sequence_as(inputs, specs)


# Set sizes unlike the batch sizes, and unlike those that a converter may have traced.
_SIZES = {
    "a small batch": (2, 3, "all"),
    "a larger batch": (3, 5, "all"),
    "absent entities": (3, 5, "some"),
    "single entities": (3, 5, "one"),
    "empty sets": (3, 5, "none"),
    "no entities": (2, 0, "all"),
    "no sets": (0, 3, "all"),
}


def _check_answers(model, path, format, specs):
    """Raises a ValueError unless the file answers like the model, whatever it is asked."""
    answer = FORMATS[format].runtime(path, specs)
    tolerance = 5e-2 if _half_precision(model) else 1e-2
    asked = set()
    for name, (batch, set_size, present) in _SIZES.items():
        if 0 in (batch, set_size) and (format, keras.config.backend()) == ("tf_saved_model", "jax"):
            continue  # the symbols of JAX are at least 1: what is served says so
        inputs = _question(specs, batch, set_size, present)
        kind = str([x.shape for x in tree.flatten(inputs)]) + present
        if kind in asked:
            continue
        asked.add(kind)
        try:
            expected = tree.flatten(_predict(model, inputs))
        except Exception:
            if 0 in (batch, set_size):
                continue  # nor does the model know an answer
            raise
        try:
            received = answer(inputs)
        except Exception as error:
            raise ValueError(f"what is served fails for {name}: {_reason(error)}") from error
        for y, wanted in zip(received, expected, strict=True):
            wanted = np.asarray(wanted, "float64")
            # Where the model has no number, there is none to compare with.
            known = np.isfinite(wanted)
            scale = max(1, np.abs(wanted[known]).max(initial=0))
            if y.shape != wanted.shape or not np.allclose(
                np.asarray(y, "float64")[known], wanted[known], tolerance, tolerance * scale
            ):
                raise ValueError(f"what is served does not answer like the model for {name}")


def _predict(model, inputs):
    if keras.config.backend() == "tensorflow":  # it would trace the model for every size
        return tree.map_structure(keras.ops.convert_to_numpy, model(inputs, training=False))
    return model.predict_on_batch(inputs)


def _question(specs, batch, set_size, present):
    """Inputs of the given sizes; with a mask of the given kind, and NaN where it says absent."""
    rng = np.random.default_rng(0)

    def draw(spec):
        sizes = {"batch": batch, **{f"n{axis}": set_size + axis - 1 for axis in range(1, 9)}}
        shape = [
            sizes[symbol] if size is None else size
            for size, symbol in zip(spec.shape, spec.symbols, strict=True)
        ]
        if spec.dtype == "bool":
            if present == "one":
                return np.indices(shape)[-1] == 1
            share = {"all": 1.0, "some": 0.5, "none": 0.0}[present]
            return rng.random(shape) < share
        if "int" in spec.dtype:
            return rng.integers(0, 2, shape).astype(spec.dtype)
        return rng.uniform(0, 2, shape).astype(spec.dtype)

    inputs = [draw(spec) for spec in tree.flatten(specs)]
    for mask in [x for x in inputs if x.dtype == "bool"]:
        for x in inputs:
            if x.dtype.kind == "f" and x.shape[: mask.ndim] == mask.shape:
                x[~mask] = np.nan
    return tree.pack_sequence_as(specs, inputs)
