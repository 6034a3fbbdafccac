"""The power spectrum example: its data, its baselines, its networks' laws, its command."""

import contextlib
import io
import json

import keras
import numpy as np
import pytest
from scipy import stats

from examples.power_spectrum import __main__ as command
from examples.power_spectrum import appendix
from examples.power_spectrum import data
from examples.power_spectrum import evaluate
from examples.power_spectrum import model as models
from examples.power_spectrum import plots
from keras_sets import testing
from tests.conftest import shortened

pytestmark = pytest.mark.usefixtures("sketches")


class TestData:
    def test_the_same_samples_everywhere(self):
        # Written down once: NumPy alone decides, whatever backend Keras runs on.
        pairs, powers = data.draw_sets(np.random.default_rng(0), 2, 5, 4, 3)
        assert pairs.shape == (2, 5, 2) and powers.shape == (2, 3)
        np.testing.assert_allclose(pairs[0, 0], [5.4235129, -1.004198], rtol=1e-5)
        np.testing.assert_allclose(powers[0], [0.6799319, 0.2548993, 0.00220074], rtol=1e-5)

    def test_values_are_the_sum_of_cosines(self):
        rng = np.random.default_rng(0)
        coefficients = data.draw_functions(rng, 3, 7)
        x = rng.uniform(0, 2 * np.pi, (3, 11))
        expected = sum(
            np.abs(coefficients[:, k - 1 : k])
            * np.cos(k * x + np.angle(coefficients[:, k - 1 : k]))
            for k in range(1, 8)
        )
        np.testing.assert_allclose(data.values(coefficients, x), expected, atol=1e-12)

    def test_laws(self):
        coefficients = data.draw_functions(np.random.default_rng(1), 4000, 3)
        for k in range(3):
            powers = np.abs(coefficients[:, k]) ** 2
            assert stats.kstest(powers * (k + 1) ** 2, "expon").pvalue > 1e-3
            phases = np.angle(coefficients[:, k]) / (2 * np.pi) + 0.5
            assert stats.kstest(phases, "uniform").pvalue > 1e-3
        pairs, _ = data.draw_sets(np.random.default_rng(2), 4, 2000, 3, 3)
        assert stats.kstest(pairs[..., 0].ravel() / (2 * np.pi), "uniform").pvalue > 1e-3

    def test_powers_are_those_of_the_samples(self):
        pairs, powers = data.draw_sets(np.random.default_rng(3), 5, 200, 4, 4)
        np.testing.assert_allclose(data.least_squares_powers(pairs, 4, 4), powers, rtol=2e-4)

    def test_least_squares_is_that_of_numpy(self):
        pairs, _ = data.draw_sets(np.random.default_rng(4), 3, 40, 30, 1)
        received = data.least_squares_powers(pairs, 5, 2, chunk=2)
        for (x, y), powers in zip(
            np.moveaxis(pairs.astype("float64"), -1, 1), received, strict=True
        ):
            columns = [f(k * x) for f in (np.cos, np.sin) for k in range(1, 6)]
            fit = np.linalg.lstsq(np.transpose(columns), y, rcond=None)[0]
            np.testing.assert_allclose(powers, fit[:2] ** 2 + fit[5:7] ** 2, rtol=1e-8)

    def test_constant_prediction(self):
        """It scores pi^2 / 6 at every power, and no other constant scores less."""
        _, powers = data.draw_sets(np.random.default_rng(5), 40000, 1, 3, 3)
        errors = evaluate.constant_errors(powers)
        np.testing.assert_allclose(errors.mean(axis=0), data.CONSTANT_ERROR, rtol=0.05)
        for factor in (0.9, 1.1):
            other = evaluate.squared_errors(factor * data.constant_powers(3), powers)
            assert (other.mean(axis=0) > errors.mean(axis=0)).all()

    def test_uneven_samples(self):
        rng = np.random.default_rng(6)
        pairs, _, weights = appendix.draw_uneven(rng, 2, 20000, 2, 2)
        x = pairs[..., 0].ravel()
        cdf = lambda t: (t + 0.8 * np.sin(t)) / (2 * np.pi)  # noqa: E731
        assert stats.kstest(x, cdf).pvalue > 1e-3
        # The weighted mean of any function is that over uniform x.
        assert abs(np.average(np.cos(x), weights=weights.ravel())) < 0.02


