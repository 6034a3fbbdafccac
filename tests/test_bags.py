"""Bags of images: how they are drawn, the networks, the command."""

import json

import keras
import numpy as np
import pytest

from examples.bags import __main__ as command
from examples.bags import data
from examples.bags import model as models
from examples.bags import names
from examples.common import image_sets
from tests.conftest import shortened
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")

IMAGES = np.arange(20, dtype="uint8").reshape(20, 1, 1, 1)
LABELS = np.arange(20) % 10


def call(*arguments):
    command.main([str(argument) for argument in arguments])


class TestData:
    def test_protocol(self, rng):
        bags, positive = data.draw(rng, IMAGES, LABELS, 4000)
        sizes = np.array([len(bag) for bag in bags])
        assert abs(sizes.mean() - 10) < 0.15 and abs(sizes.std() - 2) < 0.15 and sizes.min() >= 1
        for bag, label in zip(bags, positive[:, 0], strict=True):
            assert label == np.isin(bag, [9, 19]).any()
        assert positive.shape == (4000, 1) and positive.dtype == np.float32
        # 1 - 0.9^n of the bags with n images.
        assert abs(positive.mean() - (1 - 0.9**sizes).mean()) < 0.03

    def test_no_bag_is_empty(self, monkeypatch, rng):
        monkeypatch.setattr(data, "MEAN_SIZE", 0)
        bags, _ = data.draw(rng, IMAGES, LABELS, 50)
        assert min(len(bag) for bag in bags) == 1

    def test_moved_images(self, rng):
        images = np.zeros((40, 2, 5, 5, 1), "uint8")
        images[:, :, 2, 2], images[:, :, 0, 1] = 7, 3
        moved = data.moved(rng, images, 1)
        assert moved.shape == images.shape and moved.dtype == np.uint8
        places = set()
        for image in moved.reshape(-1, 5, 5):
            ((row, column),) = np.argwhere(image == 7)
            places.add((row, column))
            # The other pixel moved along, or over the edge.
            expected = np.argwhere(image == 3).tolist()
            assert expected == ([[row - 2, column - 1]] if row >= 2 else [])
        assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
        np.testing.assert_array_equal(data.moved(rng, images, 0), images)

    def test_an_epoch_has_the_steps_that_are_asked_for(self):
        bags = [np.full((n, 3, 3, 1), i, "uint8") for i, n in enumerate((1, 2, 3, 4, 5))]
        positive = np.arange(5, dtype="float32")[:, None]
        batches = data.Batches(bags, positive, steps=5, batch_size=2, seed=4)
        seen = [batches[i][1][:, 0].tolist() for i in range(len(batches))]
        assert len(seen) == 5 and sorted(map(len, seen)) == [1, 2, 2, 2, 2]
        counts = np.bincount(np.concatenate(seen).astype(int))
        assert counts.min() >= 1 and counts.max() <= 2
        batches.start_at(1)
        assert seen != [batches[i][1][:, 0].tolist() for i in range(len(batches))]
        batches.start_at(0)
        assert seen == [batches[i][1][:, 0].tolist() for i in range(len(batches))]


class TestNetworks:
    @pytest.mark.parametrize("name", names.MODELS)
    def test_neither_order_nor_padding_matter(self, rng, name):
        network = models.build(name, (8, 8, 1), 17)
        images = rng.integers(0, 17, (2, 5, 8, 8, 1)).astype("uint8")
        mask = np.arange(5) < np.array([[5], [3]])
        expected = answers(network, {"entities": images, "mask": mask})[0]
        assert expected.shape == (2, 1) and ((expected > 0) & (expected < 1)).all()
        order = rng.permutation(5)
        images, mask = images[:, order], mask[:, order]
        images[~mask] = 16
        changed = answers(network, {"entities": images, "mask": mask})[0]
        np.testing.assert_allclose(changed, expected, rtol=1e-4)

    def test_size_of_the_published_network(self):
        sizes = {name: models.build(name, (28, 28, 1), 256).count_params() for name in names.MODELS}
        lenet = 20 * (25 + 1) + 50 * (20 * 25 + 1) + 500 * (50 * 16 + 1)
        attention = 128 * 501 + 128
        assert sizes["embedding-max"] == sizes["instance-mean"] == lenet + 501
        assert sizes["attention"] == lenet + 501 + attention
        assert sizes["gated-attention"] == lenet + 501 + attention + 128 * 501

    def test_instances(self, rng):
        """What is pooled are the answers for bags of one image."""
        images = rng.integers(0, 17, (1, 3, 8, 8, 1)).astype("uint8")
        single = {"entities": images[0][:, None], "mask": np.ones((3, 1), bool)}
        whole = {"entities": images, "mask": np.ones((1, 3), bool)}
        for name, pool in (("instance-max", np.max), ("instance-mean", np.mean)):
            network = models.build(name, (8, 8, 1), 17)
            each, received = answers(network, single)[0], answers(network, whole)[0]
            np.testing.assert_allclose(received, pool(each), rtol=1e-5)
        network = models.build("instance-logsumexp", (8, 8, 1), 17)
        each = answers(network, single)[0].astype("float64")
        odds = (each / (1 - each)).sum()
        expected = odds / (1 + odds)
        np.testing.assert_allclose(answers(network, whole)[0], expected, rtol=1e-4)

    @pytest.mark.parametrize("name", ["gated-attention", "instance-max", "instance-logsumexp"])
    def test_probabilities_in_half_precision(self, name):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            network = models.build(name, (8, 8, 1), 17)
        finally:
            keras.config.set_dtype_policy("float32")
        assert keras.backend.standardize_dtype(network.output.dtype) == "float32"

    @pytest.mark.parametrize("name", ["attention", "gated-attention"])
    def test_attention(self, rng, name):
        network = models.attention_of(models.build(name, (8, 8, 1), 17))
        images = rng.integers(0, 17, (2, 4, 8, 8, 1)).astype("uint8")
        mask = np.arange(4) < np.array([[4], [2]])
        attention = answers(network, {"entities": images, "mask": mask})[0]
        np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
        assert (attention[mask] > 0).all() and (attention[~mask] == 0).all()


