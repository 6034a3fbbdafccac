"""Command line of the symmetric elements example; see `--help`."""

from examples.common import options as common
from examples.symmetric_elements.data import MODELS
from examples.symmetric_elements.data import TASKS

DEFAULTS = {
    "epochs": 10,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "schedule": "cosine",
}
SMOKE = {
    "models": ["dss-sum", "siamese", "deep-sets"],
    "sizes": [8],
    "epochs": 2,
    "steps": 2,
    "batch_size": 4,
    "validation_sets": 8,
    "test_sets": 20,
}


def parse(arguments=None):
    parser = common.make_parser(
        "symmetric_elements",
        "Compare networks on sets of signals or images by how many training sets they need.",
        DEFAULTS,
    )
    integer = common.positive_integer
    data = parser.add_argument_group("comparison")
    data.add_argument("--task", choices=list(TASKS), default="signals", help="what the sets hold")
    data.add_argument(
        "--models", choices=MODELS, nargs="+", default=list(MODELS), help="what is compared"
    )
    data.add_argument(
        "--sizes",
        type=integer,
        nargs="+",
        default=[100, 300, 1000, 3000],
        metavar="N",
        help="numbers of training sets",
    )
    data.add_argument(
        "--repeats", type=integer, default=1, help="trainings with other data and weights"
    )
    data.add_argument(
        "--steps", type=integer, default=40, help="batches in an epoch, whatever the size"
    )
    data.add_argument("--validation-sets", type=integer, default=300, help="sets that validate")
    data.add_argument("--test-sets", type=integer, default=3000, help="sets of the table")
    options = common.parse(parser, SMOKE, arguments, free=["models", "repeats", "test_sets"])
    options.models = list(dict.fromkeys(options.models))
    options.sizes = sorted(set(options.sizes))
    return options


def summary(accuracies, test_sets):
    """`(mean, standard error)` over repeats; of one alone the error is that of its test."""
    mean, count = sum(accuracies) / len(accuracies), len(accuracies)
    if count == 1:
        return mean, (mean * (1 - mean) / test_sets) ** 0.5
    variance = sum((accuracy - mean) ** 2 for accuracy in accuracies) / (count - 1)
    return mean, (variance / count) ** 0.5


def table(options, sizes, parameters, accuracies):
    """Accuracy of every network at every size as text."""
    over = f"over {options.repeats} repeats" if options.repeats > 1 else "over the test sets"
    lines = [
        f"{options.task}: accuracy on {options.test_sets:,} fresh sets in percent, ± standard "
        f"error {over};",
        f"guessing {100 * TASKS[options.task].chance:.1f}",
        f"{'':18} {'parameters':>10}" + "".join(f"{f'{size:,} sets':>14}" for size in sizes),
    ]
    for name, points in accuracies.items():
        cells = "".join(f"{f'{100 * a:.1f} ± {100 * e:.1f}':>14}" for a, e in points)
        lines.append(f"{name:18} {parameters[name]:>10,}{cells}")
    return "\n".join(lines)


@common.command
def main(arguments=None):
    options = parse(arguments)

    import keras
    import numpy as np

    from examples.common import datasets
    from examples.common import networks
    from examples.common import optimizers
    from examples.common.run import Run
    from examples.common.training import train_part
    from examples.symmetric_elements import data
    from examples.symmetric_elements import model as models

    task = TASKS[options.task]
    name = options.task + (f"-{options.run}" if options.run else "")

    builders = {
        model: lambda model=model: models.build(model, options.task) for model in options.models
    }
    compared = networks.build_networks(options, builders)
    if options.dry_run:
        return
    run = Run("symmetric_elements", name, options)
    run.prepare()
    parameters = {model: network.count_params() for model, network in compared.items()}
    counts = (options.sizes[-1], options.validation_sets, options.test_sets)
    results = {model: [[] for _ in options.sizes] for model in options.models}
    for seed in range(options.seed, options.seed + options.repeats):
        training_sets, validation, (inputs, labels) = data.draw(options.task, counts, seed)
        for place, size in enumerate(options.sizes):
            for model in options.models:
                network = networks.build_again(options, builders[model], seed)
                network.compile(
                    optimizers.make_optimizer(options),
                    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                    metrics=["accuracy"],
                )
                batches = datasets.ArrayDataset(
                    *(array[:size] for array in training_sets),
                    options.batch_size,
                    options.steps,
                    seed,
                )
                names = model, str(size), str(seed)
                train_part(run, names, network, batches, validation)
                predicted = network.predict(inputs, batch_size=100, verbose=0).argmax(axis=1)
                results[model][place].append(float(np.mean(predicted == labels)))
                print(f"{'-'.join(names)}: accuracy {results[model][place][-1]:.3f}", flush=True)

    accuracies = {
        model: [summary(repeats, options.test_sets) for repeats in points]
        for model, points in results.items()
    }
    from examples.symmetric_elements import plots

    path = run.path / "comparison.png"
    plots.comparison(options.task, task.chance, (inputs, labels), options.sizes, accuracies, path)
    text = table(options, options.sizes, parameters, accuracies)
    print(f"\n{text}")
    scores = {"sizes": options.sizes, "parameters": parameters, "accuracies": results}
    run.write_results(text, scores)
    print(f"\nModels, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