NETWORKS = {
    "note": lambda **k: models.note_network(2, 6, 3, **k),
    "circle": lambda **k: models.circle_network(2, 6, 3, **k),
}


def some_pairs(count=3, samples=12, seed=0):
    return data.draw_sets(np.random.default_rng(seed), count, samples, 5, 3)[0]


def log_powers(model, pairs, weights=None):
    return np.log(evaluate.network_powers(model, pairs, weights))


class TestNetworks:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_order_and_copies(self, name):
        model, pairs = NETWORKS[name](), some_pairs()
        expected = log_powers(model, pairs)
        assert np.abs(expected[0] - expected[1]).max() > 1e-3
        np.testing.assert_allclose(log_powers(model, pairs[:, ::-1]), expected, atol=1e-4)
        np.testing.assert_allclose(
            log_powers(model, np.repeat(pairs, 3, axis=1)), expected, atol=1e-4
        )

    @pytest.mark.parametrize("name", NETWORKS)
    def test_fractional_weights(self, name):
        """Copies, counts in millions, and fractions are the same set."""
        model = NETWORKS[name](weighted=True)
        assert appendix.bouquet_change(model, np.random.default_rng(0)) < 1e-4
        pairs = some_pairs()
        weights = np.random.default_rng(1).uniform(0.2, 2, pairs.shape[:2])
        once = log_powers(model, pairs, np.ones_like(weights))
        assert np.abs(log_powers(model, pairs, weights) - once).max() > 1e-3
        # Weights of one are no weights; a weight of 0 takes a pair out.
        plain = NETWORKS[name]()
        plain.set_weights(model.get_weights())
        np.testing.assert_allclose(log_powers(plain, pairs), once, atol=1e-5)
        weights[:, 5:] = 0
        np.testing.assert_allclose(
            log_powers(model, pairs, weights),
            log_powers(model, pairs[:, :5], weights[:, :5]),
            atol=1e-5,
        )

    def test_moves(self):
        """The circle network does not change by moves modulo 2 pi; the note's does."""
        pairs = some_pairs(samples=40)
        for name, change in appendix.moves(
            {name: [make()] for name, make in NETWORKS.items()}, pairs, None, count=7
        )[1].items():
            assert not change[:, 0].any()
            if name == "circle":
                assert np.abs(change).max() < 1e-3
            else:
                assert np.abs(change).max() > 1e-2

    def test_infinite_set(self):
        """Of a weighted mean of squares: f's are trigonometric, and exact on a fine grid."""

        class MeanOfSquares:
            def predict(self, inputs, **options):
                squares, weights = inputs["entities"][..., 1:] ** 2, inputs["weights"][..., None]
                return (squares * weights).sum(axis=1) / weights.sum(axis=1)

        kinds = appendix.infinite_set({"a": MeanOfSquares()}, [16, 63, 4096], 4, 0, finest=256)["a"]
        assert set(kinds["Simpson's rule"]) == {16}  # even, and coarser than the finest
        random = kinds["random samples"]
        # The error of a mean of n samples.
        assert 10 < random[16] / random[4096] < 25
        finer = appendix.infinite_set({"a": MeanOfSquares()}, [32, 64], 4, 0, finest=256)["a"]
        assert max(finer["Simpson's rule"].values()) < 1e-5 < random[4096]

    def test_moves_are_not_all_that_is_ignored(self):
        """To stretch the circle, or to turn one pair alone, changes the answer."""
        model, pairs = NETWORKS["circle"](), some_pairs()
        expected = log_powers(model, pairs)
        for change in (pairs * [2, 1], pairs + [[1.0, 0]] + 0 * pairs, pairs * [1, 1.3]):
            received = log_powers(model, change.astype("float32"))
            moved = np.allclose(change - pairs, [1, 0])
            assert (np.abs(received - expected).max() < 1e-3) == moved
        pairs[:, 0, 0] += 1
        assert np.abs(log_powers(model, pairs) - expected).max() > 1e-3

    def test_convolution_is_a_sum_over_distances(self):
        """The layer against its formula, with the kernel written out."""
        rng = np.random.default_rng(0)
        pairs = rng.normal(size=(2, 7, 2)).astype("float32")
        y, basis, dual = models.CircleHarmonics(3)(pairs)
        layer = models.CircleConvolution(4)
        x = rng.normal(size=(2, 7, 5)).astype("float32")
        received = layer(x, basis, keras.ops.matmul(dual, x))
        keep, turn, own, constant = (
            keras.ops.convert_to_numpy(w).astype("float64")
            for w in (layer.keep, layer.turn, layer.own, layer.constant)
        )
        distance = pairs[:, :, None, 0].astype("float64") - pairs[:, None, :, 0]
        kernel = constant + sum(
            np.cos(k * distance)[..., None, None] * keep[k - 1]
            - np.sin(k * distance)[..., None, None] * turn[k - 1]
            for k in (1, 2, 3)
        )
        expected = x @ own + np.einsum("bijfu,bjf->biu", kernel, x) / 7
        expected[..., 2:] = np.maximum(expected[..., 2:], 0)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(received), expected, atol=1e-5)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), pairs[..., 1:])

    def test_empty_sets_and_gradients_are_finite(self):
        for make in NETWORKS.values():
            model, pairs = make(weighted=True), some_pairs(count=2)
            weights = np.ones(pairs.shape[:2], "float32")
            weights[1] = 0

            def outputs(x, model=model, weights=weights):
                inputs = {"entities": x, "weights": keras.ops.convert_to_tensor(weights)}
                return keras.ops.log(model(inputs))

            values, gradient, _ = testing.outputs_and_gradients(outputs, pairs)
            assert np.isfinite(values[0]).all() and np.isfinite(gradient).all()

    def test_sizes(self, thorough):
        """Those of the note: 20 for one layer from 2 to 4, 99,844 for depth 4, width 128."""
        assert models.note_network(1, 4, 4).count_params() == 20 + 4 * 4 + 4
        depth, width, size = (4, 128, 99844) if thorough else (1, 128, 1156)
        largest = models.note_network(depth, width, 4).count_params()
        assert largest == size
        width = models.circle_width(depth, 4, largest)
        counts = [models.circle_network(depth, w, 4).count_params() for w in (width, width + 2)]
        assert counts[0] <= largest < counts[1]


