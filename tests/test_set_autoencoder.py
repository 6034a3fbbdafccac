"""Set autoencoder: the sets, the network, the references, the command."""

import json

import keras
import numpy as np
import pytest

from examples.common import image_sets
from examples.set_autoencoder import __main__ as command
from examples.set_autoencoder import data
from examples.set_autoencoder import evaluate
from examples.set_autoencoder import model as networks
from examples.set_autoencoder import names
from keras_sets import losses
from tests.conftest import losses_of
from tests.conftest import shortened
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")

FILES = (
    "config.json learning_curves.png log.txt metrics.csv model.keras numbers.png "
    "reconstructions.png scores.json table.txt weight_traces.png"
).split()


def call(*arguments):
    command.main([str(argument) for argument in arguments])


class TestData:
    def test_a_share_of_the_points(self, rng):
        sets = [rng.normal(size=(n, 2)) for n in (0, 1, 4, 10)]
        thinned = data.thin(sets, 0.3, rng)
        assert [len(points) for points in thinned] == [0, 1, 1, 3]
        for few, points in zip(thinned, sets, strict=True):
            known = {point.tobytes() for point in points}
            assert len({point.tobytes() for point in few} & known) == len(few)

    def test_digits(self, folder):
        shapes = data.load("digits", folder, 50, 0.5, 3)
        # The validation sets are those of training images.
        assert [len(s) for s in (shapes.training, shapes.validation, shapes.test)] == [45, 5, 50]
        sizes = [len(points) for points in shapes.test]
        assert shapes.most >= max(sizes) and shapes.test[0].shape[1] == 2
        assert sizes == [len(points) for points in shapes.again]
        first, second = ({p.tobytes() for p in sets[0]} for sets in (shapes.test, shapes.again))
        assert first != second

    def test_batches_are_their_own_targets(self, rng):
        sets = [rng.normal(size=(n, 2)).astype("float32") for n in (4, 10, 6)]
        batches = data.Batches(sets, 0.5, batch_size=3, buckets=1, seed=1)
        assert batches.shuffle  # without targets a `SetDataset` keeps the order
        inputs, points, weights = batches[0]
        assert points.shape == (3, 5, 2) and sorted(weights.sum(axis=1)) == [2, 3, 5]
        np.testing.assert_array_equal(inputs["entities"], points)
        np.testing.assert_array_equal(inputs["mask"], weights > 0)
        batches.start_at(1)
        assert not np.array_equal(batches[0][1], points)


class TestNetwork:
    @pytest.mark.parametrize("decoder", names.DECODERS)
    def test_neither_order_nor_padding_matter(self, rng, decoder):
        options = command.parse(["--smoke", "--decoder", decoder])
        shapes = data.Shapes([], None, [], [], None, [], most=7, period=2.5)
        network = networks.build(options, shapes)
        points = rng.random((2, 6, 2)).astype("float32")
        mask = np.arange(6) < np.array([[6], [3]])
        expected = answers(network, {"entities": points, "mask": mask})[0]
        assert expected.shape == (2, 7, 3)
        assert np.abs(expected[:, 0] - expected[:, 1]).max() > 1e-4  # of other points
        order = rng.permutation(6)
        points, mask = points[:, order], mask[:, order]
        points[~mask] = np.nan
        changed = answers(network, {"entities": points, "mask": mask})[0]
        np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-5)

    def test_loss_by_hand(self):
        true = np.array([[[0.0, 0.0]]])
        # The first is a point 0.2 away and surely there, the second is surely no point.
        predicted = np.array([[[0.0, 0.2, 50.0], [0.9, 0.9, -50.0]]])
        assert float(networks.loss()(true, predicted)) == pytest.approx(1.0, rel=1e-5)


