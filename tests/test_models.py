"""Laws of whole models, over all rows of their registry."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_sets import layers
from keras_sets import models
from keras_sets import testing
from tests.laws import answers
from tests.laws import assert_close
from tests.model_cases import MODELS
from tests.model_cases import AsLayer

PRETRAINED = ("clustering_2d", "mixture_of_gaussians")
every_model = pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)


def test_every_model_is_in_the_registry():
    """Those on sets; images have tests of their own."""
    others = {"generate", "load_pretrained", "predict_in_chunks", "swarm_image_transformer"}
    rows = [case.name for case in MODELS]
    tested = {name for name in models.__all__ if any(row.startswith(name) for row in rows)}
    assert set(models.__all__) - tested == others


@every_model
def test_padding(case, thorough):
    """What stands in the padding, NaN included, reaches no output, input or weight."""
    model = case.make()
    x, mask, weights = case.inputs()
    # Those of trained networks on one backend: small networks of the same layers stand for them.
    gradients = case.gradients and (thorough or not case.name.startswith(PRETRAINED))
    testing.assert_padding_invariant(
        AsLayer(model), x, mask=mask, weights=weights, padding=2, gradients=gradients
    )


@every_model
def test_outputs(case):
    """One output a set has no axis of size 1, with which labels `(batch,)` would broadcast."""
    assert case.make().output_shape == (None, *case.outputs)


def test_one_seed_is_one_output_a_set():
    """Labels `(batch,)` against outputs `(batch, 1, 1)` would be compared with each other."""
    model = models.set_transformer(2, 1, hidden_units=8, num_seeds=1, feed_forward_layers=1)
    assert model.output_shape == (None, 1)
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    inputs = {"entities": x, "mask": np.ones((3, 4), bool)}
    labels = np.array([1.0, -2.0, 3.0], "float32")
    model.compile(loss="mse")
    expected = np.mean((model.predict_on_batch(inputs)[:, 0] - labels) ** 2)
    assert abs(model.test_on_batch(inputs, labels) / expected - 1) < 1e-5
    pooled = models.set_transformer(2, 1, hidden_units=8, output_pooling="mean")
    assert pooled.output_shape == (None, 1)
    with pytest.raises(ValueError, match="output_pooling='mean', num_seeds=2"):
        models.set_transformer(2, 1, num_seeds=2, output_pooling="mean")


@pytest.mark.parametrize(
    "make", [models.deep_sets, functools.partial(models.set_transformer, num_heads=1)]
)
def test_an_output_pooling_that_is_none_of_sets(make):
    """Outputs `(batch, n, units)` would be compared with every label of `(batch,)`."""
    for pooling in ("causal_mean", layers.MeanPooling(keepdims=True)):
        with pytest.raises(ValueError, match="`output_pooling`.*gives shape .None, (None|1), 4."):
            make(2, 1, hidden_units=4, num_layers=1, output_pooling=pooling)


def test_first_biases_of_swarm():
    """Uniform in [-1, 1] by default; a name means what it means in Keras."""
    options = {"hidden_units": 50, "iterations": 1}
    for initializer, largest in ((None, 1), ("random_uniform", 0.05), ("zeros", 0)):
        model = models.swarm(2, 3, bias_initializer=initializer, **options)
        biases = keras.ops.convert_to_numpy(model.get_layer("swarm_0").cell.bias)
        drawn = np.abs(biases[:50])  # those of the forget gates are 1
        assert drawn.max() <= largest and drawn.mean() >= 0.4 * largest


@pytest.mark.parametrize("iterations, steps", [(1, [1]), (3, [2, 3]), (5, [5]), (6, [2, 6])])
def test_a_swarm_that_answers_after_several_iterations(iterations, steps, tmp_path):
    """Each answer is that of the same weights with so many iterations; files keep it."""

    def swarm(iterations, **options):
        return models.swarm(2, 3, hidden_units=4, iterations=iterations, num_layers=2, **options)

    model = swarm(iterations, return_iterations=True, principal_axes=True)
    rng = np.random.default_rng(0)
    mask = np.arange(6) < [[6], [4]]
    inputs = {"entities": rng.normal(size=(2, 6, 2)).astype("float32"), "mask": mask}
    (answer,) = answers(model, inputs)
    assert (
        answer.shape
        == (2, len(steps), 6, 3)
        == model.compute_output_shape({"entities": (2, 6, 2), "mask": (2, 6)})
    )
    assert (answer[~np.broadcast_to(mask[:, None], answer.shape[:3])] == 0).all()
    one = swarm(iterations, principal_axes=True)
    one.set_weights(model.get_weights())
    first = one.get_layer("swarm_0").output
    last, hidden = answers(keras.Model(one.input, [one.output, first]), inputs)
    np.testing.assert_allclose(last, answer[:, -1], atol=1e-5)
    # The last layer with fewer iterations, behind the same layers.
    hidden = np.maximum(hidden, 0)
    for step, expected in zip(steps, np.moveaxis(answer, 1, 0), strict=True):
        last = layers.Swarm(3, hidden_units=4, iterations=step)
        last.build(hidden.shape)
        last.set_weights(one.get_layer("swarm_1").get_weights())
        outputs, _, _ = testing.outputs_and_gradients(last, hidden, mask=mask, gradients=False)
        np.testing.assert_allclose(expected, outputs[0], atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(answers(loaded, inputs)[0], answer, atol=1e-6)
    with pytest.raises(ValueError, match="`return_iterations` is for models"):
        swarm(3, return_iterations=True, output_pooling="mean")


@pytest.mark.parametrize("pooling", ["power_mean", "gated_attention", "multi"])
@pytest.mark.parametrize("make", [models.deep_sets, models.swarm])
def test_every_layer_has_a_pooling_of_its_own(make, pooling, tmp_path):
    """Layers of several widths, and a file with the weights of all of them."""
    given = layers.get_pooling(pooling)
    model = make(3, 2, hidden_units=4, num_layers=3, pooling=given)
    poolings = [layer.pooling for layer in model.layers if hasattr(layer, "pooling")]
    assert poolings[0] is given and len(set(map(id, poolings))) == 3
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    model.save(tmp_path / "model.keras")
    inputs = {"entities": rng.normal(size=(2, 5, 3)), "mask": np.ones((2, 5), bool)}
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(answers(loaded, inputs), answers(model, inputs))


def test_poolings_without_weights_are_shared():
    """One's own may have no configuration, and functions never have one."""

    class Largest(layers.MaxPooling):
        def __init__(self, power):
            super().__init__()
            self.power = power

    given = Largest(3)
    model = models.deep_sets(3, 2, hidden_units=4, num_layers=2, pooling=given)
    assert all(layer.pooling is given for layer in model.layers if hasattr(layer, "pooling"))


