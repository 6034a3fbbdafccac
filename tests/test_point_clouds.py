"""Point clouds: orbits, images as sets of pixels, the networks, the command."""

import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from examples.common import image_sets
from examples.point_clouds import __main__ as command
from examples.point_clouds import data
from examples.point_clouds import evaluate
from examples.point_clouds import model as networks
from examples.point_clouds import names
from tests.conftest import losses_of
from tests.conftest import shortened
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")

FILES = (
    "answers.png config.json learning_curves.png log.txt metrics.csv model.keras scores.json "
    "table.txt weight_traces.png"
).split()


def call(*arguments):
    command.main([str(argument) for argument in arguments])


class TestOrbits:
    def test_the_map(self):
        starts = [(0.3, 0.6), (0.9, 0.2)]
        paths = data.orbit(np.array([2.5, 4.3]), starts, 12)
        assert paths.shape == (2, 12, 2) and paths.dtype == np.float32
        for r, (x, y), path in zip((2.5, 4.3), starts, paths, strict=True):
            for point in path:
                x = (x + r * y * (1 - y)) % 1
                y = (y + r * x * (1 - x)) % 1
                np.testing.assert_allclose(point, (x, y), rtol=1e-6)

    def test_a_reflected_orbit_is_one_backwards(self):
        r, start = np.array([3.5]), data.orbit(np.array([3.5]), [(0.3, 0.6)], 8)[:, -1]
        forwards = data.orbit(r, [(0.3, 0.6)], 8)
        backwards = data.orbit(r, data.reflected(start), 7)
        # Chaos: an error of float32 grows in every step.
        expected = data.reflected(forwards[:, :-1])[:, ::-1]
        np.testing.assert_allclose(backwards[:, :4], expected[:, :4], atol=1e-4)

    def test_protocol(self):
        clouds = data.orbits(0, 20)
        parts = clouds.training, clouds.validation, clouds.test
        assert [len(sets) for sets, _ in parts] == [63, 7, 30]
        labels = np.concatenate([labels for _, labels in parts])
        assert np.bincount(labels).tolist() == [20] * 5
        assert clouds.classes[2] == "r = 4.0" and clouds.test[0][0].shape == (1000, 2)
        sets = np.stack([points for part, _ in parts for points in part])
        assert len(np.unique(sets[:, 0, 0])) == 100
        # The parameter is that of the label.
        x, y = sets[:, 0].T.astype("float64")
        r = np.array(data.PARAMETERS)[labels]
        x = (x + r * y * (1 - y)) % 1
        apart = np.abs(x - sets[:, 1, 0])
        assert np.minimum(apart, 1 - apart).max() < 1e-5
        other = data.orbits(1, 20)
        assert not np.array_equal(other.test[0][0], clouds.test[0][0])

    def test_batches_are_reflected_at_random(self):
        clouds = data.orbits(0, 20)
        batches = data.Batches(*clouds.training, reflect=True, batch_size=63, seed=3)
        inputs, labels = batches[0]
        original = {points.tobytes() for points in clouds.training[0]}
        kept = np.array([points.tobytes() in original for points in inputs["entities"]])
        assert 0.25 < kept.mean() < 0.75
        turned = data.reflected(inputs["entities"])
        for points, same in zip(turned, kept, strict=True):
            nearest = min(np.abs(points - other).max() for other in clouds.training[0])
            assert (nearest < 1e-6) == (not same)
        batches.start_at(0)
        np.testing.assert_array_equal(batches[0][0]["entities"], inputs["entities"])
        batches.start_at(1)
        assert not np.array_equal(batches[0][1], labels)


class TestImages:
    def test_points_by_hand(self):
        image = np.zeros((1, 3, 5, 1), "uint8")
        image[0, 0, 4], image[0, 2, 1], image[0, 1, 1] = 16, 12, 8  # the last is not above half
        (points,) = data.points_of(image, 17)
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points, [[1, 1, 1], [-0.5, -1, 0.5]])

    def test_digits(self, folder):
        clouds = data.images("digits", folder)
        parts = clouds.training, clouds.validation, clouds.test
        assert [len(sets) for sets, _ in parts] == [1294, 143, 360]
        sizes = sorted(len(points) for sets, _ in parts for points in sets)
        bright = (load_digits().images > 8).sum(axis=(1, 2))
        assert sizes == sorted(bright.tolist())
        assert clouds.classes == tuple("0123456789") and clouds.features == 3
        assert len(data.images("digits", folder, 20).training[0]) == 18

    def test_an_image_without_points(self):
        sets = data.points_of(np.zeros((2, 4, 4, 1), "uint8"), 17)
        assert [points.shape for points in sets] == [(0, 3), (0, 3)]


