"""Command line of the point cloud example; see `--help`."""

from examples.common import options as common
from examples.point_clouds.names import DATA_SETS
from examples.point_clouds.names import MODELS
from examples.point_clouds.names import ORBITS
from examples.point_clouds.names import QUOTED
from examples.point_clouds.names import settings

DEFAULTS = settings(ORBITS, MODELS[0])
SMOKE = {"sets": 40, "epochs": 2, "batch_size": 10, "harmonics": 1, "hidden": 4}


def parse(arguments=None):
    parser = common.make_parser(
        "point_clouds",
        "Train a network to say the class of point clouds: orbits of a map, or images as sets of "
        "bright pixels. Model and data set have defaults of their own for all that is learned.",
        DEFAULTS,
    )
    integer = common.positive_integer
    data = common.add_data_group(
        parser,
        DATA_SETS,
        "orbits are computed, digits come with scikit-learn, the others with TensorFlow Datasets",
    )
    data.add_argument("--sets", type=integer, metavar="N", help="use N of them at most")
    data.add_argument(
        "--points",
        type=integer,
        metavar="N",
        help="train on N points of each set at most, drawn anew in every epoch",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        choices=MODELS,
        default=MODELS[0],
        help="harmonics: the mean of waves over the set, then dense layers; or one of "
        "keras_sets.models, which sees the waves of every point",
    )
    model.add_argument(
        "--harmonics", type=integer, metavar="K", help="waves up to K periods along each axis"
    )
    model.add_argument("--hidden", type=integer, help="width of the layers")
    model.add_argument("--dropout", type=common.fraction, help="rate")
    common.check_backend()
    given = parser.parse_known_args(arguments)[0]
    parser.set_defaults(**settings(given.data_set, given.model))
    return common.parse(parser, SMOKE, arguments, free=["data_dir"])


def table(data_set, scores):
    """The accuracies and, for orbits, those that are quoted as text."""
    lines = [
        f"{data_set}, test accuracy ± standard error over {scores[0]['sets']:,} sets",
        f"{'':18}  {'parameters':>10}  {'minutes':>7}  {'accuracy':>15}",
    ]
    for score in scores:
        size = f"{score['parameters']:,}" if score["parameters"] else "-"
        accuracy = f"{score['accuracy']:.4f} ± {score['error']:.4f}"
        lines.append(f"{score['method']:18}  {size:>10}  {score['minutes']:7.1f}  {accuracy:>15}")
    if data_set == ORBITS:
        for name, accuracy in QUOTED.items():
            lines.append(f"{name:18}  {'-':>10}  {'-':>7}  {accuracy:>6} quoted")
    return "\n".join(lines)


@common.command
def main(arguments=None):
    options = parse(arguments)

    import keras
    import numpy as np

    from examples.common import networks
    from examples.common import optimizers
    from examples.common.image_sets import DataError
    from examples.common.run import Run
    from examples.common.training import Training
    from examples.point_clouds import data as clouds
    from examples.point_clouds import evaluate
    from examples.point_clouds import model as models

    try:
        data = clouds.load(options)
    except DataError as error:
        raise common.RunError(str(error)) from error
    name = f"{options.data_set}-{options.model}" + (f"-{options.run}" if options.run else "")
    model = networks.build_network(options, name, lambda: models.build(options, data))
    if options.dry_run:
        return
    run = Run("point_clouds", name, options)
    run.prepare()
    validation = clouds.Batches(*data.validation, shuffle=False)
    test = clouds.Batches(data.test[0], shuffle=False)
    labels = data.test[1]

    def predict():
        return np.argmax(model.predict(test, verbose=0), axis=-1)

    def draw():
        from examples.point_clouds import plots

        plots.answers(data.test[0], labels, predict(), data.classes, run.path / "answers.png")

    model.compile(
        optimizers.make_optimizer(options),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batches = clouds.training_batches(options, data)
    training = Training(run, model, batches, validation, draw)
    model.fit(
        training.batches,
        validation_data=training.validation,
        epochs=options.epochs,
        initial_epoch=training.initial_epoch,
        shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
        callbacks=training.callbacks,
    )
    training.finish()

    predicted, minutes = evaluate.boosting(data, options.seed)
    scores = [
        evaluate.score(options.model, predict(), labels, training.seconds / 60, model),
        evaluate.score("gradient boosting", predicted, labels, minutes),
    ]
    text = table(options.data_set, scores)
    print(f"\n{training.duration}; {text}")
    run.write_results(text, {"data_set": options.data_set, "scores": scores})
    print(f"\nModel, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