@pytest.mark.parametrize("seed", [None, 7])
def test_layers_of_a_swarm_start_from_weights_of_their_own(seed):
    given = keras.initializers.RandomNormal(seed=seed)
    model = models.swarm(
        4, 4, hidden_units=4, num_layers=3, kernel_initializer=given, bias_initializer=given
    )
    cells = [layer.cell for layer in model.layers if hasattr(layer, "cell")]
    for name in ("kernel", "bias"):
        first, second, third = (ops.convert_to_numpy(getattr(cell, name)) for cell in cells)
        assert np.abs(first - second).max() > 1e-3 and np.abs(second - third).max() > 1e-3


@pytest.mark.parametrize(
    "make", [models.deep_sets, models.swarm, models.set_transformer, models.slot_clustering]
)
def test_errors_name_the_argument_of_the_function(make):
    with pytest.raises(ValueError, match="`hidden_units`.* Received: hidden_units=0"):
        make(2, 3, hidden_units=0)
    with pytest.raises(ValueError, match="`units`.* Received: units=0"):
        make(2, 0)
    if make is not models.slot_clustering:
        with pytest.raises(ValueError, match="`output_pooling`.*'mean'.*output_pooling='average'"):
            make(2, 3, hidden_units=4, output_pooling="average")


@pytest.mark.parametrize(
    "make, options",
    [
        (models.deep_sets, {"output_pooling": "mean"}),
        (models.set_transformer, {"num_heads": 2}),
        (models.sorted_lstm, {}),
    ],
)
def test_units_of_numpy(make, options):
    """Such as `labels.max() + 1`."""
    model = make(2, np.int64(3), hidden_units=4, **options)
    assert model.output_shape[-1] == 3


def test_heads_share_the_width():
    with pytest.raises(ValueError, match="`hidden_units` .* hidden_units=128, num_heads=3"):
        models.set_transformer(2, 3, num_heads=3)