class TestNetworks:
    def test_waves(self, rng):
        x = rng.random((2, 4, 1)).astype("float32")
        waves = keras.ops.convert_to_numpy(networks.Waves(2, 1.5)(x))
        a = 2 * np.pi * x / 1.5
        expected = [np.ones_like(a), np.cos(a), np.cos(2 * a), np.sin(a), np.sin(2 * a)]
        np.testing.assert_allclose(waves, np.concatenate(expected, axis=-1), atol=1e-5)

    def test_mean_of_products(self, rng):
        first, second = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 2))
        present = np.array([[True, False, True, True], [False] * 4])
        first[0, 1] = np.nan
        means = networks.MeanOfProducts()(first, second, present)
        expected = sum(np.outer(first[0, i], second[0, i]) for i in (0, 2, 3)) / 3
        means = keras.ops.convert_to_numpy(means)
        np.testing.assert_allclose(means[0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(means[1], 0)

    @pytest.mark.parametrize("name", names.MODELS)
    def test_neither_order_nor_padding_matter(self, rng, name):
        options = command.parse(["--smoke", "--model", name])
        clouds = data.orbits(0, 2)
        network = networks.build(options, clouds)
        points = rng.random((3, 9, 2)).astype("float32")
        mask = np.arange(9) < np.array([[9], [4], [0]])
        expected = answers(network, {"entities": points, "mask": mask})[0]
        assert expected.shape == (3, 5) and np.isfinite(expected).all()
        order = rng.permutation(9)
        points, mask = points[:, order], mask[:, order]
        points[~mask] = np.nan
        changed = answers(network, {"entities": points, "mask": mask})[0]
        np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-5)


class TestReference:
    def test_summaries_by_hand(self):
        values = evaluate.summaries([np.array([[0.0, 1.0], [2.0, 5.0]]), np.zeros((0, 2))])
        mean, deviation, least, largest = [1, 3], [1, 2], [0, 1], [2, 5]
        quantiles = [0.2, 1.4, 0.5, 2, 1, 3, 1.5, 4, 1.8, 4.6]
        expected = [2, *mean, *deviation, *least, *largest, *quantiles, 2]
        np.testing.assert_allclose(values, [expected, [0] * len(expected)])

    def test_score(self):
        score = evaluate.score("a", np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]), 1.5)
        assert score["accuracy"] == 0.75 and score["error"] == pytest.approx(0.21650635)
        assert score["sets"] == 4 and score["parameters"] is None and score["minutes"] == 1.5

    def test_boosting_learns_where_points_are(self, rng):
        labels = np.arange(120, dtype="int32") % 2
        sets = [rng.normal(label, 1, (9, 2)) for label in labels]
        part = sets, labels
        predicted, minutes = evaluate.boosting(data.Clouds(("a", "b"), 1.0, part, part, part), 0)
        assert np.mean(predicted == labels) > 0.95 and minutes > 0


class TestCommand:
    @pytest.fixture
    def no_boosting(self, monkeypatch):
        """The reference says the right classes."""
        monkeypatch.setattr(evaluate, "boosting", lambda data, seed: (data.test[1], 0.0))

    def test_smoke(self, request, tmp_path, capsys, thorough):
        output = tmp_path / "run"
        if not thorough:
            request.getfixturevalue("no_boosting")
        call("--smoke", "--output", output)
        assert set(FILES) <= {path.name for path in output.iterdir()}
        own, boosting = json.loads((output / "scores.json").read_text())["scores"]
        assert own["sets"] == boosting["sets"] == 12 and 0 <= own["accuracy"] <= 1
        printed = capsys.readouterr().out
        assert f"{own['accuracy']:.4f} ± " in printed and "0.912 quoted" in printed
        network = keras.models.load_model(output / "model.keras")
        sets, labels = data.orbits(0, 8).test
        logits = network.predict(data.Batches(sets, shuffle=False), verbose=0)
        assert own["accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == labels))

    @pytest.mark.usefixtures("no_boosting")
    def test_it_learns(self, folder, tmp_path, thorough):
        options = ["--data-set", "digits", "--data-dir", folder, "--harmonics", 3, "--hidden", 32]
        options += ["--learning-rate", 0.01, "--epochs", 6, *shortened("--epochs 2")]
        call(*options, "--output", tmp_path / "run")
        own, reference = json.loads((tmp_path / "run" / "scores.json").read_text())["scores"]
        assert own["accuracy"] > (0.85 if thorough else 0.7) and reference["accuracy"] == 1
        losses = [float(loss) for loss, _ in losses_of(tmp_path / "run")]
        assert losses[1] < 0.8 * losses[0]

    @pytest.mark.usefixtures("on_one_backend")
    def test_resumed_equals_uninterrupted(self, tmp_path):
        options = ["--smoke", "--schedule", "constant", "--output"]
        call(*options, tmp_path / "whole")
        call(*options, tmp_path / "parts", "--epochs", 1)
        call(*options, tmp_path / "parts", "--epochs", 2, "--resume")
        assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")

    def test_defaults_of_every_data_set_and_model(self):
        for data_set in names.DATA_SETS:
            for name in names.MODELS:
                options = command.parse(["--data-set", data_set, "--model", name])
                expected = names.settings(data_set, name)
                assert {key: getattr(options, key) for key in expected} == expected
        assert command.parse(["--model", "swarm", "--epochs", "3"]).epochs == 3

    def test_dry_run(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        call("--dry-run", "--smoke")
        assert "orbit5k-harmonics: " in capsys.readouterr().out
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--data-set", "imagenet"], "argument --data-set: invalid choice: 'imagenet'"),
            (["--model", "pointnet"], "argument --model: invalid choice: 'pointnet'"),
            (["--points", "0"], "argument --points: expected a positive integer, received '0'"),
            (["--resume"], "no run to resume"),
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
        assert "--data-dir" in message and "--data-set digits" in message
        assert list(tmp_path.iterdir()) == []
