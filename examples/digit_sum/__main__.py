"""Command line of the digit sum example; see `--help`."""

from examples.common import options as common
from examples.digit_sum.data import MODELS
from examples.digit_sum.data import PUBLISHED

DEFAULTS = {
    "epochs": 10,
    "batch_size": 128,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "schedule": "cosine",
}
SMOKE = {"sets": 200, "epochs": 2, "batch_size": 20, "test_sets": 10, "lengths": [5, 20]}


def parse(arguments=None):
    parser = common.make_parser(
        "digit_sum",
        "Train networks to add up to nine digits, and ask them for the sums of many more.",
        DEFAULTS,
    )
    integer = common.positive_integer
    model = parser.add_argument_group("model")
    model.add_argument(
        "--models", choices=MODELS, nargs="+", default=list(MODELS), help="trained in turn"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--sets", type=integer, default=100000, help="training sets")
    data.add_argument("--test-sets", type=integer, default=10000, help="test sets of each length")
    data.add_argument(
        "--lengths",
        type=integer,
        nargs="+",
        default=list(range(5, 100, 5)),
        metavar="N",
        help="digits in the test sets (default: 5 to 95 in steps of 5)",
    )
    options = common.parse(parser, SMOKE, arguments, free=["models", "test_sets"])
    options.models = list(dict.fromkeys(options.models))
    return options


def table(lengths, accuracies, count):
    """Accuracy of every network at every length as text."""
    width = max(6, *(len(name) for name in accuracies))
    lines = [f"sums that are right after rounding, of {count:,} fresh sets of each length"]
    lines.append("digits  " + "  ".join(f"{name:>{width}}" for name in accuracies))
    for i, length in enumerate(lengths):
        cells = (f"{100 * values[i]:.1f} %" for values in accuracies.values())
        lines.append(f"{length:6}  " + "  ".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join([*lines, PUBLISHED])


@common.command
def main(arguments=None):
    options = parse(arguments)

    import keras
    import numpy as np

    from examples.common import datasets
    from examples.common import networks
    from examples.common import optimizers
    from examples.common.run import Run
    from examples.common.training import Training
    from examples.digit_sum import data
    from examples.digit_sum import model as models

    name = "-".join(options.models) + (f"-{options.run}" if options.run else "")
    builders = {model: lambda model=model: models.build(model) for model in options.models}
    compared = networks.build_networks(options, builders)
    if options.dry_run:
        return
    run = Run("digit_sum", name, options)
    run.prepare()
    training_sets = data.draw(datasets.generator(options.seed, 1), options.sets)
    validation = data.draw(datasets.generator(options.seed, 2), max(1, options.sets // 80))
    lengths, longest = np.array(options.lengths), max(options.lengths)
    digits, sums = data.draw(
        datasets.generator(options.seed, 3),
        len(lengths) * options.test_sets,
        longest,
        np.repeat(lengths, options.test_sets),
    )
    accuracies = {}
    for name, model in compared.items():
        keras.utils.set_random_seed(options.seed)
        model.compile(optimizers.make_optimizer(options), loss="mae")
        batches = datasets.ArrayDataset(*training_sets, options.batch_size, seed=options.seed)
        training = Training(run.part(name), model, batches, validation)
        model.fit(
            training.batches,
            validation_data=training.validation,
            epochs=options.epochs,
            initial_epoch=training.initial_epoch,
            shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
            callbacks=training.callbacks,
        )
        training.finish()

        predicted = np.round(model.predict(digits, batch_size=1000, verbose=0))
        right = (predicted == sums).reshape(len(lengths), options.test_sets)
        accuracies[name] = right.mean(axis=1).tolist()

    from examples.digit_sum import plots

    plots.accuracy(options.lengths, accuracies, run.path / "accuracy.png")
    text = table(options.lengths, accuracies, options.test_sets)
    print(f"\n{text}")
    run.write_results(text, {"lengths": options.lengths, "accuracies": accuracies})
    print(f"\nModels, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
