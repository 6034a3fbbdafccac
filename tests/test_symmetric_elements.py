"""Sets of symmetric elements: their data, the networks that are compared, the command."""

import json
import shutil

import numpy as np
import pytest
from scipy import signal

from examples.symmetric_elements import __main__ as command
from examples.symmetric_elements import data
from examples.symmetric_elements import model as models
from tests.laws import answers

pytestmark = pytest.mark.usefixtures("sketches")


def call(*arguments):
    command.main([str(argument) for argument in arguments])


class TestSignals:
    def test_agrees_with_scipy(self, monkeypatch):
        monkeypatch.setattr(data, "NOISE", 0.0)
        measured, labels = data.signals(np.random.default_rng(3), 60)
        assert measured.shape == (60, 25, 100, 1) and set(labels.tolist()) == {0, 1, 2}
        # The same draws in the same order, then one set after the other.
        rng = np.random.default_rng(3)
        assert (rng.integers(0, 3, 60) == labels).all()
        frequencies, shifts, heights, offsets = (
            rng.uniform(low, high, (60, 1))[:, 0]
            for low, high in ((1, 10), (0, 1), (1, 10), (-5, 5))
        )
        time = np.linspace(0, 1, 100)
        waves = (np.sin, signal.square, signal.sawtooth)
        wrong = 0
        for i, label in enumerate(labels):
            phase = 2 * np.pi * frequencies[i] * (time + shifts[i])
            expected = offsets[i] + heights[i] * waves[label](phase)
            wrong += (~np.isclose(measured[i, :, :, 0], expected, rtol=1e-5, atol=1e-4)).sum()
        # Two ways of rounding may put a sample on either side of a jump.
        assert wrong <= 25

    def test_noise(self):
        measured, _ = data.signals(np.random.default_rng(0), 200)
        deviations = measured.std(axis=1, ddof=1)[..., 0]
        # Noise of 3 times a height uniform on 1..10.
        heights = np.sqrt((deviations**2).mean(axis=1)) / 3
        assert 0.9 < heights.min() < 2 and 9 < heights.max() < 10.5
        assert abs(heights.mean() - 5.5) < 4 * 2.6 / np.sqrt(200)


class TestOddOneOut:
    images, labels = data.digits()

    def test_seven_of_one_class_and_one_of_another(self):
        part = data.split_images(len(self.labels), np.random.default_rng(1))[2]
        images, classes = self.images[part], self.labels[part]
        sets, places = data.odd_one_out(np.random.default_rng(0), 12, images, classes)
        assert sets.shape == (12, 8, 12, 12, 1)
        canvas = np.zeros((len(images), 12, 12), "float32")
        canvas[:, :8, :8] = images
        shifts = set()
        for elements, place in zip(sets[..., 0], places, strict=True):
            found = []
            for down in range(12):
                for right in range(12):
                    back = np.roll(elements, (down, right), axis=(1, 2))
                    same = (back[:, None] == canvas).all(axis=(2, 3))
                    if same.any(axis=1).all():
                        found.append(same.argmax(axis=1))
                        shifts.add((down, right))
            # One shift for the whole set, and eight different images.
            (chosen,) = found
            assert len(set(chosen.tolist())) == 8
            others = np.delete(classes[chosen], place)
            assert len(set(others.tolist())) == 1 and classes[chosen[place]] != others[0]
        assert len(shifts) > 1 and len(set(places.tolist())) > 1

    def test_images_are_disjoint(self):
        parts = data.split_images(1797, np.random.default_rng(0))
        assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
        assert [len(part) for part in parts] == [1078, 270, 449]

    def test_too_few_images_of_a_class_are_an_error(self):
        with pytest.raises(ValueError, match="`images` must hold at least 8 of every class"):
            data.odd_one_out(np.random.default_rng(0), 1, self.images[:40], self.labels[:40])


