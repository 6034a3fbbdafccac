"""The sum of digits: its data, its networks, its command, and datasets of arrays."""

import json

import numpy as np
import pytest
from scipy import stats

from examples.common import datasets
from examples.digit_sum import __main__ as command
from examples.digit_sum import data
from examples.digit_sum import model as models
from tests.conftest import losses_of
from tests.conftest import shortened
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")


def call(*arguments):
    command.main([str(argument) for argument in arguments])


class TestData:
    def test_targets_are_the_sums(self, rng):
        digits, sums = data.draw(rng, 500)
        assert digits.shape == (500, 9) and sums.shape == (500, 1)
        for row, total in zip(digits.tolist(), sums[:, 0], strict=True):
            size = sum(digit > 0 for digit in row)
            assert all(1 <= digit <= 9 for digit in row[:size]) and not any(row[size:])
            assert total == sum(row)

    def test_protocol(self, rng):
        digits, _ = data.draw(rng, 20000)
        sizes = np.bincount((digits > 0).sum(axis=1), minlength=10)
        assert sizes[0] == 0 and stats.chisquare(sizes[1:]).pvalue > 1e-3
        assert stats.chisquare(np.bincount(digits[digits > 0])[1:]).pvalue > 1e-3

    def test_lengths_that_are_given(self, rng):
        digits, _ = data.draw(rng, 3, 12, np.array([12, 5, 1]))
        assert (digits > 0).sum(axis=1).tolist() == [12, 5, 1]
        with pytest.raises(ValueError, match="`longest` must hold all digits, at least 13"):
            data.draw(rng, 3, 12, 13)


class TestArrayDataset:
    def batches(self, dataset, epochs):
        for epoch in epochs:
            dataset.start_at(epoch)
            yield from (dataset[i] for i in range(len(dataset)))

    @pytest.mark.parametrize("sets, steps", [(10, 3), (7, 1), (3, 4), (12, None)])
    def test_every_set_once_before_any_again(self, sets, steps):
        dataset = datasets.ArrayDataset({"a": np.arange(sets)}, np.arange(sets), 4, steps, seed=1)
        seen = []
        for inputs, targets in self.batches(dataset, range(6)):
            assert targets.shape == (4,)
            np.testing.assert_array_equal(inputs["a"], targets)
            seen += targets.tolist()
        rounds = [seen[i : i + sets] for i in range(0, len(seen) - sets + 1, sets)]
        assert all(sorted(order) == list(range(sets)) for order in rounds)
        assert len({tuple(order) for order in rounds}) > 1

    def test_order_and_change_are_functions_of_the_epoch(self):
        def change(rng, inputs, targets):
            return inputs, targets + rng.random(targets.shape)

        first, second = (
            datasets.ArrayDataset(np.arange(10), np.arange(10), 4, seed=2, change=change)
            for _ in range(2)
        )
        for _ in range(3):
            first.on_epoch_end()
        second.start_at(3)
        for i in range(len(first)):
            np.testing.assert_array_equal(first[i][1], second[i][1])


class TestNetworks:
    # Embedding of ten digits, then 100-30-1 dense, an LSTM of 50 or a GRU of 80 units and 1.
    SIZES = {
        "deep-sets": 1000 + 3030 + 31,
        "lstm": 1000 + 4 * 50 * (100 + 50 + 1) + 51,
        "gru": 1000 + 3 * 80 * (100 + 80 + 2) + 81,
    }

    @pytest.mark.parametrize("name", data.MODELS)
    def test_sizes_and_padding(self, rng, name):
        network = models.build(name)
        assert network.count_params() == self.SIZES[name]
        digits, _ = data.draw(rng, 4)
        wider = np.pad(digits, ((0, 0), (0, 3)))
        expected = answers(network, digits)[0]
        np.testing.assert_allclose(answers(network, wider)[0], expected, rtol=1e-5, atol=1e-6)

    def test_only_deep_sets_ignores_the_order(self, rng):
        digits, _ = data.draw(rng, 8, lengths=9)
        for name in data.MODELS:
            network = models.build(name)
            a, b = (answers(network, order)[0] for order in (digits, digits[:, ::-1].copy()))
            assert np.allclose(a, b, rtol=1e-4, atol=1e-5) == (name == "deep-sets")


class TestCommand:
    # Small sets and a high rate: enough for the sums of sets longer than any it has seen.
    LEARN = "--models deep-sets --batch-size 64 --learning-rate 0.01 --test-sets 50".split()

    @pytest.fixture(scope="class")
    def trained(self, tmp_path_factory):
        """A network that has learned; for a short time only where steps are compiled."""
        output = tmp_path_factory.mktemp("digit_sum") / "run"
        options = ["--sets", 4000, "--epochs", 12, *shortened("--sets 2000 --epochs 3")]
        call(*self.LEARN, "--lengths", 10, 20, *options, "--output", output)
        return output

    def test_smoke(self, request, tmp_path, thorough):
        output, compared, lengths = tmp_path / "run", data.MODELS, [5, 20]
        if thorough:
            call("--smoke", "--output", output)
        else:
            output, compared, lengths = request.getfixturevalue("trained"), ["deep-sets"], [10, 20]
        names = {path.name for path in output.iterdir()}
        assert {"accuracy.png", "config.json", "scores.json", "table.txt"} <= names
        scores = json.loads((output / "scores.json").read_text())
        assert scores["lengths"] == lengths and list(scores["accuracies"]) == list(compared)
        for name in compared:
            files = {path.name for path in (output / name).iterdir()}
            assert {"learning_curves.png", "metrics.csv", "model.keras"} <= files
            assert len(scores["accuracies"][name]) == 2
        assert "deep sets 100 % at every length" in (output / "table.txt").read_text()

    def test_it_learns(self, trained, thorough):
        losses = [float(loss) for loss, _ in losses_of(trained / "deep-sets")]
        assert losses[2] < 0.15 * losses[0]
        scores = json.loads((trained / "scores.json").read_text())
        assert not thorough or min(scores["accuracies"]["deep-sets"]) > 0.95

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--models", "rnn"], "argument --models: invalid choice: 'rnn'"),
            (["--lengths", "0"], "argument --lengths: expected a positive integer"),
            (["--initial-model", "x.keras"], "holds the weights of one network"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
