"""Arrays of NumPy that backends do not take as they are: byte orders, wide integers."""

import keras
import numpy as np
import pytest

from keras_sets import layers
from keras_sets import models
from keras_sets.utils import SetDataset
from keras_sets.utils import pad_sets


def test_bytes_in_the_other_order():
    """As of files in the formats FITS and HDF5."""
    x = np.arange(24).reshape(4, 3, 2)
    other = x.astype(x.dtype.newbyteorder("S"))
    assert not other.dtype.isnative
    labels = other[:, 0, 0]
    for sets, targets in ((other, labels), ([*other], [*other[..., 0]])):
        inputs, targets, *_ = SetDataset(sets, targets, batch_size=4, shuffle=False)[0]
        for y in (inputs["entities"], targets, pad_sets(sets)[0]):
            assert y.dtype == x.dtype and y.dtype.isnative
        assert inputs["entities"].tolist() == x.tolist()
    pooling = layers.SumPooling()
    mask, weights = np.ones((4, 3), ">i4"), np.full((4, 3), 2, ">f8")
    chunks = [(other.astype(">f4"), mask, weights), (other, mask, weights)]
    received = models.predict_in_chunks(pooling, chunks)
    np.testing.assert_array_equal(received, 4 * x.sum(axis=1))


def test_integers_that_would_wrap_around():
    """Such as times in nanoseconds: on JAX 2**40 became 0."""
    x = np.full((2, 3, 1), 2**40)
    reads = [
        lambda: SetDataset(x)[0][0]["entities"],
        lambda: SetDataset(x % 7, x[:, 0, 0])[0][1],
        lambda: SetDataset([*(x % 7)], [*x])[0][1],
        lambda: models.predict_in_chunks(layers.MeanPooling(), [x]),
    ]
    for read in reads:
        if keras.backend.backend() != "jax":
            assert (read() == 2**40).all()
        else:
            with pytest.raises(ValueError, match=r"int32 can hold.* from 1099511627776 to 1099"):
                read()
    assert (SetDataset(x.astype("float32"))[0][0]["entities"] == 2**40).all()
    assert (SetDataset(x - 2**40)[0][0]["entities"] == 0).all()


def test_sample_weights_that_would_all_be_0():
    with pytest.raises(ValueError, match="`sample_weight`.*float32.*largest.*at most 1e-50"):
        SetDataset(np.ones((2, 3, 1)), [1, 2], sample_weight=[1e-50, 1e-60])
    dataset = SetDataset(np.ones((2, 3, 1)), [1, 2], sample_weight=[1, 1e-60], shuffle=False)
    assert dataset[0][2].tolist() == [1, 0]
    assert not SetDataset(np.ones((2, 3, 1)), [1, 2], sample_weight=[0, 0])[0][2].any()
