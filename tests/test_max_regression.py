"""Max regression: its data, its networks, its command, and datasets that are generated."""

import contextlib
import io
import json

import keras
import numpy as np
import pytest
from scipy import stats

from examples.common import datasets
from examples.max_regression import __main__ as command
from examples.max_regression import data
from examples.max_regression import model as models
from tests.conftest import losses_of
from tests.laws import answers

FILES = (
    "config.json errors.png learning_curves.png log.txt metrics.csv model.keras scores.json "
    "table.txt weight_traces.png"
).split()


def call(*arguments):
    command.main([str(argument) for argument in arguments])


class TestData:
    def test_target_is_the_largest_of_the_set(self, rng):
        inputs, targets = data.draw(rng, 500)
        assert inputs["entities"].shape == (500, 10, 1) and targets.shape == (500, 1)
        for numbers, mask, target in zip(
            inputs["entities"][..., 0], inputs["mask"], targets[:, 0], strict=True
        ):
            size = mask.sum()
            assert mask[:size].all() and (numbers[size:] == 0).all()
            assert target == max(numbers[:size])

    def test_protocol(self, rng):
        inputs, _ = data.draw(rng, 20000)
        counts = np.bincount(inputs["mask"].sum(axis=1), minlength=11)
        assert counts[0] == 0 and stats.chisquare(counts[1:]).pvalue > 1e-3
        numbers = inputs["entities"][..., 0][inputs["mask"]]
        assert stats.kstest(numbers / 100, "uniform").pvalue > 1e-3

    def test_the_same_numbers_everywhere(self):
        inputs, targets = data.draw(np.random.default_rng(0), 2)
        assert inputs["mask"].sum(axis=1).tolist() == [9, 7]
        np.testing.assert_allclose(targets[:, 0], [93.50724, 86.317894], rtol=1e-6)


class TestGeneratedDataset:
    def make(self, steps=3):
        return datasets.GeneratedDataset(lambda rng: rng.random(4), steps, seed=5)

    def test_batches_are_a_function_of_the_epoch(self):
        first, second = self.make(), self.make()
        first.on_epoch_end()
        first.on_epoch_end()
        second.start_at(2)
        for i in range(len(first)):
            np.testing.assert_array_equal(first[i], second[i])

    def test_no_batch_comes_twice(self):
        dataset, seen = self.make(), set()
        for epoch in range(4):
            dataset.start_at(epoch)
            seen |= {dataset[i][0] for i in range(len(dataset))}
        # Nor is it the stream of a set that validates or tests.
        seen |= {datasets.generator(5, stream).random() for stream in (1, 2, 3)}
        assert len(seen) == 4 * 3 + 3


class TestNetworks:
    @pytest.mark.parametrize(
        "name, parameters",
        [
            # Dense layers 1-64-64-64-64 and 64-64-1.
            ("max", 128 + 3 * 4160 + 4160 + 65),
            ("logsumexp", 128 + 3 * 4160 + 4160 + 65),
            # Embedding; three blocks of four projections and a dense layer; seed; output.
            ("set-transformer", 128 + 3 * 5 * 4160 + 64 + 65),
        ],
    )
    def test_sizes(self, name, parameters):
        assert models.build(name).count_params() == parameters

    @pytest.mark.parametrize("name", data.MODELS)
    def test_neither_order_nor_padding_matter(self, rng, name):
        network = models.build(name)
        inputs, _ = data.draw(rng, 6)
        expected = answers(network, inputs)[0]
        order = rng.permutation(data.MOST_NUMBERS)
        inputs = {key: np.take(value, order, axis=1) for key, value in inputs.items()}
        inputs["entities"][~inputs["mask"]] = 1e6
        np.testing.assert_allclose(answers(network, inputs)[0], expected, rtol=1e-4, atol=1e-4)


class TestCommand:
    SHORT = "--smoke --schedule constant --steps 3 --output".split()

    @pytest.fixture(scope="class")
    def trained(self, tmp_path_factory):
        """The folder of a run, and its output."""
        output, printed = tmp_path_factory.mktemp("max_regression") / "run", io.StringIO()
        with contextlib.redirect_stdout(printed):
            call(*self.SHORT, output, "--epochs", 3)
        return output, printed.getvalue()

    def test_smoke(self, trained):
        output, printed = trained
        assert set(FILES) <= {path.name for path in output.iterdir()}
        score = json.loads((output / "scores.json").read_text())
        assert f"{score['mean_absolute_error']:.5f} ± " in printed and "0.1355" in printed
        network = keras.models.load_model(output / "model.keras")
        inputs, targets = data.draw(datasets.generator(0, 2), 50)
        error = np.abs(network.predict(inputs, verbose=0) - targets).mean()
        assert error == pytest.approx(score["mean_absolute_error"], rel=1e-4)

    @pytest.mark.usefixtures("no_rendering")
    def test_resumed_equals_uninterrupted(self, trained, tmp_path, capsys):
        call(*self.SHORT, tmp_path, "--epochs", 1)
        call(*self.SHORT, tmp_path, "--epochs", 3, "--resume")
        assert len(losses_of(tmp_path)) == 3
        assert losses_of(tmp_path) == losses_of(trained[0])
        with pytest.raises(SystemExit):
            call(*self.SHORT, tmp_path, "--epochs", 2, "--resume")
        assert "--epochs: 3 epochs are done" in capsys.readouterr().err

    def test_dry_run(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        call("--dry-run")
        assert "max: 16,833 parameters" in capsys.readouterr().out
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--steps", "0"], "argument --steps: expected a positive integer, received '0'"),
            (["--model", "median"], "argument --model: invalid choice: 'median'"),
            (["--resume"], "no run to resume"),
            (["--initial-model", "none.keras"], "initial model none.keras cannot be used"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
