"""Command line of the population statistics example; see `--help`."""

from examples.common import options as common
from examples.population_statistics.names import MODELS
from examples.population_statistics.names import TASKS

DEFAULTS = {
    "epochs": 100,
    "batch_size": 8,
    "optimizer": "adam",
    "learning_rate": 0.005,
    "schedule": "cosine",
    # A hundred validation sets rank epochs by chance, once the error is near its least.
    "backtracking_horizon": 0.95,
}
SMOKE = {
    "sets": [12],
    "epochs": 2,
    "steps": 2,
    "batch_size": 4,
    "validation_sets": 6,
    "test_sets": 10,
}


def parse(arguments=None):
    parser = common.make_parser(
        "population_statistics",
        "Estimate entropies and mutual information from sets of samples, and compare methods by "
        "how many training sets they need.",
        DEFAULTS,
    )
    integer = common.positive_integer
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument("--task", choices=TASKS, default=TASKS[0], help="what is estimated")
    comparison.add_argument(
        "--models", choices=MODELS, nargs="+", default=list(MODELS), help="what is compared"
    )
    comparison.add_argument(
        "--sets",
        type=integer,
        nargs="+",
        default=[128, 512, 2048],
        metavar="N",
        help="numbers of training sets",
    )
    comparison.add_argument(
        "--repeats", type=integer, default=1, help="trainings with other sets and weights"
    )
    comparison.add_argument(
        "--steps", type=integer, default=100, help="batches in an epoch, however many sets"
    )
    comparison.add_argument(
        "--validation-sets", type=integer, default=100, help="sets that choose the epoch"
    )
    comparison.add_argument("--test-sets", type=integer, default=1000, help="sets of the table")
    options = common.parse(parser, SMOKE, arguments, free=["models", "repeats", "test_sets"])
    options.models = list(dict.fromkeys(options.models))
    options.sets = sorted(set(options.sets))
    if options.sets[0] < 3:
        parser.error(f"argument --sets: expected at least 3, received {options.sets[0]}")
    return options


def table(options, errors):
    """Mean square errors of every method for every number of training sets as text."""
    import numpy as np

    lines = [
        f"{options.task}: mean square error on {options.test_sets:,} fresh sets, mean"
        + (" ± standard deviation" if options.repeats > 1 else "")
        + f" over {options.repeats} repeats",
        f"{'':12}" + "".join(f"{f'{number:,} sets':>22}" for number in options.sets),
    ]
    for name, points in errors.items():
        cells = []
        for values in points:
            cell = f"{np.mean(values):.3g}"
            if len(values) > 1:
                cell += f" ± {np.std(values, ddof=1):.2g}"
            cells.append(f"{cell:>22}")
        lines.append(f"{name:12}" + "".join(cells))
    return "\n".join(lines)


@common.command
def main(arguments=None):
    options = parse(arguments)

    import numpy as np

    from examples.common import datasets
    from examples.common import networks
    from examples.common import optimizers
    from examples.common.run import Run
    from examples.common.training import train_part
    from examples.population_statistics import data
    from examples.population_statistics import evaluate
    from examples.population_statistics import model as models
    from keras_sets.utils import SetDataset

    dimensions = 2 if options.task == "rotation" else 2 * data.HALF
    trained = [model for model in options.models if model != "kernel"]
    builders = {model: lambda model=model: models.build(model, dimensions) for model in trained}
    networks.build_networks(options, builders)
    if options.dry_run:
        return
    name = options.task + (f"-{options.run}" if options.run else "")
    run = Run("population_statistics", name, options)
    run.prepare()

    def answers_of(method, seed, training_sets, validation, test):
        """What a method says of the test sets, in nats."""
        mean, deviation = training_sets.targets.mean(), training_sets.targets.std()
        if method == "constant":
            return mean
        targets = (training_sets.targets - mean) / deviation
        if method == "kernel":
            pair = training_sets.samples, targets
            return mean + deviation * evaluate.kernel(pair, test.samples, seed)
        network = networks.build_again(options, builders[method], seed)
        network.compile(optimizers.make_optimizer(options), loss="mse")
        batches = datasets.RepeatedSets(
            training_sets.samples,
            targets,
            steps=options.steps,
            batch_size=options.batch_size,
            buckets=2,
            seed=seed,
        )
        shown = {"batch_size": 50, "buckets": 1, "shuffle": False}
        standardized = (validation.targets - mean) / deviation
        held_out = SetDataset(validation.samples, standardized, **shown)
        names = method, str(len(targets)), str(seed)
        train_part(run, names, network, batches, held_out)
        return mean + deviation * network.predict(SetDataset(test.samples, **shown), verbose=0)

    errors = {}
    counts = options.sets[-1], options.validation_sets, options.test_sets
    for seed in range(options.seed, options.seed + options.repeats):
        drawn, validation, test = (
            data.draw(options.task, seed, datasets.generator(seed, stream), count)
            for stream, count in enumerate(counts, start=2)
        )
        told = {"plug-in": evaluate.plug_in(options.task, test.samples)}
        if options.task in data.PARAMETERS:
            told["posterior"] = evaluate.posterior(options.task, seed, test.samples)
        for place, number in enumerate(options.sets):
            for method in [*options.models, *told, "constant"]:
                if method in told:
                    answers = told[method]
                else:
                    answers = answers_of(method, seed, drawn.first(number), validation, test)
                error = float(np.mean((answers - test.targets) ** 2))
                errors.setdefault(method, [[] for _ in options.sets])[place].append(error)
                print(f"{method}-{number}-{seed}: error {error:.3g}", flush=True)

    from examples.population_statistics import plots

    plots.errors(options.task, options.sets, errors, run.path / "errors.png")
    text = table(options, errors)
    print(f"\n{text}")
    run.write_results(text, {"task": options.task, "sets": options.sets, "errors": errors})
    print(f"\nModels, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
