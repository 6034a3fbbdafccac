"""Command line of the example on mixtures of Gaussians; see `--help`."""

import dataclasses

from examples.common import options as common

MODELS = (
    "deep-sets",
    "equivariant-mean",
    "equivariant-max",
    "set-transformer",
    "swarm",
    "swarm-maps",
)
DEFAULTS = {
    "epochs": 100,
    "batch_size": 10,
    "optimizer": "muon",
    "learning_rate": 0.003,
    "schedule": "cosine",
    # Only when all earlier epochs were better.
    "backtracking_horizon": 0.99,
}
SMOKE = {
    "hidden": 8,
    "iterations": 1,
    "test_iterations": 2,
    "views": 2,
    "epochs": 2,
    "steps": 2,
    "batch_size": 4,
    "points": [10, 30],
    "buckets": 1,
    "validation_sets": 8,
    "test_sets": 12,
}


def parse(arguments=None):
    parser = common.make_parser(
        "mixture_of_gaussians",
        "Train a network that fits a mixture of Gaussians to a set of points in one forward "
        "pass, and compare it with the true mixture, with EM, and with published networks.",
        DEFAULTS,
    )
    integer = common.positive_integer
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="deep-sets", help="encoder of points")
    model.add_argument(
        "--decoder",
        choices=["mean", "attention", "slots"],
        default="slots",
        help="mean pooling and dense layers; attention pooling with one seed for each Gaussian; "
        "or these seeds as slots that share out the points again and again",
    )
    model.add_argument("--hidden", type=integer, default=64, help="width of the layers")
    model.add_argument(
        "--layers", type=integer, default=4, help="of deep-sets and of equivariant encoders"
    )
    model.add_argument("--iterations", type=integer, default=6, help="of swarm and of slots")
    model.add_argument(
        "--test-iterations",
        type=integer,
        default=12,
        help="of slots after the training: all iterations have the same weights",
    )
    model.add_argument("--heads", type=integer, default=4, help="of attention and of slots")
    model.add_argument("--inducing-points", type=integer, default=32, help="of set-transformer")
    model.add_argument("--maps", type=integer, default=8, help="of swarm-maps")

    data = parser.add_argument_group("data")
    data.add_argument("--components", type=integer, default=4, help="Gaussians in a mixture")
    data.add_argument(
        "--points",
        type=integer,
        nargs=2,
        default=[100, 500],
        metavar=("LEAST", "MOST"),
        help="points in a set",
    )
    data.add_argument(
        "--test-points",
        type=integer,
        nargs=2,
        metavar=("LEAST", "MOST"),
        help="points in a set of the final table (default: as in training)",
    )
    data.add_argument("--buckets", type=integer, default=4, help="set sizes to pad to")
    data.add_argument("--steps", type=integer, default=500, help="fresh batches in an epoch")
    data.add_argument("--validation-sets", type=integer, default=200, help="sets that validate")
    data.add_argument(
        "--test-sets", type=integer, default=1000, help="fresh sets of the final table"
    )
    data.add_argument(
        "--views",
        type=int,
        choices=range(1, 9),
        default=8,
        metavar="1..8",
        help="rotations and reflections of a test set, of which the likeliest answer counts",
    )
    free = ["test_sets", "test_iterations", "test_points", "views"]
    options = common.parse(parser, SMOKE, arguments, free=free)
    options.test_points = options.test_points or options.points
    for name in ("points", "test_points"):
        least, most = getattr(options, name)
        if least > most:
            flag = name.replace("_", "-")
            parser.error(f"argument --{flag}: LEAST is above MOST: [{least}, {most}]")
    needed = max(2, options.components)
    if options.test_points[0] < needed:
        parser.error(
            f"argument --test-points: LEAST is at least {needed}, because EM, a reference, needs a "
            f"point for every Gaussian. Received: {options.test_points[0]}"
        )
    if options.test_sets < 2:
        parser.error("argument --test-sets: a standard error needs 2 sets, received 1")
    return options


def run_name(options):
    name = f"{options.model}-{options.decoder}-{options.hidden}"
    return name + (f"-{options.run}" if options.run else "")


@common.command
def main(arguments=None):
    options = parse(arguments)

    from examples.common import datasets
    from examples.common import networks
    from examples.common.run import Run
    from examples.common.training import Training
    from examples.mixture_of_gaussians import data
    from examples.mixture_of_gaussians import evaluate
    from examples.mixture_of_gaussians import model as models

    name = run_name(options)
    model = networks.build_network(options, name, lambda: models.build(options))
    if options.dry_run:
        return
    run = Run("mixture_of_gaussians", name, options)
    run.prepare()

    padded = data.padded_sizes(options.test_points, options.buckets)
    batches, validation = data.training_data(options)
    rng = datasets.generator(options.seed, 2)
    fresh = data.fixed_sets(options.test_sets, rng, options.test_points, options.components)

    def draw():
        from examples.mixture_of_gaussians import plots

        few = fresh.select(slice(0, 8))
        predicted = evaluate.predicted_mixtures(in_use, few, padded)
        plots.mixtures(few, predicted, run.path / "mixtures.png")

    in_use = model
    models.compile_for_points(model, options)
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

    scored = {name: model}
    if options.decoder == "slots" and options.test_iterations != options.iterations:
        in_use = models.build(options, options.test_iterations)
        in_use.set_weights(model.get_weights())
        scored[f"{name}, {options.test_iterations} iterations"] = in_use
        run.save_model(in_use)
        draw()
    scores = evaluate.compare(scored, fresh, padded, options.seed, options.views)
    protocol = (options.components, tuple(options.test_points))
    text = evaluate.table(scores, len(fresh), protocol)
    print(f"\n{training.duration}; {text}")
    run.write_results(text, [dataclasses.asdict(score) for score in scores])
    print(f"\nModel, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
