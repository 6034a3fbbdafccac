"""Command line of the set autoencoder; see `--help`."""

import argparse

from examples.common import options as common
from examples.set_autoencoder.names import DATA_SETS
from examples.set_autoencoder.names import DECODERS
from examples.set_autoencoder.names import settings

DEFAULTS = settings(DATA_SETS[0])
SMOKE = {"sets": 60, "epochs": 2, "batch_size": 20, "harmonics": 1, "hidden": 8, "latent": 4}


def parse(arguments=None):
    parser = common.make_parser(
        "set_autoencoder",
        "Train a network to bring a set of points to a vector, and back to a set whose number of "
        "points it has to say. The sets are the bright pixels of images. Data sets have defaults "
        "of their own.",
        DEFAULTS,
    )
    integer = common.positive_integer
    data = common.add_data_group(
        parser,
        DATA_SETS,
        "digits come with scikit-learn, the others with TensorFlow Datasets",
    )
    data.add_argument("--sets", type=integer, metavar="N", help="use N of them at most")
    data.add_argument(
        "--share",
        type=share,
        metavar="S",
        help="a set has this share of the bright pixels, drawn anew in every epoch",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--decoder",
        choices=DECODERS,
        default=DECODERS[0],
        help="queries: each of them asks the vector for a point; dense: dense layers give all "
        "points at once",
    )
    model.add_argument(
        "--harmonics", type=integer, metavar="K", help="waves up to K periods along each axis"
    )
    model.add_argument("--latent", type=integer, help="width of the vector")
    model.add_argument("--hidden", type=integer, help="width of the layers")
    common.check_backend()
    given = parser.parse_known_args(arguments)[0]
    parser.set_defaults(**settings(given.data_set))
    return common.parse(parser, SMOKE, arguments, free=["data_dir"])


def share(text):
    value = common.positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected at most 1, received {text!r}")
    return value


def table(data_set, scores):
    """The distances as text."""
    lines = [
        f"{data_set}, {scores[0]['sets']:,} test sets: Chamfer distance ± standard error, in "
        "squared units of half the image",
        f"{'':26}  {'distance':>17}  {'number of points: mean error':>28}",
    ]
    for score in scores:
        distance = f"{score['chamfer']:.5f} ± {score['error']:.5f}"
        lines.append(f"{score['method']:26}  {distance:>17}  {score['number']:28.2f}")
    return "\n".join(lines)


@common.command
def main(arguments=None):
    options = parse(arguments)

    from examples.common import networks
    from examples.common import optimizers
    from examples.common.image_sets import DataError
    from examples.common.run import Run
    from examples.common.training import Training
    from examples.set_autoencoder import data as shapes
    from examples.set_autoencoder import evaluate
    from examples.set_autoencoder import model as models

    try:
        data = shapes.load(
            options.data_set, options.data_dir, options.sets, options.share, options.seed
        )
    except DataError as error:
        raise common.RunError(str(error)) from error
    name = f"{options.data_set}-{options.decoder}" + (f"-{options.run}" if options.run else "")
    model = networks.build_network(options, name, lambda: models.build(options, data))
    if options.dry_run:
        return
    run = Run("set_autoencoder", name, options)
    run.prepare()
    batches = shapes.Batches(
        data.training,
        options.share,
        batch_size=options.batch_size,
        buckets=2,
        seed=options.seed,
    )
    validation = shapes.Batches(data.validation, shuffle=False, buckets=1)
    test = shapes.Batches(data.test, shuffle=False, buckets=1)

    def predict():
        return evaluate.reconstructions(model.predict(test, verbose=0))

    def draw():
        from examples.set_autoencoder import plots

        predicted = predict()
        path = run.path / "reconstructions.png"
        plots.reconstructions(data.test, predicted, data.test_labels, path)
        plots.numbers(data.test, predicted, run.path / "numbers.png")

    model.compile(optimizers.make_optimizer(options), models.loss())
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

    predicted = predict()
    answers = {options.decoder: (predicted, [len(points) for points in predicted])}
    answers |= evaluate.references(data, options.share)
    scores = [evaluate.score(name, *answer, data.test) for name, answer in answers.items()]
    text = table(options.data_set, scores)
    print(f"\n{training.duration}; {text}")
    run.write_results(text, {"data_set": options.data_set, "scores": scores})
    print(f"\nModel, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
