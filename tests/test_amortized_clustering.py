"""The clustering task, its oracle, its scores, and its command line."""

import contextlib
import csv
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from scipy import stats

from examples.amortized_clustering import __main__ as command
from examples.amortized_clustering import data
from examples.amortized_clustering import evaluate
from examples.amortized_clustering import model as networks
from keras_sets import losses
from keras_sets import metrics
from keras_sets import models
from tests.conftest import THOROUGH
from tests.conftest import shortened

pytestmark = pytest.mark.usefixtures("sketches")
ROOT = pathlib.Path(__file__).parent.parent
SHIPPED = str(ROOT / "keras_sets" / "models" / "weights" / "clustering_2d.keras")


class TestTasks:
    def test_the_seed_decides(self):
        a, b, c = (data.generate_tasks(5, seed=s) for s in (3, 3, 4))
        np.testing.assert_array_equal(a.points, b.points)
        assert a.points.shape != c.points.shape or (a.points != c.points).any()

    def test_the_same_points_everywhere(self):
        # Written down once: NumPy alone decides, whatever backend Keras runs on.
        tasks = data.generate_tasks(2, seed=0)
        assert tasks.sizes.tolist() == [560, 343] and tasks.clusters.tolist() == [9, 8]
        expected = [[-0.62825704, -0.11208133], [-0.64765364, -1.2474152]]
        np.testing.assert_allclose(tasks.points[:2], expected, rtol=1e-6)

    def test_protocol(self):
        tasks = data.generate_tasks(3000, seed=1)
        for values, low, high in ((tasks.clusters, 3, 10), (tasks.sizes, 100, 1000)):
            assert (values.min(), values.max()) == (low, high)
            counts = np.bincount(values)[low:]
            assert stats.chisquare(counts).pvalue > 1e-3
        assert stats.kstest(tasks.means.reshape(-1), "norm").pvalue > 1e-3
        largest = tasks.labels.max(where=True, initial=0)
        assert largest == 9 and tasks.labels.min() == 0

    def test_labels_have_equal_probabilities(self):
        tasks = data.generate_tasks(1, seed=2, clusters=(7, 7), entities=(70000, 70000))
        assert stats.chisquare(np.bincount(tasks.labels)).pvalue > 1e-3

    def test_covariances_are_inverse_wishart(self):
        rng = np.random.default_rng(0)
        factors = data.inverse_wishart_factors(rng, (20000,))
        covariances = factors @ factors.transpose(0, 2, 1)
        reference = stats.invwishart(4, 0.05 * np.eye(2)).rvs(20000, random_state=1)
        for a, b in (
            (covariances[:, 0, 0], reference[:, 0, 0]),
            (covariances[:, 0, 1], reference[:, 0, 1]),
            (covariances[:, 1, 1], reference[:, 1, 1]),
            (np.linalg.det(covariances), np.linalg.det(reference)),
        ):
            assert stats.ks_2samp(a, b).pvalue > 1e-3

    def test_points_have_the_moments_of_their_cluster(self):
        tasks = data.generate_tasks(1, seed=5, clusters=(3, 3), entities=(90000, 90000))
        for k in range(3):
            points = tasks.points[tasks.labels == k]
            factor = tasks.factors[0, k]
            covariance = factor @ factor.T
            error = np.sqrt(np.diag(covariance) / len(points))
            assert (np.abs(points.mean(axis=0) - tasks.means[0, k]) < 5 * error).all()
            np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.03 * covariance.trace())

    def test_posterior_is_bayes_rule(self):
        tasks = data.generate_tasks(2, seed=6, entities=(30, 40))
        for t, points in enumerate(evaluate.task_points(tasks)):
            k = tasks.clusters[t]
            density = np.stack(
                [
                    stats.multivariate_normal(
                        tasks.means[t, j], tasks.factors[t, j] @ tasks.factors[t, j].T
                    ).pdf(points)
                    for j in range(k)
                ],
                axis=1,
            )
            expected = density / density.sum(axis=1, keepdims=True)
            p = np.exp(data.posterior(tasks, np.array([t]), points[None])[0])
            np.testing.assert_allclose(p[:, :k], expected, rtol=1e-6, atol=1e-12)
            assert (p[:, k:] == 0).all()

    def test_oracle_of_the_protocol(self):
        # 0.106 +- 0.006 nats a point, accuracy 0.955 over 300 tasks; ours must agree.
        tasks = data.generate_tasks(600, seed=7)
        entropies, hits = [], []
        for t, log_p in enumerate(evaluate.oracle_predictions(tasks)):
            labels = tasks.labels[tasks.offsets[t] : tasks.offsets[t + 1]]
            entropies.append(-log_p[np.arange(len(labels)), labels].mean())
            hits.append((log_p.argmax(axis=1) == labels).mean())
        assert abs(np.mean(entropies) - 0.106) < 4 * 0.006
        assert abs(np.mean(hits) - 0.955) < 0.01

    @pytest.mark.parametrize(
        "arguments",
        [{"count": 0}, {"clusters": (3, 11)}, {"clusters": (5, 3)}, {"entities": (0, 5)}],
    )
    def test_bad_arguments(self, arguments):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            data.generate_tasks(**{"count": 2, **arguments})