def test_loss():
    rng = np.random.default_rng(0)
    powers, predicted = rng.exponential(size=(2, 6, 3)).astype("float32")
    received = keras.ops.convert_to_numpy(models.log_power_error(powers, predicted))
    expected = np.square(np.log(predicted) - np.log(powers)).mean(axis=1)
    np.testing.assert_allclose(received, expected, rtol=1e-5)


def call(*arguments):
    split = (a.split() if isinstance(a, str) else [str(a)] for a in arguments)
    command.main([word for words in split for word in words])


class TestCommand:
    FIGURES = "--smoke --depths 1 --budget 8e-7 --epochs 1000".split()
    FIGURES += shortened("--networks note --sample-sizes 8")

    @pytest.fixture(scope="class")
    def figures(self, tmp_path_factory):
        """The folder of a run of figures 2, 3 and 4, its output and the notes in its pictures."""
        output, notes = tmp_path_factory.mktemp("figures") / "run", []
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            for name in ("sizes", "single_frequencies", "set_sizes"):
                draw = getattr(plots, name)
                note = lambda *a, draw=draw: (notes.append(a[2]), draw(*a))  # noqa: E731
                patch.setattr(plots, name, note)
            call(*self.FIGURES, "--figure", 3, "--output", output)
        return output, printed.getvalue(), notes

    @pytest.fixture(scope="class")
    def figure_5(self, tmp_path_factory):
        output = tmp_path_factory.mktemp("figure_5") / "run"
        networks = shortened("--networks circle")
        call("--smoke --depths 1 --widths 4 --figure 5 --output", output, *networks)
        return output

    def test_figure_1(self, tmp_path):
        call("--smoke --figure 1 --output", tmp_path / "run")
        assert {"config.json", "figure_1.png"} <= {p.name for p in (tmp_path / "run").iterdir()}

    def test_figures_2_3_and_4(self, figures):
        output, printed, _ = figures
        names = {p.name for p in output.iterdir()}
        assert {f"figure_{i}.png" for i in (2, 3, 4)} | {"table.txt", "scores.json"} <= names
        assert {"note-1x4-0", "note-1x8-0"} <= names
        assert "least squares, 4 frequencies" in printed and "constant" in printed
        scores = json.loads((output / "scores.json").read_text())
        assert scores["4"]["least squares, 4 frequencies"][0] < 1e-2
        # The three figures are of one run, which is not trained again.
        before = (output / "note-1x4-0" / "metrics.csv").read_bytes()
        call(*self.FIGURES, "--figure", 4, "--resume", "--output", output)
        assert (output / "note-1x4-0" / "metrics.csv").read_bytes() == before
        assert json.loads((output / "scores.json").read_text()) == scores

    def test_a_budget_is_shared(self, figures):
        output, _, notes = figures
        for name in ("note-1x4-0", "note-1x8-0"):
            # The first of two batches takes longer than the 1 ms, and the pictures say so.
            assert len((output / name / "metrics.csv").read_text().splitlines()) == 2
        assert notes == 3 * ["1 steps of 4 sets of 16 samples"]

    def test_figure_5(self, figure_5):
        scores = json.loads((figure_5 / "scores.json").read_text())
        assert list(scores) == ["8", "64", "512"]
        assert (figure_5 / "figure_5.png").exists()

    @pytest.mark.usefixtures("no_rendering")
    def test_one_network_goes_on_from_another(self, figure_5, tmp_path):
        """Its first epoch has a learning rate of about 0, and changes nothing that can be seen."""
        (network,) = figure_5.glob("circle*")
        options = "--smoke --figure 5 --depths 1 --widths 4 --networks circle --initial-model"
        more = "--learning-rate 1e-9 --epochs 1 --output"
        call(options, network / "model.keras", more, tmp_path / "run")
        before, after = (
            keras.models.load_model(folder / network.name / "model.keras").get_weights()
            for folder in (figure_5, tmp_path / "run")
        )
        for a, b in zip(before, after, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)

    def test_appendix(self, tmp_path, capsys):
        output = tmp_path / "run"
        few = shortened("--networks circle --depths 1 --widths 4 --sample-sizes 8")
        call("--smoke --output", output, *few)
        names = {p.name for p in output.iterdir()}
        assert {"appendix.png", "coda.png", "infinite_set.png", "table.txt"} <= names
        assert "1/3, 1/2, 1/6" in capsys.readouterr().out
        network = next(name for name in names if name.startswith("circle"))
        model = keras.models.load_model(output / network / "model.keras")
        assert model.predict({"entities": some_pairs()}, verbose=0).shape == (3, 4)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--figure", "6"], "choose from"),
            (["--depths", "0"], "expected a positive integer"),
            (["--widths", "8", "x"], "expected a positive integer"),
            (["--test-sets", "1"], "a standard error needs 2 sets"),
            (["--initial-model", "a.keras"], "holds the weights of one network"),
            (["--networks", "square"], "choose from"),
            (["--budget", "1", "--time-budget", "1"], "not allowed with argument --time-budget"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_dry_run(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        call("--dry-run", "--smoke")
        printed = capsys.readouterr().out
        assert "note-2x8: 212 parameters" in printed and "circle-2x" in printed
        assert not list(tmp_path.iterdir())
