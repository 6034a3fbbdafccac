"""Command line of the power spectrum example; see `--help`."""

from examples.common import options as common

DEFAULTS = {
    "epochs": 300,
    "batch_size": 64,
    "optimizer": "muon",
    "learning_rate": 0.02,
    "schedule": "cosine",
}
SMOKE = {
    "depths": [1, 2],
    "widths": [4, 8],
    "samples": 32,
    "training_samples": 16,
    "sample_sizes": [8, 32, 64],
    "epochs": 2,
    "steps": 2,
    "batch_size": 4,
    "validation_sets": 8,
    "test_sets": 16,
}
# These show the same networks, so that one run draws all of them.
SAME_RUN = {"3": "2", "4": "2"}


def parse(arguments=None):
    parser = common.make_parser(
        "power_spectrum",
        "Train networks to tell the power spectrum of a random periodic function from the set of "
        "its samples, and draw the figures of the note that proposed it.",
        DEFAULTS,
    )
    integer = common.positive_integer
    task = parser.add_argument_group("task")
    task.add_argument(
        "--figure",
        choices=["1", "2", "3", "4", "5", "appendix"],
        default="appendix",
        help="1: functions; 2, 3, 4 in one run: depths and widths, single frequencies, other set "
        "sizes; 5: functions with more frequencies; appendix: a network that knows that x lies "
        "on a circle, and sets with fractional weights",
    )
    task.add_argument(
        "--networks",
        choices=["note", "circle"],
        nargs="+",
        default=["note", "circle"],
        help="note: the network of the note, of every depth and width; circle: one network of the "
        "size of its largest that knows that x lies on a circle",
    )
    task.add_argument(
        "--depths",
        type=integer,
        nargs="+",
        default=[1, 2, 4],
        metavar="N",
        help="equivariant layers; figures 5 and appendix take the largest",
    )
    task.add_argument(
        "--widths",
        type=integer,
        nargs="+",
        default=[8, 32, 128],
        metavar="N",
        help="units of the layers; figures 5 and appendix take the largest",
    )
    task.add_argument(
        "--repeats", type=integer, default=1, help="trainings with other data and weights"
    )
    task.add_argument("--samples", type=integer, default=512, help="pairs in a test set")
    task.add_argument(
        "--training-samples", type=integer, default=32, help="pairs in a set of the training"
    )
    task.add_argument(
        "--sample-sizes",
        type=integer,
        nargs="+",
        default=[16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
        metavar="N",
        help="pairs in the test sets of figure 4 and of the appendix",
    )
    task.add_argument("--steps", type=integer, default=100, help="fresh batches in an epoch")
    task.add_argument("--validation-sets", type=integer, default=256, help="sets that validate")
    task.add_argument("--test-sets", type=integer, default=1024, help="fresh sets of the figures")
    task.add_argument(
        "--budget",
        type=common.positive_number,
        metavar="HOURS",
        help="time of all trainings together: each has an equal share for its --time-budget",
    )
    options = common.parse(parser, SMOKE, arguments, free=["repeats", "test_sets", "budget"])
    if options.budget is not None and options.time_budget is not None:
        parser.error("argument --budget: not allowed with argument --time-budget")
    if options.test_sets < 2:
        parser.error("argument --test-sets: a standard error needs 2 sets, received 1")
    options.figure = SAME_RUN.get(options.figure, options.figure)
    for name in ("depths", "widths", "sample_sizes"):
        setattr(options, name, sorted(set(getattr(options, name))))
    return options


def network_sizes(options):
    """`(depth, width)` of the note's networks for the figure."""
    if options.figure == "1":
        return []
    if options.figure == "2":
        return [(depth, width) for depth in options.depths for width in options.widths]
    return [(options.depths[-1], options.widths[-1])]


@common.command
def main(arguments=None):
    options = parse(arguments)

    import numpy as np

    from examples.common import datasets
    from examples.common import networks
    from examples.common.run import Run
    from examples.common.training import train_part
    from examples.power_spectrum import data
    from examples.power_spectrum import evaluate
    from examples.power_spectrum import model as models

    kmax, wanted, tested = data.FIGURES[options.figure]
    specifications = {}
    sizes = network_sizes(options)
    for depth, width in sizes if "note" in options.networks else []:
        specifications[f"note-{depth}x{width}"] = (models.note_network, depth, width, wanted)
    if sizes and "circle" in options.networks:
        depth, width = options.depths[-1], options.widths[-1]
        largest = models.note_network(depth, width, wanted).count_params()
        width = models.circle_width(depth, wanted, largest)
        specifications[f"circle-{depth}x{width}"] = (models.circle_network, depth, width, wanted)

    def build(name, **arguments):
        make, *sizes = specifications[name]
        return make(*sizes, **arguments)

    builders = {name: lambda name=name: build(name) for name in specifications}
    compared = networks.build_networks(options, builders)
    if options.dry_run:
        return
    folder = {"2": "figures-2-3-4", "appendix": "appendix"}.get(
        options.figure, f"figure-{options.figure}"
    )
    folder += f"-{options.run}" if options.run else ""
    run = Run("power_spectrum", folder, options)
    run.prepare()

    from examples.power_spectrum import plots

    if options.figure == "1":
        plots.functions(tested, options.samples, options.seed, run.path / "figure_1.png")
        print(f"The picture is in {run.path}")
        return

    trained = {name: [] for name in specifications}
    steps = set()
    if options.budget is not None:
        options.time_budget = 60 * options.budget / (len(specifications) * options.repeats)
    for repeat in range(options.repeats):
        seed = options.seed + repeat
        batches, validation = data.training_data(options, repeat)
        for name in specifications:
            model = networks.build_again(options, builders[name], seed)
            models.compile_for_powers(model, options)
            training = train_part(run, (name, str(seed)), model, batches, validation)
            trained[name].append(model)
            steps.add(training.steps)
            print(
                f"{name}-{seed}: validation {training.best:.4f} after {training.seconds / 60:.1f} "
                "minutes",
                flush=True,
            )

    def errors(pairs, powers):
        """Errors of every network, mean over the repeats."""
        return {
            name: np.mean([evaluate.network_errors(m, pairs, powers) for m in repeats], axis=0)
            for name, repeats in trained.items()
        }

    def fresh(samples, kmax):
        rng = datasets.generator(options.seed, 2)
        return data.draw_sets(rng, options.test_sets, samples, kmax, wanted)

    parameters = {name: network.count_params() for name, network in compared.items()}
    tables = []
    results = {}
    for highest in tested:
        pairs, powers = fresh(options.samples, highest)
        results[highest] = {
            **errors(pairs, powers),
            **classical(evaluate, pairs, powers, [wanted, kmax]),
        }
        title = f"{options.test_sets:,} fresh sets of {options.samples} samples, kmax = {highest}"
        rows = [(name, parameters.get(name), e) for name, e in results[highest].items()]
        tables.append(evaluate.table(title, rows))
    scores = {
        str(highest): {name: list(evaluate.summary(e)) for name, e in by_name.items()}
        for highest, by_name in results.items()
    }
    done = " to ".join(f"{count:,}" for count in sorted({min(steps), max(steps)}))
    note = f"{done} steps of {options.batch_size} sets of {options.training_samples} samples"
    if options.figure == "5":
        plots.frequencies(results, kmax, note, run.path / "figure_5.png")
    else:
        by_size = {}
        for samples in options.sample_sizes:
            pairs, powers = fresh(samples, kmax)
            by_size[samples] = {
                **errors(pairs, powers),
                **classical(evaluate, pairs, powers, [wanted]),
            }
        scores["by set size"] = {
            str(samples): {name: list(evaluate.summary(e)) for name, e in by_name.items()}
            for samples, by_name in by_size.items()
        }
    if options.figure == "2":
        plots.sizes(results[kmax], options, note, run.path / "figure_2.png")
        plots.single_frequencies(results[kmax], options, note, run.path / "figure_3.png")
        plots.set_sizes(by_size, options, note, run.path / "figure_4.png")
    if options.figure == "appendix":
        from examples.power_spectrum import appendix

        moved = appendix.moves(trained, *fresh(options.samples, kmax))
        weighted = {name: build(name, weighted=True) for name in specifications}
        for name, model in weighted.items():
            model.set_weights(trained[name][0].get_weights())
        uneven = appendix.uneven_samples(
            weighted, options.sample_sizes, options.test_sets, kmax, wanted, options.seed
        )
        scores["largest change of log p by moves"] = {
            name: float(np.abs(change).max()) for name, change in moved[1].items()
        }
        scores["uneven samples"] = {
            name: {kind: list(evaluate.summary(e)) for kind, e in kinds.items()}
            for name, kinds in uneven[options.sample_sizes[-1]].items()
        }
        plots.appendix(results[kmax], by_size, moved, note, run.path / "appendix.png")
        plots.coda(uneven, note, run.path / "coda.png")
        infinite = appendix.infinite_set(weighted, options.sample_sizes, kmax, options.seed)
        plots.infinite_set(infinite, note, run.path / "infinite_set.png")
        tables.append(appendix.table(moved, weighted, uneven, infinite))
    text = "\n\n".join(tables)
    print(f"\n{text}")
    run.write_results(text, scores)
    print(f"\nModels, metrics and pictures are in {run.path}")


def classical(evaluate, pairs, powers, frequencies):
    """Errors of least squares with some numbers of frequencies, and of the constant."""
    rows = {
        f"least squares, {count} frequencies": evaluate.least_squares_errors(pairs, powers, count)
        for count in sorted(set(frequencies))
    }
    return {**rows, "constant": evaluate.constant_errors(powers)}


if __name__ == "__main__":
    main()