class TestDataset:
    tasks = data.generate_tasks(53, seed=0, entities=(10, 60))

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_every_task_once_in_few_shapes(self, shuffle):
        dataset = data.ClusteringDataset(self.tasks, 4, buckets=3, shuffle=shuffle)
        shapes, sizes = set(), []
        for i in range(len(dataset)):
            inputs, labels = dataset[i]
            assert inputs["entities"].shape == (*labels.shape, 2)
            assert (labels[~inputs["mask"]] == data.PADDING).all()
            assert (labels[inputs["mask"]] >= 0).all()
            shapes.add(labels.shape)
            sizes += inputs["mask"].sum(axis=1).tolist()
        assert sorted(sizes) == sorted(self.tasks.sizes.tolist())
        assert len(shapes) <= 3 + 1

    def test_order_is_a_function_of_the_epoch(self):
        first, second = (data.ClusteringDataset(self.tasks, 4, seed=9) for _ in range(2))
        for _ in range(3):
            first.on_epoch_end()
        assert (first[0][1].shape != data.ClusteringDataset(self.tasks, 4, seed=9)[0][1].shape) or (
            first[0][1] != data.ClusteringDataset(self.tasks, 4, seed=9)[0][1]
        ).any()
        second.start_at(3)
        for i in range(len(first)):
            np.testing.assert_array_equal(first[i][1], second[i][1])

    def test_few_points_of_every_task(self):
        dataset = data.ClusteringDataset(self.tasks, 5, points=[12, 16])
        seen = 0
        for i in range(len(dataset)):
            inputs, labels = dataset[i]
            assert labels.shape[1] in (12, 16)
            seen += len(labels)
            np.testing.assert_array_equal(inputs["mask"].sum(axis=1) <= labels.shape[1], True)
        assert seen == len(self.tasks)
        assert dataset[0][1].shape[1] != dataset[1][1].shape[1]

    def test_points_are_drawn_anew(self):
        dataset = data.ClusteringDataset(self.tasks, 53, points=[10], shuffle=False)
        before = dataset[0][0]["entities"]
        np.testing.assert_array_equal(before, dataset[0][0]["entities"])
        dataset.on_epoch_end()
        assert (before != dataset[0][0]["entities"]).any()

    def test_rotation_keeps_everything_but_the_direction(self):
        plain, turned = (
            data.ClusteringDataset(self.tasks, 20, rotate=rotate, shuffle=False, buckets=1)
            for rotate in (False, True)
        )
        (x, labels), (y, same_labels) = plain[0], turned[0]
        assert y["entities"].dtype == x["entities"].dtype == "float32"
        x, y = x["entities"].astype("float64"), y["entities"].astype("float64")
        np.testing.assert_array_equal(labels, same_labels)
        grams = [points @ np.swapaxes(points, 1, 2) for points in (x, y)]
        np.testing.assert_allclose(grams[1], grams[0], atol=1e-5)
        maps = np.linalg.pinv(x) @ y
        handedness = np.linalg.det(maps)
        assert (np.abs(np.abs(handedness) - 1) < 1e-5).all()
        assert (handedness > 0).any() and (handedness < 0).any()
        assert np.ptp(maps[:, 0, 0]) > 1
        turned.on_epoch_end()
        assert (np.abs(turned[0][0]["entities"] - y).max(axis=(1, 2)) > 1e-2).all()
        turned.start_at(0)
        np.testing.assert_array_equal(turned[0][0]["entities"].astype("float64"), y)

    def test_too_small_a_size_loses_no_point(self):
        with pytest.raises(ValueError, match="size"):
            self.tasks.padded(np.arange(3), 5)

    def test_one_size_only(self):
        tasks = data.generate_tasks(6, entities=(10, 10))
        dataset = data.ClusteringDataset(tasks, 4, buckets=5)
        assert [dataset[i][1].shape for i in range(len(dataset))] == [(4, 12), (2, 12)]