class TestCommand:
    def test_smoke(self, tmp_path, capsys, folder, thorough):
        output = tmp_path / "run"
        few = shortened("--models gated-attention")
        call("--smoke", "--data-dir", folder, "--output", output, *few)
        files = {path.name for path in output.iterdir()}
        assert {"auc.png", "attention.png", "config.json", "scores.json", "table.txt"} <= files
        scores = json.loads((output / "scores.json").read_text())
        compared = ["gated-attention", *(["instance-max"] if thorough else [])]
        assert scores["bags"] == [6] and list(scores["auc"]) == compared
        assert all(0 <= value <= 1 for points in scores["auc"].values() for value in points[0])
        out = capsys.readouterr().out
        for name in scores["auc"]:
            assert (output / f"{name}-6-0" / "model.keras").exists()
            assert f"{name:18} {scores['parameters'][name]:>10,}" in out

    @pytest.mark.usefixtures("on_one_backend")
    def test_resume_goes_on(self, tmp_path, capsys, folder):
        options = ["--smoke", "--data-dir", folder, "--models", "embedding-mean"]
        call(*options, "--output", tmp_path)
        metrics = (tmp_path / "embedding-mean-6-0" / "metrics.csv").read_text()
        first = json.loads((tmp_path / "scores.json").read_text())["auc"]["embedding-mean"]
        call(*options, "--output", tmp_path, "--resume", "--repeats", 2)
        assert "over 2 trainings" in capsys.readouterr().out
        both = json.loads((tmp_path / "scores.json").read_text())["auc"]["embedding-mean"]
        assert both[0][:1] == first[0] and len(both[0]) == 2
        assert (tmp_path / "embedding-mean-6-0" / "metrics.csv").read_text() == metrics

    def test_table(self):
        options = command.parse(["--data-set", "mnist", "--bags", "50", "60", "--repeats", "2"])
        scores = {"attention": [[0.7, 0.9], [0.5, 0.5]], "instance-logsumexp": [[1, 1], [1, 1]]}
        text = command.table(options, dict.fromkeys(scores, 3), scores)
        assert "0.800 ± 0.141 (0.768)" in text and "0.500 ± 0.000" in text.splitlines()[2]
        assert "(" not in text.splitlines()[3]
        assert command.published("digits", "attention") == {}
        assert set(names.PUBLISHED) < set(names.MODELS)
        assert all(len(values) == len(names.NUMBERS) for values in names.PUBLISHED.values())

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--data-set", "cats"], "argument --data-set: invalid choice: 'cats'"),
            (["--bags", "10", "0"], "expected a positive integer, received '0'"),
            (["--move", "-1"], "argument --move: expected a non-negative integer, received '-1'"),
            (["--initial-model", "x.keras"], "holds the weights of one network"),
            (["--test-bags", "1"], "argument --test-bags: expected bags with and without a 9"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, folder, arguments, message):
        output = tmp_path / "run"
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--data-dir", folder, "--output", output, *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not output.exists()

    def test_a_data_set_that_is_not_there(self, tmp_path, capsys, monkeypatch):
        pytest.importorskip("tensorflow_datasets")
        monkeypatch.setattr(image_sets, "reachable", lambda address: False)
        with pytest.raises(SystemExit, match="2"):
            call("--smoke", "--data-set", "mnist", "--data-dir", tmp_path)
        assert "The data set mnist is not in" in capsys.readouterr().err
