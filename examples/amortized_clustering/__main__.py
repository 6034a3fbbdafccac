"""Command line of the clustering example; see `--help`."""

import argparse

from examples.common import options as common

DEFAULTS = {
    "epochs": 100,
    "time_budget": 7.0,
    "batch_size": 32,
    "optimizer": "muon",
    "learning_rate": 0.006,
    "schedule": "cosine",
}
SMOKE = {
    "tasks": 40,
    "hidden": 8,
    "iterations": 2,
    "epochs": 2,
    "batch_size": 4,
    "evaluation_tasks": 8,
    "entities": [20, 40],
    "points": None,
    "buckets": 1,
    "starts": 2,
    "em_steps": 1,
}


def parse(arguments=None):
    parser = common.make_parser(
        "amortized_clustering",
        "Train a network that clusters sets of 2-D points, and compare it with k-means, a "
        "Gaussian mixture and the Bayes oracle.",
        DEFAULTS,
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        choices=[
            "slots",
            "swarm",
            "deep-sets-mean",
            "deep-sets-max",
            "set-transformer",
            "lstm",
            "sorted-lstm",
        ],
        default="slots",
        help="the network",
    )
    integer, fraction = common.positive_integer, common.fraction
    model.add_argument(
        "--hidden", type=integer, help="width of the layers (default: 32 for slots, else 128)"
    )
    model.add_argument("--layers", type=integer, default=1, help="number of layers")
    model.add_argument(
        "--iterations",
        type=integer,
        help="of slots (default: 8) and of each swarm layer (default: 10)",
    )
    model.add_argument(
        "--em-steps",
        type=common.non_negative_integer,
        default=3,
        help="of slots: plain steps after the iterations",
    )
    model.add_argument(
        "--starts",
        type=integer,
        default=8,
        help="of slots in use: they look at a set from so many sides, and the best answer counts",
    )
    model.add_argument(
        "--pooling",
        choices=["mean", "sum", "max", "logsumexp", "pooling_maps", "slots"],
        default="mean",
        help="of swarm",
    )
    model.add_argument(
        "--context",
        choices=["swarm", "static", "self"],
        default="swarm",
        help="of swarm: pooled every iteration, once, or never",
    )
    model.add_argument(
        "--heads", type=integer, default=4, help="attention heads of set-transformer"
    )
    model.add_argument("--inducing-points", type=integer, default=10, help="of set-transformer")
    model.add_argument(
        "--activation",
        choices=["relu", "elu", "leaky_relu"],
        default="relu",
        help="between layers",
    )
    model.add_argument(
        "--dropout", type=fraction, default=0.0, help="rate; all entities lose the same features"
    )
    model.add_argument("--remat", action="store_true", help="less memory, more time")

    data = parser.add_argument_group("data")
    data.add_argument(
        "--tasks", type=integer, default=10000, help="tasks, of which a tenth validate"
    )
    data.add_argument(
        "--prior",
        choices=["protocol", "broad"],
        default="protocol",
        help="protocol: 3 to 10 small Gaussian clusters of equal shares; broad: 1 to 10 clusters "
        "of many shapes, sizes, shares and units, with background",
    )
    data.add_argument(
        "--dimensions", type=integer, default=2, help="coordinates of a point (prior broad)"
    )
    data.add_argument(
        "--entities",
        type=integer,
        nargs=2,
        metavar=("LEAST", "MOST"),
        help="points in a task (default: 100 1000 for the protocol, 20 5000 for the broad prior)",
    )
    data.add_argument(
        "--points",
        type=integer,
        nargs="*",
        default=[100],
        metavar="N",
        help="train on so many points of each task, drawn anew in every epoch; of several "
        "numbers every batch takes one; with none given, on all points",
    )
    data.add_argument(
        "--rotate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn and mirror the training tasks at random in every epoch",
    )
    data.add_argument("--buckets", type=integer, default=4, help="set sizes to pad to")
    data.add_argument(
        "--evaluation-tasks", type=integer, default=300, help="fresh tasks of the final table"
    )
    data.add_argument(
        "--slow-tasks",
        type=common.non_negative_integer,
        default=0,
        help="so many of them also for the methods that take a second or more a task",
    )
    free = ["starts", "evaluation_tasks", "slow_tasks"]
    options = common.parse(parser, SMOKE, arguments, free=free)
    slots = options.model == "slots"
    if options.prior == "protocol" and options.dimensions != 2:
        parser.error("argument --dimensions: the protocol's tasks have 2; choose --prior broad")
    if options.prior == "broad" and not slots:
        parser.error("argument --prior: of these models only slots take points in any unit")
    options.hidden = options.hidden or (32 if slots else 128)
    options.iterations = options.iterations or (8 if slots else 10)
    options.entities = options.entities or (
        [100, 1000] if options.prior == "protocol" else [20, 5000]
    )
    if options.entities[0] > options.entities[1]:
        parser.error(f"argument --entities: LEAST is above MOST: {options.entities}")
    if options.entities[0] < 10:
        parser.error(
            "argument --entities: LEAST is at least 10, because k-means and mixtures of up to 10 "
            f"clusters need as many points. Received: {options.entities[0]}"
        )
    if options.tasks < 10:
        parser.error(f"argument --tasks: at least 10 are needed, received {options.tasks}")
    return options


def run_name(options):
    size = f"{options.hidden}x{options.layers}"
    if options.model == "slots":
        size = f"{options.hidden}-{options.iterations}-{options.prior}"
        size += f"-{options.dimensions}d" if options.dimensions != 2 else ""
    elif options.model == "swarm":
        size += f"-{options.iterations}-{options.pooling}-{options.context}"
    return f"{options.model}-{size}" + (f"-{options.run}" if options.run else "")


@common.command
def main(arguments=None):
    options = parse(arguments)

    from examples.amortized_clustering import data
    from examples.amortized_clustering import evaluate
    from examples.amortized_clustering import model as models
    from examples.amortized_clustering import reliability
    from examples.common import networks
    from examples.common.run import Run
    from examples.common.training import Training

    name = run_name(options)
    model = networks.build_network(options, name, lambda: models.compiled(options))
    if options.dry_run:
        return
    run = Run("amortized_clustering", name, options)
    run.prepare()

    batches, held_out = data.training_data(options)
    fresh = data.draw_tasks(options, options.evaluation_tasks, options.seed + 1)

    def draw():
        from examples.amortized_clustering import plots

        network = models.for_use(model, options)
        plots.assignments(network, options, fresh, run.path / "assignments.png")

    training = Training(run, model, batches, held_out, draw)
    model.fit(
        training.batches,
        validation_data=training.validation,
        epochs=options.epochs,
        initial_epoch=training.initial_epoch,
        shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
        callbacks=training.callbacks,
    )
    training.finish()

    network = models.for_use(model, options)
    run.save_model(network)
    scores, probabilities = evaluate.compare(name, network, fresh, options.seed, options.slow_tasks)
    text = evaluate.table(scores, len(fresh))
    print(f"\n{training.duration}; {text}")
    run.write_results(text, [vars(s) for s in scores])
    curves = {m: reliability.reliability(fresh, p) for m, p in probabilities.items()}
    reliability.draw(curves, run.path / "reliability.png")
    print(f"\nModel, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