@pytest.mark.parametrize("task", data.TASKS)
class TestNetworks:
    def test_sizes_are_about_equal(self, task):
        sizes = [models.build(name, task).count_params() for name in data.MODELS]
        assert max(sizes) < 1.1 * min(sizes)

    def test_symmetry(self, task, rng):
        """All but the last ignore (signals) or follow (images) the order of the elements."""
        (inputs, _), *_ = data.draw(task, (2, 1, 1), 0)
        order = rng.permutation(inputs.shape[1])
        for name in data.MODELS:
            network = models.build(name, task)
            before, after = (answers(network, x)[0] for x in (inputs, inputs[:, order]))
            expected = before if task == "signals" else before[:, order]
            # Relative to the scale: sums of sums of untrained layers are large.
            error = np.abs(after - expected).max() / np.abs(expected).max()
            assert (error < 1e-5) == (name != "mlp"), (name, error)


def test_offset_and_height_say_nothing():
    (inputs, _), *_ = data.draw("signals", (4, 1, 1), 0)
    for name in data.MODELS:
        network = models.build(name, "signals")
        (before,), (after,) = (answers(network, x) for x in (inputs, 7 * inputs + 3))
        assert np.allclose(before, after, rtol=1e-3, atol=1e-3 * np.abs(before).max()), name


def test_who_learns_of_the_others():
    """The logit of an image depends on the other images, but not for `siamese`."""
    (inputs, _), (others, _), _ = data.draw("odd-one-out", (2, 2, 1), 0)
    mixed = np.concatenate([inputs[:, :1], others[:, 1:]], axis=1)
    for name in data.MODELS:
        network = models.build(name, "odd-one-out")
        before, after = (answers(network, x)[0][:, 0] for x in (inputs, mixed))
        assert np.allclose(before, after, atol=1e-5) == (name == "siamese"), name


class TestCommand:
    @pytest.mark.parametrize(
        "task, names",
        [("signals", data.MODELS), ("odd-one-out", ("siamese-deep-sets", "dss-sum"))],
    )
    def test_smoke(self, tmp_path, capsys, thorough, task, names):
        output = tmp_path / "run"
        names = names if thorough else names[-1:]
        call("--smoke", "--task", task, "--models", *names, "--output", output)
        files = {path.name for path in output.iterdir()}
        assert {"comparison.png", "config.json", "scores.json", "table.txt"} <= files
        scores = json.loads((output / "scores.json").read_text())
        assert list(scores["accuracies"]) == list(names) and scores["sizes"] == [8]
        table = capsys.readouterr().out
        for name in names:
            assert (output / f"{name}-8-0" / "model.keras").exists()
            assert f"{name:18} {scores['parameters'][name]:>10,}" in table

    @pytest.mark.usefixtures("on_one_backend")
    def test_resume_does_what_is_missing(self, tmp_path, capsys):
        options = ["--smoke", "--models", "mlp", "--sizes", 8, 16, "--output", tmp_path]
        call(*options)
        first = json.loads((tmp_path / "scores.json").read_text())["accuracies"]["mlp"]
        kept = (tmp_path / "mlp-8-0" / "metrics.csv").read_text()
        shutil.rmtree(tmp_path / "mlp-16-0")
        call(*options, "--resume", "--repeats", 2)
        assert "over 2 repeats" in capsys.readouterr().out
        both = json.loads((tmp_path / "scores.json").read_text())["accuracies"]["mlp"]
        assert [repeats[:1] for repeats in both] == first and all(len(r) == 2 for r in both)
        assert (tmp_path / "mlp-8-0" / "metrics.csv").read_text() == kept

    def test_summary(self):
        assert command.summary([0.2, 0.4, 0.6], 10) == pytest.approx((0.4, 0.2 / 3**0.5))
        assert command.summary([0.5], 100) == pytest.approx((0.5, 0.05))

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--task", "graphs"], "argument --task: invalid choice: 'graphs'"),
            (["--seed", "-1"], "argument --seed: expected a non-negative integer, received '-1'"),
            (["--sizes", "10", "-1"], "expected a positive integer, received '-1'"),
            (["--initial-model", "x.keras"], "holds the weights of one network"),
        ],
    )
    def test_bad_input(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit) as error:
            call("--smoke", "--output", tmp_path / "run", *arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
