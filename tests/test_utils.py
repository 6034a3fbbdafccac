"""Padding and datasets: from sets of different sizes to batches."""

import pickle

import keras
import numpy as np
import pytest

import keras_sets
from keras_sets.utils import SetDataset
from keras_sets.utils import pad_sets

SIZES = (3, 0, 1)


def some_sets(sizes=SIZES, features=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, features)) for n in sizes]


def as_objects(sets):
    objects = np.empty(len(sets), object)
    objects[:] = sets
    return objects


def numbered(count, seed=0):
    """Sets whose entities are `(number of the set, place in it)`, and their sizes."""
    sizes = np.random.default_rng(seed).integers(1, 40, count)
    return [np.stack([np.full(n, i), np.arange(n)], axis=-1) for i, n in enumerate(sizes)], sizes


def flat(batch):
    return keras.tree.flatten(batch)


def assert_same(batch, other):
    for a, b in zip(flat(batch), flat(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


class TestPadSets:
    @pytest.mark.parametrize("kind", [list, tuple, as_objects])
    def test_entities_and_mask(self, kind):
        sets = some_sets()
        entities, mask = pad_sets(kind(sets))
        assert entities.shape == (3, 3, 2) and entities.dtype == keras.config.floatx()
        np.testing.assert_array_equal(mask, [[1, 1, 1], [0, 0, 0], [1, 0, 0]])
        assert mask.dtype == bool
        for row, n, points in zip(entities, SIZES, sets, strict=True):
            np.testing.assert_array_equal(row[:n], points.astype(entities.dtype))
            assert (row[n:] == 0).all()

    def test_options(self):
        labels = [np.array([2, 1], "uint8"), [], np.array([1], "uint8")]
        padded, mask = pad_sets(labels, size=3, value=7)
        assert padded.dtype == "uint8" and padded.tolist() == [[2, 1, 7], [7, 7, 7], [1, 7, 7]]
        assert mask.sum() == 3
        padded, _ = pad_sets(labels, dtype="int32", value=-1)
        assert padded.dtype == "int32" and padded.tolist() == [[2, 1], [-1, -1], [1, -1]]
        images, _ = pad_sets([np.ones((2, 4, 5, 1), "float64"), np.ones((1, 4, 5, 1))], size=6)
        assert images.shape == (2, 6, 4, 5, 1) and images.sum() == 60

    @pytest.mark.parametrize(
        "value, dtype",
        [(300, "uint8"), (-1, "uint8"), (1.5, "int32"), (np.nan, "int32"), (1e39, None)],
    )
    def test_values_that_the_dtype_cannot_hold(self, value, dtype):
        with pytest.raises(ValueError, match=f"`sets`.*{dtype or 'float32'} can hold.*from "):
            pad_sets([[value], [2]], dtype=dtype)

    def test_nothing_to_pad(self):
        ready = np.arange(12).reshape(2, 3, 2)
        entities, mask = pad_sets(ready)
        np.testing.assert_array_equal(entities, ready)
        assert mask.all() and entities.dtype == ready.dtype
        assert pad_sets(ready, size=5)[0].shape == (2, 5, 2)
        assert pad_sets([[], []])[0].shape == (2, 1)
        assert pad_sets([np.ones((0, 3))])[0].shape == (1, 1, 3)
        entities, mask = pad_sets([np.ones((0, 0)), [[1.0, 2.0]]])  # the first is of no entities
        assert entities.tolist() == [[[0, 0]], [[1, 2]]] and mask.tolist() == [[False], [True]]

    def test_nan_and_infinity_come_through(self):
        padded, _ = pad_sets([[np.nan, 1.0], [np.inf]])
        np.testing.assert_array_equal(padded, [[np.nan, 1], [np.inf, 0]])

    def test_ragged_tensors(self):
        tf = pytest.importorskip("tensorflow")
        expected = pad_sets([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]])
        for ragged in (
            tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]),
            tf.RaggedTensor.from_row_lengths([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [2, 1]),
        ):
            assert_same(pad_sets(ragged), expected)
        even = tf.RaggedTensor.from_row_lengths([[1.0, 2.0], [3.0, 4.0]], [1, 1])
        inputs, targets, sample_weight = SetDataset(even, even, batch_size=2)[0]
        assert targets.shape == (2, 1, 2) and sample_weight.shape == (2, 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(sets=[]), "`sets` must hold at least one set"),
            (dict(sets=np.ones((0, 3, 2))), "`sets` must hold at least one set"),
            (dict(sets=[1.0, 2.0]), "set 0 is the number 1.0"),
            (dict(sets=np.ones(3)), r"one array of shape \(3,\)"),
            (dict(sets=7), "a list with an array for every set. Received: int"),
            (dict(sets={"a": [1.0]}), "sets_from_dataframe` makes one.*Received: dict"),
            (dict(sets=[[[1.0], [2.0, 3.0]]]), "set 0 is ragged itself"),
            (dict(sets=[["a", "b"]]), "must hold numbers. Received: dtype"),
            (dict(sets=[np.array([1.0, "a"], object)]), "object and holds 'a', which is no number"),
            (dict(sets=[np.array([1.0, True], object)]), r"object; `.astype\('float32'\)` makes"),
            (dict(sets=[{"x": 1.0}]), "set 0 is of type dict"),
            (dict(sets=[np.zeros(2, [("pt", "f4")])]), "structured_to_unstructured`.*Received: dt"),
            (
                dict(sets=[np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 4))]),
                "same number of features. Received: set 2 has 4, set 0 has 3",
            ),
            (
                dict(sets=[np.ones((2, 3)), np.ones(2)]),
                r"set 1 of shape \(2,\), set 0 of shape \(2, 3\)",
            ),
            (dict(sets=(np.ones((2, 5, 3)), np.ones((2, 5), bool))), "as if padded already"),
            (dict(sets=some_sets(), size=2), "`size` must hold all.*set 0 has 3. Received: size=2"),
            (dict(sets=some_sets(), size=0), "`size`, expected a positive integer"),
            (dict(sets=[np.ones(2, "uint8")], value=-1), "`value` must be.*uint8.*value=-1"),
            (dict(sets=[[1, 2], [3]], value=0.5), "`value` must be a number that the dtype int"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            pad_sets(**arguments)


class TestOrder:
    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize("buckets", [1, 3, [16, 64]])
    def test_every_set_once_in_few_shapes(self, shuffle, buckets):
        sets, sizes = numbered(53)
        dataset = SetDataset(sets, range(53), batch_size=4, buckets=buckets, shuffle=shuffle)
        shapes, seen = set(), []
        for inputs, targets in dataset:
            shapes.add(inputs["mask"].shape)
            for entities, mask, i in zip(*inputs.values(), targets, strict=True):
                np.testing.assert_array_equal(entities[mask], sets[i])
                assert (entities[~mask] == 0).all()
            seen += targets.tolist()
        assert sorted(seen) == list(range(53)) and (seen == sorted(seen)) is not shuffle
        # The last batch is smaller, and without shuffling one may be larger.
        assert len(shapes) <= np.size(dataset.buckets) + 1 + (not shuffle)
        assert len(dataset.buckets) == (buckets if isinstance(buckets, int) else 2)

    def test_a_function_of_seed_and_epoch(self):
        sets, _ = numbered(20)
        make = lambda **kwargs: SetDataset(sets, batch_size=3, points=5, **kwargs)  # noqa: E731
        first, second = make(seed=4), make(seed=4)
        for _ in range(3):
            first.on_epoch_end()
        second.epoch = 3
        copy = pickle.loads(pickle.dumps(second))  # what other processes work with
        for i in reversed(range(len(first))):
            assert_same(first[i], second[i])
            assert_same(first[i], copy[i])
        assert first.epoch == copy.epoch == 3
        for other in (make(seed=5), make()):
            assert any(
                a.shape != b.shape or (a != b).any()
                for a, b in zip(flat([*first]), flat([*other]), strict=True)
            )
        assert_same(first[-1], first[len(first) - 1])
        for index in (len(first), -len(first) - 1):
            with pytest.raises(IndexError):
                first[index]

    def test_points_are_drawn_without_replacement_anew_in_every_epoch(self):
        sets, sizes = numbered(12)
        targets = [points[:, 1] for points in sets]
        dataset = SetDataset(sets, targets, targets, points=10, batch_size=12)
        draws = []
        for _ in range(2):
            inputs, shown, _ = dataset[0]
            assert inputs["mask"].shape == (12, 10)
            order = inputs["entities"][:, 0, 0].argsort()
            np.testing.assert_array_equal(inputs["mask"].sum(1)[order], np.minimum(sizes, 10))
            np.testing.assert_array_equal(shown, inputs["entities"][..., 1])
            np.testing.assert_array_equal(shown, inputs["weights"])
            for row, mask in zip(shown, inputs["mask"], strict=True):
                assert len(set(row[mask])) == mask.sum()
            draws.append([set(row) for row in shown[order][sizes > 20]])
            dataset.on_epoch_end()
        assert draws[0] != draws[1]
        in_order = SetDataset(sets, points=10, batch_size=12, shuffle=False)
        ((first,), _) = in_order[0], in_order.on_epoch_end()
        assert (first["entities"] != in_order[0][0]["entities"]).any()

    def test_every_epoch_has_an_order_of_its_own(self):
        sets, _ = numbered(40)
        dataset = SetDataset(sets, range(40), batch_size=3)
        epochs = []
        for _ in range(2):
            epochs.append([*dataset])
            dataset.on_epoch_end()
        sizes = [[inputs["mask"].shape[1] for inputs, _ in batches] for batches in epochs]
        orders = [np.concatenate([i for _, i in batches]).tolist() for batches in epochs]
        assert sizes[0] != sizes[1] and orders[0] != orders[1]

    def test_the_first_two_batches_differ(self):
        """Or Keras on TensorFlow would take the set size of the first two for all."""
        for sizes in ([2] * 4 + [9] * 8, [9] * 8 + [2] * 4, [9, 2, 9] * 4):
            for shuffle in (False, True):
                options = {"batch_size": 2, "buckets": 2, "shuffle": shuffle}
                dataset = SetDataset(some_sets(sizes), range(12), **options)
                shapes = [inputs["mask"].shape[1] for inputs, _ in dataset]
                assert len(set(shapes)) == 1 or shapes[0] != shapes[1]
                # One more only where there is no larger size.
                assert set(shapes) <= {*dataset.buckets, 10} and max(shapes[2:]) < 10
                if not shuffle:
                    assert np.concatenate([i for _, i in dataset]).tolist() == [*range(12)]
                    assert (10 in shapes) == (sizes[:4] == [9] * 4)

    def test_padded_share_of_log_normal_sizes(self):
        sizes = np.random.default_rng(0).lognormal(np.log(100), 0.25, 1000).astype(int)
        dataset = SetDataset([np.zeros((n, 1), "float32") for n in sizes], shuffle=True)
        masks = [inputs["mask"] for (inputs,) in dataset]
        assert len({mask.shape for mask in masks}) <= 5
        assert 1 - sizes.sum() / sum(mask.size for mask in masks) < 0.15

    def test_buckets_are_those_of_the_least_padding(self):
        sizes = np.array([0, 1, 2, 2, 3, 10, 11, 30])
        dataset = SetDataset([np.zeros((n, 1)) for n in sizes], batch_size=1, buckets=3)
        # 5 sets of 3, 2 of 11, 1 of 30; all others have more.
        assert dataset.buckets.tolist() == [3, 11, 30]
        assert SetDataset([np.zeros((n, 1)) for n in (0, 0)]).buckets.tolist() == [1]
        # Three sets of 1 do not fill a batch, and move up.
        sets = [np.zeros((n, 1)) for n in [1] * 3 + [9] * 5 + [10] * 4]
        assert SetDataset(sets, batch_size=4, buckets=2).buckets.tolist() == [9, 10]
        assert SetDataset(sets, batch_size=3, buckets=2).buckets.tolist() == [1, 10]


def by_hand(model, inputs, targets, sample_weight):
    """The mean square error over real entities, weighted."""
    error = np.square(model.predict_on_batch(inputs) - targets)[..., 0]
    mask = inputs["mask"]
    return (error * sample_weight)[mask].sum() / mask.sum()


SMALL = {"hidden_units": 4}


class TestTraining:
    @pytest.mark.parametrize(
        ("name", "weighted"),
        [("deep_sets", False), ("deep_sets", True), ("swarm", True), ("set_transformer", True)],
    )
    def test_targets_of_sets(self, name, weighted):
        sets, sizes = numbered(8)
        weights = [np.ones(n) for n in sizes] if weighted else None
        make = getattr(keras_sets.models, name)
        model = make(2, 1, output_pooling="mean", weighted=weighted, **SMALL)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        arguments = {"weights": weights, "batch_size": 4, "buckets": 2}
        train = SetDataset(sets, sizes, sample_weight=sizes, **arguments)
        history = model.fit(train, shuffle=False, verbose=0)
        predicted = model.predict(SetDataset(sets, shuffle=False, **arguments), verbose=0)
        entities, mask = pad_sets(sets, dtype="float32")
        inputs = {"entities": entities, "mask": mask, "weights": mask.astype("float32")}
        inputs = {name: inputs[name] for name in list(inputs)[: 2 + weighted]}
        np.testing.assert_allclose(predicted, model.predict_on_batch(inputs), atol=1e-4)
        expected = np.mean(sizes * np.square(predicted[:, 0] - sizes))
        assert history.history["loss"] == pytest.approx([expected], rel=1e-4)

    @pytest.mark.parametrize("weighting", [None, "sets", "entities"])
    def test_targets_of_entities(self, weighting):
        sets = some_sets([5, 2, 7, 1])
        targets = [points[:, :1] for points in sets]
        sample_weight = {
            None: None,
            "sets": np.array([1.0, 2.0, 0.0, 3.0]),
            "entities": [np.arange(len(points)) for points in sets],
        }[weighting]
        model = keras_sets.models.deep_sets(2, 1, **SMALL)
        model.compile(keras.optimizers.SGD(0.0), "mse", weighted_metrics=["mae"])
        dataset = SetDataset(sets, targets, None, sample_weight, batch_size=4, shuffle=False)
        inputs, padded, weights = dataset[0]
        mask = inputs["mask"]
        np.testing.assert_array_equal(padded, pad_sets(targets)[0])
        each = {
            None: mask,
            "sets": mask * np.array([[1], [2], [0], [3]]),
            "entities": mask * np.arange(7),
        }[weighting]
        np.testing.assert_array_equal(weights, each)
        loss = model.evaluate(dataset, verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(by_hand(model, inputs, padded, each), rel=1e-4)

    @pytest.mark.parametrize("weighting", [None, "sets", "entities"])
    def test_metrics_of_entities_in_several_batches(self, weighting):
        """Every entity counts as its weight says, however much of its batch is padding."""
        sets = some_sets([5, 2, 7, 1])
        each = [np.ones(len(points)) for points in sets]
        given = {None: None, "sets": np.arange(1, 5), "entities": [w + w.cumsum() for w in each]}
        if weighting:
            each = [w * given[weighting][i] for i, w in enumerate(each)]
        model = keras_sets.models.deep_sets(2, 1, **SMALL)
        model.compile(keras.optimizers.SGD(0.0), "mse", weighted_metrics=["mae"])
        options = {"batch_size": 2, "buckets": 1, "shuffle": False}
        targets = [points[:, :1] for points in sets]
        dataset = SetDataset(sets, targets, sample_weight=given[weighting], **options)
        received = model.evaluate(dataset, verbose=0, return_dict=True)["mae"]
        predicted = model.predict(SetDataset(sets, **options), verbose=0)
        errors = [np.abs(predicted[i, : len(y)] - y)[:, 0] for i, y in enumerate(targets)]
        expected = np.average(np.concatenate(errors), weights=np.concatenate(each))
        assert received == pytest.approx(expected, rel=1e-5)

    def test_weights_of_sets_with_matched_labels(self):
        """As the page on data gives them: weights of entities count within their set alone."""
        rng = np.random.default_rng(0)
        labels = [rng.integers(0, 3, n) for n in (4, 2, 5)]
        weights = np.array([1.0, 0.0, 3.0])

        class WeightedSets(SetDataset):
            def batch(self, rng, indices, size):
                inputs, labels, _ = super().batch(rng, indices, size)
                return inputs, np.where(inputs["mask"], labels, -1), weights[indices]

        sets = [np.zeros((len(own), 2)) for own in labels]
        _, padded, sample_weight = WeightedSets(sets, labels, buckets=1, shuffle=False)[0]
        scores = rng.normal(size=(3, 5, 3)).astype("float32")
        loss = keras_sets.losses.MatchedCrossentropy()
        pairs = zip(labels, scores, strict=True)
        values = [float(loss(y[None], s[None, : len(y)])) for y, s in pairs]
        assert float(loss(padded, scores, sample_weight)) == pytest.approx(
            np.mean(weights * values), rel=1e-5
        )

    def test_predictions_come_in_the_order_of_the_sets(self):
        sets, sizes = numbered(30)
        entities = keras.Input((None, 2), name="entities")
        mask = keras.Input((None,), dtype="bool", name="mask")
        outputs = keras_sets.layers.MaxPooling()(entities, mask=mask)
        model = keras.Model({"entities": entities, "mask": mask}, outputs)
        predicted = model.predict(SetDataset(sets, batch_size=4), verbose=0)
        np.testing.assert_array_equal(predicted, np.stack([np.arange(30), sizes - 1], axis=-1))
        assert SetDataset(sets, sizes).shuffle

    def test_outputs_of_entities_are_joined_with_one_size(self):
        sets = some_sets([5, 2, 7, 1, 4])
        model = keras_sets.models.deep_sets(2, 3, **SMALL)
        dataset = SetDataset(sets, batch_size=2, buckets=1, shuffle=False)
        predicted = model.predict(dataset, verbose=0)
        for row, points in zip(predicted, sets, strict=True):
            alone = model.predict_on_batch(
                {"entities": points[None], "mask": np.ones((1, len(points)), bool)}
            )
            np.testing.assert_allclose(row[: len(points)], alone[0], atol=1e-5)

    def test_targets_of_any_iterable(self):
        sets, labels = some_sets(), [[1, 0, 1], [], [1]]
        for targets in (iter(labels), Uneven(labels)):
            _, padded, _ = SetDataset(sets, targets, shuffle=False)[0]
            assert padded.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
        assert SetDataset(sets, (i for i in range(3)), shuffle=False)[0][1].tolist() == [0, 1, 2]

    def test_labels_and_weights(self):
        """Padded labels are class 0, of weight 0: no loss sees them. Absent entities neither."""
        sets, labels = some_sets([3, 1]), [[1, 0, 1], [1]]
        dataset = SetDataset(sets, labels, [[1, 0, 2], [3]], batch_size=2, shuffle=False)
        inputs, padded, weights = dataset[0]
        assert padded.dtype == "int64" and padded.tolist() == [[1, 0, 1], [1, 0, 0]]
        assert inputs["weights"].tolist() == [[1, 0, 2], [3, 0, 0]]
        assert weights.tolist() == [[1, 0, 1], [1, 0, 0]]
        scores = np.random.default_rng(0).normal(size=(2, 3, 2)).astype("float32")
        for loss in (
            keras.losses.SparseCategoricalCrossentropy(True, reduction="mean_with_sample_weight"),
            keras_sets.losses.MatchedCrossentropy(),
        ):
            before = float(loss(padded, scores, weights))
            other = np.where(weights[..., None] > 0, scores, 9.0).astype("float32")
            assert float(loss(padded, other, weights)) == pytest.approx(before, rel=1e-6)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_epochs_of_fit(self, workers):
        """Every set once an epoch, and a run that goes on gives what one in one piece gives."""
        sets, _ = numbered(12)

        def losses(*runs):
            keras.utils.set_random_seed(0)
            model = keras_sets.models.deep_sets(2, 1, output_pooling="mean", **SMALL)
            model.compile(keras.optimizers.SGD(1e-4), "mse", metrics=[Total()])
            kept = []
            for start, stop in runs:
                dataset = SetDataset(sets, 2.0 ** np.arange(12), batch_size=4, workers=workers)
                dataset.epoch = start
                if workers > 1:
                    model.test_on_batch(*dataset[0])  # see the docstring
                run = {"initial_epoch": start, "epochs": stop, "shuffle": False, "verbose": 0}
                history = model.fit(dataset, **run).history
                assert history["total"] == [2**12 - 1] * (stop - start)
                kept += history["loss"]
            return kept

        assert losses((0, 3)) == pytest.approx(losses((0, 2), (2, 3)), rel=1e-6)


class Uneven:
    """Rows of different lengths, of which NumPy makes no array, as in the package awkward."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def __array__(self, dtype=None, copy=None):
        raise ValueError("cannot convert to RegularArray")


class Total(keras.metrics.Metric):
    """The sum of all targets."""

    def __init__(self):
        super().__init__(name="total")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.sum(keras.ops.cast(y_true, "float32")))

    def result(self):
        return self.total + 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(sets=[]), "`sets` must hold at least one set"),
        (dict(sets=[np.ones(3), np.ones(2)]), r"arrays of one axis.*x\[:, None\]"),
        (dict(sets=np.ones((4, 2))), "arrays of one axis, without features"),
        (dict(sets=[np.ones((2, 1)), [[1.0], [np.nan]]]), "1 of 4 ent.*entity 1 of set 1"),
        (dict(targets=np.ones(4)), "`targets` must be as long as `sets`, 3. Received: 4"),
        (dict(targets=[[1.0] * 3, []]), "`targets` must be as long as `sets`, 3. Received: 2"),
        (dict(targets=[[1, 2, 3], [], [1, 2]]), r"2 rows for set 2, which has 1 entities"),
        (dict(targets=[[1, 0]] * 3), r"np.stack\(targets\).*2 rows for set 0, which has 3"),
        (dict(targets=["a", "b", "c"]), "`targets` must hold numbers"),
        (dict(targets=5), "`targets` must hold numbers"),
        (dict(weights=np.ones(3)), "`weights` must hold an array"),
        (dict(weights=[np.ones((3, 1)), np.ones((0, 1)), np.ones((1, 1))]), r"`\(n,\)` for every"),
        (dict(weights=[[1, 1], [], [1]]), "`weights`.*2 rows for set 0, which has 3"),
        (dict(weights=[[1, 1, -1], [], [1]]), "finite `weights` >= 0.*-1"),
        (dict(weights=[[1, 1, 0], [], [1e-50]]), "float32 can hold.*1 of 2 sets.*1e-50"),
        (dict(sample_weight=np.ones(3)), "needs `targets`"),
        (dict(targets=np.ones(3), sample_weight=np.ones(2)), "`sample_weight` must be as long"),
        (dict(targets=np.ones(3), sample_weight=[1, np.nan, 1]), "finite `sample_weight` >= 0"),
        (dict(targets=np.ones(3), sample_weight=[[1] * 3, [], [1]]), "number for every set"),
        (dict(batch_size=0), "`batch_size`, expected a positive integer"),
        (dict(buckets=0), "`buckets`, expected a positive integer"),
        (dict(buckets=[2]), r"`buckets` must hold the largest set, of 3 ent.*buckets=\[2\]"),
        (dict(buckets=[2, 4.5]), "`buckets`, expected a positive integer"),
        (dict(points=0), "`points`, expected a positive integer"),
        (dict(seed=-1), "`seed`, expected a non-negative integer"),
    ],
)
def test_bad_datasets(arguments, message):
    with pytest.raises(ValueError, match=message):
        SetDataset(**{"sets": some_sets(), **arguments})


def test_frames_with_columns_in_another_order():
    pandas = pytest.importorskip("pandas")
    frames = [
        pandas.DataFrame({"x": [1.0], "y": [2.0]}),
        pandas.DataFrame({"y": [2.0], "x": [1.0]}),
    ]
    with pytest.raises(ValueError, match=r"`sets` .*set 1 with the columns \['y', 'x'\], set 0"):
        pad_sets(frames)
    assert pad_sets(frames[:1])[0].tolist() == [[[1.0, 2.0]]]
    assert pad_sets([pandas.DataFrame(), frames[0]])[1].tolist() == [[False], [True]]
    with pytest.raises(ValueError, match="the first is entity 0 of set 2"):
        SetDataset([np.ones((2, 1)), np.ones((0, 1)), np.full((1, 1), np.nan)])


@pytest.mark.parametrize(
    "read",
    [
        lambda points: pad_sets(points),
        lambda points: pad_sets([*points]),
        lambda points: SetDataset(points),
        lambda points: SetDataset(points.data, points[:, 0, 0]),
        lambda points: SetDataset(points.data, [*points[..., 0]]),
        lambda points: keras_sets.layers.SumPooling()(points),
        lambda points: keras_sets.models.predict_in_chunks(
            keras_sets.layers.SumPooling(), [points]
        ),
    ],
)
def test_masked_values_of_numpy_are_not_taken_for_real(read):
    points = np.ma.masked_equal(np.array([[[99.0], [2.0]], [[3.0], [4.0]]]), 99)
    with pytest.raises(ValueError, match=r"no masked values.*\.filled.* 1 of \d are masked"):
        read(points)
    assert pad_sets(np.ma.array(points.data))[0].tolist() == points.data.tolist()
