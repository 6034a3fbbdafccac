"""Command line of the bags example; see `--help`."""

from examples.bags.names import DATA_SETS
from examples.bags.names import MODELS
from examples.bags.names import NUMBERS
from examples.bags.names import PUBLISHED
from examples.common import options as common

DEFAULTS = {
    "epochs": 10,
    "batch_size": 4,
    "optimizer": "adam",
    "learning_rate": 0.0005,
    "schedule": "cosine",
    # The loss stays where it is for hundreds of steps before it falls.
    "backtracking_horizon": 0.9,
}
SMOKE = {
    "models": ["gated-attention", "instance-max"],
    "bags": [6],
    "epochs": 2,
    "steps": 2,
    "batch_size": 3,
    "validation_bags": 6,
    "test_bags": 12,
}


def parse(arguments=None):
    parser = common.make_parser(
        "bags",
        "Train networks to say whether a 9 is among the images of a bag, and compare them by how "
        "many training bags they need.",
        DEFAULTS,
    )
    integer = common.positive_integer
    data = common.add_data_group(
        parser,
        DATA_SETS,
        "digits come with scikit-learn, the others with TensorFlow Datasets",
    )
    data.add_argument(
        "--move",
        type=common.non_negative_integer,
        default=2,
        metavar="PIXELS",
        help="move every training image by so much at most, at random",
    )
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument(
        "--models", choices=MODELS, nargs="+", default=list(MODELS), help="what is compared"
    )
    comparison.add_argument(
        "--bags",
        type=integer,
        nargs="+",
        default=list(NUMBERS),
        metavar="N",
        help="numbers of training bags",
    )
    comparison.add_argument(
        "--repeats", type=integer, default=1, help="trainings with other bags and weights"
    )
    comparison.add_argument(
        "--steps", type=integer, default=100, help="batches in an epoch, however many bags"
    )
    comparison.add_argument(
        "--validation-bags", type=integer, default=100, help="bags that choose the epoch"
    )
    comparison.add_argument("--test-bags", type=integer, default=1000, help="bags of the table")
    free = ["models", "repeats", "test_bags", "data_dir"]
    options = common.parse(parser, SMOKE, arguments, free=free)
    options.models = list(dict.fromkeys(options.models))
    options.bags = sorted(set(options.bags))
    return options


def table(options, parameters, scores):
    """AUC of every network for every number of bags, and those published, as text."""
    import numpy as np

    lines = [
        f"{options.data_set}: AUC on {options.test_bags:,} fresh bags, mean"
        + (" ± standard deviation" if options.repeats > 1 else "")
        + f" over {options.repeats} trainings; in brackets as published, second hand",
        f"{'':18} {'parameters':>10}" + "".join(f"{f'{n} bags':>23}" for n in options.bags),
    ]
    for name, points in scores.items():
        cells = []
        for number, values in zip(options.bags, points, strict=True):
            cell = f"{np.mean(values):.3f}"
            if len(values) > 1:
                cell += f" ± {np.std(values, ddof=1):.3f}"
            quoted = published(options.data_set, name).get(number)
            cells.append(cell + (f" ({quoted:.3f})" if quoted else ""))
        row = "".join(f"{cell:>23}" for cell in cells)
        lines.append(f"{name:18} {parameters[name]:>10,}{row}")
    return "\n".join(lines)


def published(data_set, model):
    """Dict from numbers of training bags to published AUC."""
    values = PUBLISHED.get(model, ()) if data_set == "mnist" else ()
    return dict(zip(NUMBERS, values, strict=False))


@common.command
def main(arguments=None):
    options = parse(arguments)

    from sklearn.metrics import roc_auc_score

    from examples.bags import data
    from examples.bags import model as models
    from examples.common import image_sets
    from examples.common import networks
    from examples.common import optimizers
    from examples.common.run import Run
    from examples.common.training import train_part
    from keras_sets.utils import SetDataset

    try:
        images = image_sets.load(options.data_set, options.data_dir)
    except image_sets.DataError as error:
        raise common.RunError(str(error)) from error
    name = options.data_set + (f"-{options.run}" if options.run else "")

    builders = {
        model: lambda model=model: models.build(model, images.shape, images.levels)
        for model in options.models
    }
    compared = networks.build_networks(options, builders)
    if options.dry_run:
        return
    seeds = range(options.seed, options.seed + options.repeats)
    counts = options.bags[-1], options.validation_bags, options.test_bags
    try:
        drawn = [data.draw_parts(images, counts, seed) for seed in seeds]
    except ValueError as error:
        raise common.RunError(f"argument --test-bags: {error}") from error
    run = Run("bags", name, options)
    run.prepare()
    parameters = {model: network.count_params() for model, network in compared.items()}
    scores = {model: [[] for _ in options.bags] for model in options.models}
    for seed, (training_bags, validation, (test_bags, positive)) in zip(seeds, drawn, strict=True):
        validation = SetDataset(*validation, batch_size=50, shuffle=False)
        test = SetDataset(test_bags, batch_size=50, shuffle=False)
        for place, number in enumerate(options.bags):
            for model in options.models:
                network = networks.build_again(options, builders[model], seed)
                network.compile(optimizers.make_optimizer(options), loss="binary_crossentropy")
                batches = data.Batches(
                    *(values[:number] for values in training_bags),
                    steps=options.steps,
                    pixels=options.move,
                    batch_size=options.batch_size,
                    seed=seed,
                )
                names = model, str(number), str(seed)
                train_part(run, names, network, batches, validation)
                answers = network.predict(test, verbose=0)
                scores[model][place].append(float(roc_auc_score(positive, answers)))
                print(f"{'-'.join(names)}: AUC {scores[model][place][-1]:.3f}", flush=True)
                if model.endswith("attention"):
                    attentive = network

    from examples.bags import plots

    quoted = {model: published(options.data_set, model) for model in options.models}
    plots.curves(options.bags, scores, quoted, run.path / "auc.png")
    if any(model.endswith("attention") for model in options.models):
        attention = models.attention_of(attentive).predict(
            SetDataset(test_bags, batch_size=50, buckets=1, shuffle=False), verbose=0
        )
        plots.attention(test_bags, positive[:, 0], attention, run.path / "attention.png")
    text = table(options, parameters, scores)
    print(f"\n{text}")
    run.write_results(text, {"bags": options.bags, "parameters": parameters, "auc": scores})
    print(f"\nModels, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