class TestScores:
    def test_agrees_with_the_keras_loss_and_metrics(self):
        tasks = data.generate_tasks(4, seed=1, entities=(30, 30))
        logits = np.random.default_rng(0).normal(size=(4, 30, 10)).astype("float32")
        log_p = [x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in logits.astype("float64")]
        scores = evaluate.score("x", tasks, log_p)
        labels = tasks.labels.reshape(4, 30)
        assert scores.cross_entropy[0] == pytest.approx(
            float(losses.MatchedCrossentropy()(labels, logits)), rel=1e-5
        )
        for metric, value in (
            (metrics.MatchedAccuracy(), scores.accuracy),
            (metrics.AdjustedRandIndex(), scores.ari),
        ):
            metric.update_state(labels, logits)
            assert float(metric.result()) == pytest.approx(value[0], abs=1e-5)

    def test_padding_does_not_reach_the_predictions(self):
        options = command.parse(["--smoke", "--model", "swarm"])
        network = networks.build(options)
        tasks = data.generate_tasks(3, seed=1, entities=(10, 11))
        assert len(set(tasks.sizes.tolist())) == 2
        predictions = evaluate.network_predictions(network, tasks, batch_size=3)
        for t, points in enumerate(evaluate.task_points(tasks)):
            mask = np.ones((1, len(points)), bool)
            logits = network.predict_on_batch({"entities": points[None], "mask": mask})[0]
            expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            np.testing.assert_allclose(predictions[t], expected, atol=1e-5)

    def test_classical_methods_on_separate_clusters(self):
        tasks = data.generate_tasks(2, seed=3, clusters=(3, 3), entities=(60, 60))
        far = tasks.points + 100 * tasks.labels[:, None].astype("float32")
        tasks = data.Tasks(far, *(getattr(tasks, f) for f in list(vars(tasks))[1:]))
        for predictions in (evaluate.kmeans_predictions, evaluate.mixture_predictions):
            assert evaluate.score("", tasks, predictions(tasks)).accuracy[0] == 1


def test_the_networks_that_are_shipped():
    # The README gives 0.930 on 1500 tasks, with a standard error of 0.002.
    network = models.load_pretrained("clustering_2d_protocol")
    tasks = data.generate_tasks(40, seed=1)
    # In one batch, for which a backend compiles once.
    predictions = evaluate.network_predictions(network, tasks, batch_size=40)
    accuracy = evaluate.score("", tasks, predictions).accuracy
    assert abs(accuracy[0] - 0.930) < 4 * accuracy[1]

    with pytest.raises(ValueError, match="expected one of 'clustering_2d'"):
        models.load_pretrained("clustering")


def start(*arguments, **options):
    """The command in a process of its own."""
    module = [sys.executable, "-m", "examples.amortized_clustering"]
    return subprocess.Popen([*module, *map(str, arguments)], cwd=ROOT, **options)


def call(*arguments):
    """The command in this process."""
    command.main([str(argument) for argument in arguments])


def rows(path):
    with open(path / "metrics.csv") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


