"""What a user writes, for `mypy` to check: it is not run.

`mypy` fails where a right use is flagged. It also fails where a wrong use is not, because then its
`type: ignore` is of no use. What is of Keras or a backend, tensors and layers included, is `Any`:
there no wrong use can be seen. Neither can a misspelt argument of a class that takes `**kwargs`.
"""

from typing import assert_type

import keras
import numpy as np

import keras_sets


def right_uses() -> None:
    sets = [np.zeros((3, 2)), np.zeros((5, 2))]
    assert_type(keras_sets.utils.pad_sets(sets, 8, dtype="float32"), tuple[np.ndarray, np.ndarray])
    dataset = keras_sets.utils.SetDataset(
        sets, [0, 1], weights=[[1, 2, 1], np.ones(5)], buckets=[8]
    )
    assert_type(dataset.batch_size, int)
    bags = keras_sets.utils.sets_from_dataframe({"bag": [0], "x": [0.5]}, "bag", ["x"])
    assert_type(bags.sets, list[np.ndarray])

    swarm = keras_sets.layers.Swarm(
        8,
        pooling=keras_sets.layers.MeanPooling(name="mean"),
        activation=keras.ops.tanh,
        kernel_initializer=keras.initializers.HeNormal(),
        bias_regularizer={"class_name": "L2", "config": {"l2": 0.1}},
        dtype="mixed_bfloat16",
    )
    assert_type(swarm.units, int)
    assert_type(swarm.streaming_cell(), keras_sets.layers.SwarmStreamingCell)
    assert_type(keras_sets.layers.Swarm.from_config(swarm.get_config()), keras_sets.layers.Swarm)
    swarm(np.zeros((2, 3, 2)), mask=np.ones((2, 3), bool), training=True)
    keras_sets.layers.get_pooling("max", keepdims=True)
    keras_sets.layers.QuantilePooling([0.1, 0.9])
    keras_sets.layers.DSSConv2D(4, (3, 3), padding="circular", pooling="max")
    group = keras_sets.groups.direct_product(
        keras_sets.groups.cyclic(4), keras_sets.groups.trivial(2)
    )
    assert_type(group, keras_sets.groups.PermutationGroup)
    keras_sets.layers.PermutationGroupDense(8, group)

    model = keras_sets.models.set_transformer(2, 1, num_inducing_points=None, residual="clean")
    model.compile(loss=keras_sets.losses.Chamfer(), metrics=[keras_sets.metrics.MatchedAccuracy()])
    model.fit(dataset, callbacks=[keras_sets.callbacks.TimeBudget(0.5)])
    keras_sets.models.predict_in_chunks(model, lambda: iter(sets))
    keras_sets.losses.MatchedLoss(lambda x, y: keras.ops.sum(x - y, axis=-1), no_object_weight=0.1)
    keras_sets.testing.assert_permutation_invariant(model, np.zeros((2, 3, 2)), tolerance=1e-3)
    keras_sets.export.export_model(model, "folder", set_size=8)

    clustering = keras_sets.wrappers.AmortizedClustering(max_points=None).fit([[0.0, 1.0]])
    assert_type(clustering, keras_sets.wrappers.AmortizedClustering)
    assert_type(clustering.predict_proba(np.zeros((4, 2))), np.ndarray)


def wrong_layers() -> None:
    keras_sets.layers.Swarm("ten")  # type: ignore[arg-type]
    keras_sets.layers.Swarm(8, pooling=3)  # type: ignore[arg-type]
    keras_sets.layers.Swarm(8, dropout="half")  # type: ignore[arg-type]
    keras_sets.layers.Swarm(8, kernel_initializer=0.1)  # type: ignore[arg-type]
    keras_sets.layers.Swarm.from_config("swarm")  # type: ignore[arg-type]
    keras_sets.layers.MeanPooling(keepdims="yes")  # type: ignore[arg-type]
    keras_sets.layers.MeanPooling()(np.zeros((2, 3, 2)), None, None, True)  # type: ignore[call-arg]
    keras_sets.layers.QuantilePooling("half")  # type: ignore[arg-type]
    keras_sets.layers.get_pooling(None)  # type: ignore[arg-type]
    keras_sets.layers.SetAttentionBlock(8)  # type: ignore[call-arg]
    keras_sets.layers.DSSConv1D(4, "three")  # type: ignore[arg-type]
    keras_sets.layers.CircularConv2D("four", 3)  # type: ignore[arg-type]
    keras_sets.layers.PermutationGroupDense(8, 5)  # type: ignore[arg-type]
    keras_sets.layers.SwarmStreamingCell("swarm")  # type: ignore[arg-type]
    keras_sets.groups.direct_product(keras_sets.groups.cyclic(4), 2)  # type: ignore[arg-type]
    keras_sets.groups.PermutationGroup([1, 0])  # type: ignore[list-item]


def wrong_models(model: keras.Model) -> None:
    keras_sets.models.deep_sets("two", 1)  # type: ignore[arg-type]
    keras_sets.models.swarm(2, 1, iteration=5)  # type: ignore[call-arg]
    keras_sets.models.swarm(2, 1, pooling=None)  # type: ignore[arg-type]
    keras_sets.models.swarm_image_transformer(28)  # type: ignore[arg-type]
    keras_sets.models.generate(model, 4, temperature="high")  # type: ignore[arg-type]
    keras_sets.models.predict_in_chunks(model, 5)  # type: ignore[arg-type]
    keras_sets.export.export_model(model, 5)  # type: ignore[arg-type]
    keras_sets.export.export_model(model, "folder", batch_size="two")  # type: ignore[arg-type]
    keras_sets.convert.load_torch_swarm("swarm", {})  # type: ignore[arg-type]


def wrong_losses_and_metrics() -> None:
    keras_sets.losses.GaussianMixtureLoss(epsilon="small")  # type: ignore[arg-type]
    keras_sets.losses.MatchedCrossentropy(ignore_class="padding")  # type: ignore[arg-type]
    keras_sets.losses.MatchedLoss(0.1)  # type: ignore[arg-type]
    keras_sets.losses.SinkhornDivergence(iterations=0.5)  # type: ignore[arg-type]
    keras_sets.losses.Chamfer(epsilon=0.1)  # type: ignore[call-arg]
    keras_sets.metrics.MatchedAccuracy(ignore_class="padding")  # type: ignore[arg-type]


def wrong_data(sets: list[np.ndarray]) -> None:
    keras_sets.utils.pad_sets(3)  # type: ignore[arg-type]
    keras_sets.utils.pad_sets(sets, size="largest")  # type: ignore[arg-type]
    keras_sets.utils.pad_sets(sets).shape  # type: ignore[attr-defined]  # noqa: B018
    keras_sets.utils.SetDataset(sets, buckets="four")  # type: ignore[arg-type]
    keras_sets.utils.sets_from_dataframe({}, group=1, features="x")  # type: ignore[arg-type]
    keras_sets.callbacks.TimeBudget("an hour")  # type: ignore[arg-type]
    keras_sets.callbacks.Checkpoint("folder", keep=None)  # type: ignore[arg-type]
    keras_sets.testing.assert_causal("layer", np.zeros((2, 3, 2)))  # type: ignore[arg-type]
    keras_sets.ops.set_mean(np.zeros((2, 3, 2)), keepdims="yes")  # type: ignore[arg-type]
    keras_sets.wrappers.AmortizedClustering(max_points="all")  # type: ignore[arg-type]
    labels: str = keras_sets.wrappers.AmortizedClustering().predict(sets)  # type: ignore[assignment]
    print(labels)
