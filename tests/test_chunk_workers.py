"""Chunks that several workers share give what one process gives."""

import concurrent.futures
import functools
import multiprocessing

import keras
import numpy as np
import pytest

from keras_sets import layers
from keras_sets import models
from tests.chunk_cases import FEATURES
from tests.chunk_cases import assert_close
from tests.chunk_cases import cut
from tests.chunk_cases import sets
from tests.conftest import once

NETWORKS = {
    "swarm": lambda: models.swarm(FEATURES, 3, hidden_units=4, iterations=3, weighted=True),
    "logsumexp": lambda: models.swarm(
        FEATURES, 3, hidden_units=4, iterations=2, pooling="logsumexp", weighted=True
    ),
    "one_a_set": lambda: models.deep_sets(
        FEATURES, 3, hidden_units=4, num_layers=2, output_pooling="max", weighted=True
    ),
    "maps": lambda: [layers.PermutationEquivariantDense(5, pooling="pooling_maps")],
    "layer": lambda: layers.SetNormalization(),
    "set_transformer": lambda: models.set_transformer(
        FEATURES, 3, 4, num_heads=2, num_inducing_points=3, output_pooling="mean", weighted=True
    ),
    "multi": lambda: layers.PermutationEquivariantDense(
        3, pooling=layers.MultiPooling(["mean", "standard_deviation", "min"])
    ),
}


def outputs_of(network, chunks, executor=None):
    outputs = models.predict_in_chunks(network, chunks, executor=executor)
    return outputs if isinstance(outputs, np.ndarray) else np.concatenate(list(outputs), axis=1)


@pytest.fixture(scope="module")
def threads():
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_to_one_process(name, threads):
    """A copy of the network in a thread stands for one in another process."""
    network = NETWORKS[name]()
    chunks = cut(sets(), (0, 5, 10, 15))
    expected = outputs_of(network, chunks)
    assert_close(outputs_of(network, chunks, threads), expected)


@once
def test_two_processes():
    network = NETWORKS["swarm"]()
    chunks = cut(sets(), (0, 4, 8, 12, 15))
    expected = outputs_of(network, chunks)
    # In the processes the chunks are read: no array is sent.
    readers = [functools.partial(read_chunk, i) for i in range(4)]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert_close(outputs_of(network, readers, pool), expected)


def read_chunk(index):
    return cut(sets(), (0, 4, 8, 12, 15))[index]


def test_functions_stand_for_chunks():
    network = NETWORKS["swarm"]()
    chunks = cut(sets(), (0, 4, 15))
    received = outputs_of(network, [lambda: chunks[0], lambda: chunks[1]])
    np.testing.assert_array_equal(received, outputs_of(network, chunks))


def test_bad_input(threads, tmp_path):
    chunks = cut(sets(), (0, 5, 15))
    swarm = NETWORKS["swarm"]()
    with pytest.raises(ValueError, match="invalid value for `executor`.*executor=4"):
        models.predict_in_chunks(swarm, chunks, executor=4)

    class OneResult:
        def map(self, function, items):
            return [function(items[0])]

    # `map` of the class would take the function for the executor, and give nothing.
    with pytest.raises(ValueError, match="invalid value for `executor`.*ThreadPoolExecutor'"):
        models.predict_in_chunks(swarm, chunks, executor=concurrent.futures.ThreadPoolExecutor)
    three = cut(sets(), (0, 5, 10, 15))  # the first chunk is computed here
    with pytest.raises(ValueError, match="each of 2 chunks. Received: 1 results"):
        outputs_of(swarm, three, OneResult())
    with pytest.raises(ValueError, match="Expected one of `scratch_dir` and `executor`"):
        models.predict_in_chunks(swarm, chunks, scratch_dir=tmp_path, executor=threads)
    inputs = keras.Input((None, FEATURES))
    inner = keras.Model(inputs, layers.Swarm(3, 4, pooling="causal")(inputs))
    nested = keras.Sequential([inner])
    for causal in (layers.CausalMeanPooling(), layers.Swarm(3, 4, pooling="causal"), nested):
        with pytest.raises(ValueError, match="causal pooling, which needs the chunks in order"):
            models.predict_in_chunks(causal, cut(sets()[:2], (0, 5, 15)), executor=threads)
    x, mask, weights = sets()
    with pytest.raises(ValueError, match="parts of the same sets"):
        outputs_of(swarm, [(x, mask), (x[:2], mask[:2])], threads)
    with pytest.raises(ValueError, match="can be read only once"):
        models.predict_in_chunks(swarm, iter(chunks), executor=threads)


def test_an_error_of_a_worker_is_raised(threads):
    def fail():
        raise OSError("no such file: part_1")

    with pytest.raises(OSError, match="no such file: part_1"):
        outputs_of(NETWORKS["swarm"](), [sets(), fail], threads)