class TestReferences:
    def test_reconstructions(self):
        outputs = np.array(
            [[[1, 2, 0], [3, 4, 9], [5, 6, 1]], [[7, 8, -9], [9, 0, -8], [0, 0, -9]]]
        )
        sets = evaluate.reconstructions(outputs)  # 0.5 + 1.0 + 0.7 points, and almost none
        assert [points.tolist() for points in sets] == [[[3, 4], [5, 6]], [[9, 0]]]

    def test_chamfer_is_that_of_the_package(self, rng):
        a, b = rng.normal(size=(5, 2)), rng.normal(size=(3, 2))
        wanted = float(losses.Chamfer()(a[None], b[None]))
        assert evaluate.chamfer(a, b) == pytest.approx(wanted, rel=1e-5)

    def test_mean_shape(self):
        sets = [np.array(points, "float32") for points in ([[0, 0], [1, 1]], [[1, 1]], [[1, 1]])]
        assert evaluate.mean_shape(sets).tolist() == [[1, 1]]

    def test_scores_by_hand(self):
        truth = [np.zeros((2, 2)), np.zeros((0, 2)), np.ones((1, 2))]
        sets = [np.array([[0.0, 1.0]]), np.zeros((1, 2)), np.ones((1, 2))]
        score = evaluate.score("a", sets, [1, 1, 4], truth)
        assert score["sets"] == 2 and score["chamfer"] == 1 and score["number"] == 5 / 3
        assert score["error"] == pytest.approx(1 / np.sqrt(2))


class TestCommand:
    def test_smoke(self, folder, tmp_path, capsys):
        output = tmp_path / "run"
        call("--smoke", "--data-dir", folder, "--output", output)
        assert set(FILES) <= {path.name for path in output.iterdir()}
        scores = json.loads((output / "scores.json").read_text())["scores"]
        names_ = ["queries", "mean shape", "mean shape of its class", "another draw of the image"]
        assert [score["method"] for score in scores] == names_
        # All points of an image are the same in every draw.
        assert scores[-1]["chamfer"] == scores[-1]["number"] == 0
        assert f"{scores[0]['chamfer']:.5f} ± " in capsys.readouterr().out
        network = keras.models.load_model(output / "model.keras")
        shapes = data.load("digits", folder, 60)
        test = data.Batches(shapes.test, shuffle=False, buckets=1)
        predicted = evaluate.reconstructions(network.predict(test, verbose=0))
        expected = evaluate.score("queries", predicted, [len(p) for p in predicted], shapes.test)
        assert scores[0] == pytest.approx(expected)

    def test_it_learns(self, folder, tmp_path, thorough):
        options = ["--data-dir", folder, "--hidden", 64, "--decoder", "dense", "--epochs", 12]
        call(*options, *shortened("--epochs 2"), "--output", tmp_path / "run")
        own, mean, *_ = json.loads((tmp_path / "run" / "scores.json").read_text())["scores"]
        assert not thorough or own["chamfer"] < 0.7 * mean["chamfer"]
        losses = [float(loss) for loss, _ in losses_of(tmp_path / "run")]
        assert losses[1] < 0.8 * losses[0]

    @pytest.mark.usefixtures("on_one_backend")
    def test_resumed_equals_uninterrupted(self, folder, tmp_path):
        options = ["--smoke", "--schedule", "constant", "--data-dir", folder, "--share", 0.5]
        call(*options, "--output", tmp_path / "whole")
        call(*options, "--output", tmp_path / "parts", "--epochs", 1)
        call(*options, "--output", tmp_path / "parts", "--epochs", 2, "--resume")
        assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")

    def test_defaults_of_every_data_set(self):
        for data_set in names.DATA_SETS:
            options = command.parse(["--data-set", data_set])
            expected = names.settings(data_set)
            assert {key: getattr(options, key) for key in expected} == expected
        assert command.parse(["--data-set", "mnist", "--share", "0.2"]).share == 0.2

    def test_dry_run(self, folder, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        call("--dry-run", "--smoke", "--data-dir", folder)
        assert "digits-queries: " in capsys.readouterr().out
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--data-set", "cifar10"], "argument --data-set: invalid choice: 'cifar10'"),
            (["--decoder", "slots"], "argument --decoder: invalid choice: 'slots'"),
            (["--share", "1.5"], "argument --share: expected at most 1, received '1.5'"),
            (["--latent", "0"], "argument --latent: expected a positive integer, received '0'"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_no_data(self, tmp_path, capsys, monkeypatch):
        pytest.importorskip("tensorflow_datasets")
        monkeypatch.setattr(image_sets, "reachable", lambda address: False)
        with pytest.raises(SystemExit) as error:
            call("--data-set", "mnist", "--data-dir", tmp_path, "--output", tmp_path / "run")
        message = capsys.readouterr().err
        assert error.value.code == 2 and len(message.splitlines()) == 1
        assert "--data-dir" in message
        assert list(tmp_path.iterdir()) == []
