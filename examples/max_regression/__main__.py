"""Command line of the max regression example; see `--help`."""

from examples.common import options as common
from examples.max_regression.data import MODELS
from examples.max_regression.data import PUBLISHED

DEFAULTS = {
    "epochs": 20,
    "batch_size": 128,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "schedule": "cosine",
}
SMOKE = {"epochs": 2, "steps": 10, "batch_size": 8, "validation_sets": 20, "test_sets": 50}


def parse(arguments=None):
    parser = common.make_parser(
        "max_regression",
        "Train a network to give the largest number of a set, and compare its error with the "
        "published ones of the Set Transformer's paper.",
        DEFAULTS,
    )
    integer = common.positive_integer
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="max", help="a pooling, or attention")
    data = parser.add_argument_group("data")
    data.add_argument("--steps", type=integer, default=1000, help="fresh batches in an epoch")
    data.add_argument("--validation-sets", type=integer, default=10000, help="sets that validate")
    data.add_argument(
        "--test-sets", type=integer, default=100000, help="fresh sets of the final table"
    )
    return common.parse(parser, SMOKE, arguments, free=["test_sets"])


def table(name, error, count):
    """The errors of this run and the published ones as text."""
    lines = [
        f"mean absolute error; this run: {count:,} fresh sets, ± standard error",
        f"{'':15}  {'this run':>19}  {'published':>15}",
    ]
    for model in dict.fromkeys([*PUBLISHED, name]):
        here = f"{error[0]:.5f} ± {error[1]:.5f}" if model == name else ""
        value, deviation = PUBLISHED.get(model, (None, None))
        there = "-" if value is None else f"{value}" + (f" ± {deviation}" if deviation else "")
        lines.append(f"{model:15}  {here:>19}  {there:>15}")
    return "\n".join(lines)


@common.command
def main(arguments=None):
    options = parse(arguments)

    import numpy as np

    from examples.common import datasets
    from examples.common import networks
    from examples.common import optimizers
    from examples.common.run import Run
    from examples.common.training import Training
    from examples.max_regression import data
    from examples.max_regression import model as models

    name = options.model + (f"-{options.run}" if options.run else "")
    model = networks.build_network(options, name, lambda: models.build(options.model))
    if options.dry_run:
        return
    run = Run("max_regression", name, options)
    run.prepare()

    batches = datasets.GeneratedDataset(
        lambda rng: data.draw(rng, options.batch_size), options.steps, options.seed
    )
    validation = data.draw(datasets.generator(options.seed, 1), options.validation_sets)
    inputs, targets = data.draw(datasets.generator(options.seed, 2), options.test_sets)

    def differences():
        return model.predict(inputs, batch_size=1000, verbose=0)[:, 0] - targets[:, 0]

    def draw():
        from examples.max_regression import plots

        published, _ = PUBLISHED.get(options.model, (None, None))
        sizes = inputs["mask"].sum(axis=1)
        plots.errors(sizes, targets[:, 0], differences(), published, run.path / "errors.png")

    model.compile(optimizers.make_optimizer(options), loss="mae")
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

    absolute = np.abs(differences().astype("float64"))
    error = (float(absolute.mean()), float(absolute.std() / np.sqrt(len(absolute))))
    text = table(options.model, error, options.test_sets)
    print(f"\n{training.duration}; {text}")
    scores = {"model": options.model, "mean_absolute_error": error[0], "standard_error": error[1]}
    run.write_results(text, scores)
    print(f"\nModel, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