# One shape of the batches: a backend that compiles does so once.
SHORT = ["--smoke", "--epochs", 1, "--buckets", 1, "--entities", 30, 30]
# The network that compiles fastest, where any will do.
QUICK = [*SHORT, "--model", "deep-sets-mean"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the default network, which tests only read."""
    output = tmp_path_factory.mktemp("clustering") / "run"
    call(*SHORT, *shortened("--iterations 1 --em-steps 0"), "--output", output, "--tensorboard")
    return output


@pytest.fixture(scope="module")
def overwritten(finished, tmp_path_factory):
    """A run that took the place of a finished one, which tests only read, and its output."""
    output = shutil.copytree(finished, tmp_path_factory.mktemp("overwritten") / "run")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        call(*QUICK, "--output", output, "--overwrite", "--log-to-stdout")
    return output, printed.getvalue()


FILES = (
    "assignments.png config.json learning_curves.png metrics.csv model.keras reliability.png "
    "scores.json table.txt weight_traces.png"
).split()


def check_report(output):
    """All files, one epoch and all methods; of a run in its short form a model only."""
    names = {path.name for path in output.iterdir()}
    if names == {"model.keras"}:
        return
    assert set(FILES) <= names
    assert [row["epoch"] for row in rows(output)] == ["1"]
    printed = (output / "table.txt").read_text()
    for line in ("k-means, true k", "Gaussian mixture, true k", "oracle"):
        assert line in printed


def train(output, *options):
    """A run; where networks are compiled a step of its training, after which they are saved."""
    arguments = [*SHORT, "--output", output, *options]
    if keras.config.backend() == THOROUGH:
        call(*arguments)
        return output
    # Muon's steps are long programs; `finished` has them.
    options = command.parse([*map(str, arguments), "--optimizer", "adam"])
    keras.utils.set_random_seed(0)
    model = networks.compiled(options)
    batches, _ = data.training_data(options)
    before = model.get_weights()
    assert np.isfinite(model.train_on_batch(*batches[0])[0])
    changes = [np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)]
    assert np.isfinite(changes).all() and max(changes) > 0
    output.mkdir()
    networks.for_use(model, options).save(output / "model.keras")
    return output


class TestCommand:
    @pytest.mark.parametrize(
        "options",
        [
            ["--model", "swarm", "--pooling", "max", "--context", "static", "--layers", "2"],
            ["--model", "deep-sets-mean", "--layers", "2", "--dropout", "0.1"],
            ["--model", "deep-sets-max", "--activation", "elu"],
            ["--model", "set-transformer", "--heads", "2", "--inducing-points", "3"],
            ["--model", "lstm", "--schedule", "constant"],
            ["--model", "sorted-lstm", "--points", "10", "20"],
        ],
        ids=lambda options: options[1],
    )
    def test_every_model_trains_and_reports(self, tmp_path, options):
        output = train(tmp_path / "run", *options)
        check_report(output)
        model = keras.models.load_model(output / "model.keras")
        inputs = {"entities": np.zeros((1, 7, 2), "float32"), "mask": np.ones((1, 7), bool)}
        assert model(inputs).shape == (1, 7, 10)

    @pytest.mark.usefixtures("no_rendering")
    def test_tasks_of_the_broad_prior_in_three_dimensions(self, tmp_path, thorough):
        output = train(tmp_path / "run", "--prior", "broad", "--dimensions", 3)
        assert not thorough or "oracle" not in (output / "table.txt").read_text()
        assert keras.models.load_model(output / "model.keras").output_shape[-1] == 10

    def test_log_and_tensorboard(self, finished, overwritten):
        check_report(finished)
        assert "val_loss" in (finished / "log.txt").read_text()
        assert any((finished / "tensorboard").iterdir())
        output, printed = overwritten
        assert not (output / "log.txt").exists()
        assert re.search(r"val_loss \d", printed)

    @pytest.mark.usefixtures("no_rendering")
    def test_killed_at_any_moment_it_resumes(self, tmp_path, thorough):
        # Dropout has random states, which must come back as well.
        options = [*QUICK, "--epochs", 5, "--layers", 2, "--dropout", "0.2", "--output"]
        call(*options, tmp_path / "whole")
        killed = tmp_path / "killed"
        checkpoints = killed / "checkpoints"
        if thorough:
            self.kill_after_two_epochs(*options, killed)
            newest = sorted(checkpoints.glob("*.npz"))[-1]
            assert newest.name < "epoch-00005.npz", "the run ended before it was killed"
        else:
            # What a kill after the last epoch leaves.
            shutil.copytree(tmp_path / "whole" / "checkpoints", checkpoints)
            shutil.copy(tmp_path / "whole" / "config.json", killed)
            newest = checkpoints / "epoch-00005.npz"
        # The newest checkpoint is damaged as well: the one before it must do.
        newest.write_bytes(newest.read_bytes()[:1000])
        with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
            call(*options, killed, "--resume")
        assert rows(killed) == rows(tmp_path / "whole")
        scores = [
            json.loads((tmp_path / name / "scores.json").read_text())
            for name in ("killed", "whole")
        ]
        for score in [*scores[0], *scores[1]]:
            assert score.pop("milliseconds") > 0  # never twice the same
        assert scores[0] == scores[1]

    def kill_after_two_epochs(self, *arguments):
        process = start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not (arguments[-1] / "checkpoints" / "epoch-00002.npz").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    @pytest.mark.usefixtures("no_rendering")
    def test_a_finished_run_is_not_trained_again(self, overwritten, tmp_path):
        output = shutil.copytree(overwritten[0], tmp_path / "run")
        before = rows(output)
        call(*QUICK, "--output", output, "--resume")
        assert rows(output) == before

    @pytest.mark.parametrize(
        "options, parameters",
        [
            (["--model", "deep-sets-mean", "--layers", "3"], "36,106"),
            (["--model", "set-transformer"], "268,170"),
            (["--model", "set-transformer", "--layers", "3"], "801,162"),
            (["--model", "lstm"], "136,714"),
        ],
        ids=str,
    )
    def test_sizes(self, capsys, options, parameters):
        # Those of the original; one bias less in each equivariant layer and each LSTM.
        call("--dry-run", *options)
        assert f"{parameters} parameters" in capsys.readouterr().out

    def test_dry_run(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        call("--dry-run")
        assert "slots-32-8-protocol: 9,763 parameters" in capsys.readouterr().out
        call("--dry-run", "--model", "swarm")
        assert "swarm-128x1-10-mean-swarm: 135,178 parameters" in capsys.readouterr().out
        assert not list(tmp_path.iterdir())


class TestBadInput:
    def fails(self, capsys, *arguments):
        with pytest.raises(SystemExit) as error:
            call("--smoke", *arguments)
        assert error.value.code == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--hidden", "0"], "expected a positive integer, received '0'"),
            (["--iterations", "2.5"], "expected a positive integer, received '2.5'"),
            (["--dropout", "1"], "expected a number in [0, 1), received '1'"),
            (["--time-budget", "-3"], "expected a positive number"),
            (["--model", "transformer"], "choose from"),
            (["--model", "set-transformer", "--heads", "3"], "num_heads"),
            (["--entities", "50", "20"], "LEAST is above MOST"),
            (["--entities", "5", "20"], "LEAST is at least 10"),
            (["--tasks", "3"], "at least 10"),
            (["--resume", "--overwrite"], "exclude each other"),
            (["--initial-model", "none.keras"], "initial model none.keras cannot be used"),
            (["--initial-model", SHIPPED], "cannot be used"),
        ],
    )
    def test_options(self, tmp_path, capsys, arguments, message):
        error = self.fails(capsys, "--output", tmp_path / "run", *arguments)
        assert message in error
        assert not (tmp_path / "run").exists()

    def test_an_earlier_run_is_not_overwritten(self, finished, overwritten, capsys):
        contents = lambda: {f: f.read_bytes() for f in finished.rglob("*") if f.is_file()}  # noqa: E731
        before = contents()
        assert "--resume" in self.fails(capsys, "--output", finished)
        error = self.fails(capsys, *SHORT, "--output", finished, "--resume", "--hidden", "9")
        assert "hidden was 8, is 9" in error
        assert before == contents()
        # But with --overwrite it is.
        assert json.loads((overwritten[0] / "config.json").read_text())["model"] != "slots"
        assert not (overwritten[0] / "tensorboard").exists()

    def test_files_of_others_are_left_alone(self, tmp_path, capsys):
        (tmp_path / "thesis.txt").write_text("years of work")
        self.fails(capsys, "--output", tmp_path)
        self.fails(capsys, "--output", tmp_path, "--overwrite")
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_nothing_to_resume(self, tmp_path, capsys):
        assert "no run to resume" in self.fails(capsys, "--output", tmp_path, "--resume")

    def test_output_that_cannot_be_written(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        error = self.fails(capsys, "--output", tmp_path / "file")
        assert "exists and is not a folder" in error
        error = self.fails(capsys, "--output", tmp_path / "file" / "run")
        assert "cannot be written" in error

    def test_the_message_reaches_a_terminal(self, tmp_path, capsys, thorough):
        (tmp_path / "file").write_text("")
        arguments = ["--output", tmp_path / "file" / "run"]
        if thorough:
            process = start("--smoke", *arguments, stderr=subprocess.PIPE, text=True)
            _, error = process.communicate(timeout=600)
            assert process.returncode == 2
        else:
            error = self.fails(capsys, *arguments)
        assert "cannot be written" in error and "Traceback" not in error
