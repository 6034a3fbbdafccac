"""Writes one small `.keras` file a layer, and what the layer answers, on this backend.

    KERAS_BACKEND=jax python -m tests.make_golden

A case of every public class is enough; `tests/test_saving.py` has all options, on one
backend. The files in `tests/data/golden/VERSION/BACKEND` are committed, and every backend's tests
read those of all backends and of all releases: see `tests/test_golden.py`. Files that
exist are kept, unless `--force` is given: that a file of an older state still loads is
what they are for.

Inputs and weights come from NumPy, so the three backends write the same numbers.

    python -m tests.make_golden --pack keras_sets/models/weights/*.keras

prepares trained networks that come with the package, so that every Keras loads them.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile

import keras
import numpy as np

import keras_sets
from keras_sets import groups
from keras_sets import layers
from tests import cases
from tests import laws

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "data" / "golden"
# Of initialisers, from Keras 3.15 on; the lowest version of pyproject.toml does not know them.
NEW_OPTIONS = ("input_axes", "output_axes")


# Rows of the registry.
ROWS = (
    "mean_pooling sum_pooling max_pooling logsumexp_pooling causal_mean_pooling pooling_maps "
    "dense_mean swarm_mean set_normalization sab isab pma dss_dense dss_conv dss_conv_2d "
    "dss_conv_3d graph_nodes principal_axes slot_refinement slot_pooling min_pooling "
    "variance_pooling standard_deviation_pooling softmax_pooling power_mean_pooling "
    "quantile_pooling median_pooling sort_pooling gated_attention_pooling multi_pooling"
).split()


def _streaming(dtype=None):
    swarm = layers.Swarm(4, hidden_units=3, iterations=3, pooling="causal")
    return keras.layers.RNN(swarm.streaming_cell(), return_sequences=True, dtype=dtype)


# Layers that the laws of the registry do not fit.
OTHERS = [
    cases.Case(
        "swarm_cell",
        lambda **kwargs: keras.layers.RNN(layers.SwarmCell(4), **kwargs),
        "causal",
    ),
    cases.Case("swarm_streaming", _streaming, "causal"),
    cases.Case(
        "permutation_group_dense",
        lambda **kwargs: layers.PermutationGroupDense(4, groups.cyclic(5), **kwargs),
        "group",
    ),
    cases.Case(
        "graph_edges",
        lambda **kwargs: layers.GraphEquivariantDense(4, 2, 2, **kwargs),
        "equivariant",
        elements=(5,),
    ),
    cases.Case(
        "dss",
        lambda **kwargs: layers.DSS(keras.layers.Dense(4), activation="tanh", **kwargs),
        "equivariant",
    ),
]


def load_cases():
    """The cases that have files, `{name: case}`."""
    rows = {case.name: case for case in cases.CASES}
    return {**{name: rows[name] for name in ROWS}, **{case.name: case for case in OTHERS}}


def golden_model(case, seed=0):
    """A functional model around a case, with weights that do not depend on the backend.

    Layers on sets get a mask and weights as further inputs, so that a file also holds
    how a layer is called.
    """
    keras.utils.clear_session(free_memory=False)
    layer = case.make()
    points = keras.Input(case.input_shape[1:], name="points")
    inputs = {"points": points}
    if isinstance(layer, layers.SetLayer):
        inputs["mask"] = keras.Input(case.entities, dtype="bool", name="mask")
        inputs["weights"] = keras.Input(case.entities, name="weights")
        outputs = layer(points, mask=inputs["mask"], weights=inputs["weights"])
    else:
        outputs = layer(points)
    model = keras.Model(inputs, outputs, name="golden")
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape).astype("float32"))
    return model


def golden_inputs(case, seed=1):
    """Inputs of a case's model: a few absent entities, a few that count double."""
    rng = np.random.default_rng(seed)
    shape = (case.input_shape[0], *case.entities)
    mask = rng.random(shape) < 0.8
    mask.reshape(shape[0], -1)[:, 0] = True
    return {
        "points": rng.normal(size=case.input_shape).astype("float32"),
        "mask": mask,
        "weights": rng.choice([0.5, 1.0, 2.0], size=shape).astype("float32"),
    }


def answers(model, case):
    """What the model makes of the case's inputs, as a flat list of arrays."""
    inputs = {k: v for k, v in golden_inputs(case).items() if k in model.input}
    return laws.answers(model, inputs)


def write(case, directory):
    """Writes `NAME.keras` and `NAME.npz`."""
    model = golden_model(case)
    path = pathlib.Path(directory) / f"{case.name}.keras"
    model.save(path)
    pack(path)
    np.savez_compressed(path.with_suffix(".npz"), *answers(model, case))


def pack(path):
    """Packs a `.keras` file again: compressed, without the time of writing, for every Keras.

    Weights and answers stay what they are.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(members["metadata.json"])
    metadata.pop("date_saved", None)
    members["metadata.json"] = json.dumps(metadata).encode()
    config = without_new_options(json.loads(members["config.json"]))
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)


def without_new_options(config):
    """A configuration without options at their default that Keras 3.14 refuses."""
    if isinstance(config, list):
        return [without_new_options(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        key: without_new_options(value)
        for key, value in config.items()
        if value is not None or key not in NEW_OPTIONS
    }


def source_digest():
    """Names a state of the sources: files of another state are not compared."""
    digest = hashlib.sha256(keras.version().encode())
    sources = [*sorted((ROOT / "keras_sets").rglob("*.py")), *sorted((ROOT / "tests").glob("*.py"))]
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_exchange(directory):
    """Writes all cases to `directory/DIGEST/BACKEND`, at once or not at all.

    Test runs on other backends read them; they may run at the same time.
    """
    target = pathlib.Path(directory) / source_digest() / keras.backend.backend()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as temporary:
        for case in load_cases().values():
            write(case, temporary)
        shutil.rmtree(target, ignore_errors=True)
        finished = pathlib.Path(temporary) / "finished"
        finished.mkdir()
        for path in pathlib.Path(temporary).glob("*.*"):
            os.replace(path, finished / path.name)
        os.replace(finished, target)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    backend = keras.backend.backend()
    default = GOLDEN / keras_sets.__version__ / backend
    parser.add_argument("--output", type=pathlib.Path, default=default)
    parser.add_argument("--cases", nargs="*", help="names of cases; default: all")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    parser.add_argument(
        "--pack", nargs="+", type=pathlib.Path, metavar="FILE", help="only pack these .keras files"
    )
    options = parser.parse_args()
    if options.pack:
        for path in options.pack:
            pack(path)
        return
    known = load_cases()
    unknown = set(options.cases or ()) - set(known)
    if unknown:
        parser.error(f"no case is named {sorted(unknown)}; cases are {sorted(known)}")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.cases or known:
        if options.force or not (options.output / f"{name}.keras").exists():
            write(known[name], options.output)
            print(options.output / f"{name}.keras")


if __name__ == "__main__":
    main()
