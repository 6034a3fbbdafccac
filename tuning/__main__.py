"""Command line of the searches; see `--help`."""

import argparse
import sys

from examples.common import options as common
from tuning import search_spaces
from tuning import workers

SMOKE = {
    "max_trials": 2,
    "epochs": 2,
    "widths": [4, 8],
    "depths": [1, 2],
    "iterations": [2, 3],
}


def parse(arguments=None):
    """The options of the search, and the arguments left for the example."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning",
        description="Search for hyperparameters with Keras Tuner. The same command goes on with "
        "a search that was killed. Options that are not listed here are those of the example "
        "that has the task's data and networks, such as --tasks and --batch-size; see the "
        "--help of python -m examples.amortized_clustering, mixture_of_gaussians, power_spectrum "
        "and image_transformer.",
        formatter_class=common.HelpFormatter,
        allow_abbrev=False,
    )
    integer = common.positive_integer
    parser.add_argument(
        "--task", choices=list(search_spaces.TASKS), required=True, help="whose networks are tuned"
    )
    parser.add_argument(
        "--tuner",
        choices=["random", "hyperband", "bayesian"],
        default="random",
        help="how Keras Tuner chooses the next trial",
    )
    parser.add_argument("--max-trials", type=integer, default=20, help="trials in all")
    parser.add_argument(
        "--time-budget",
        type=common.positive_number,
        help="minutes of this call; the same command then goes on",
    )
    parser.add_argument(
        "--epochs", "--max-epochs", type=integer, default=10, help="epochs of a trial, at most"
    )
    parser.add_argument(
        "--seed",
        type=common.non_negative_integer,
        default=0,
        help="seed of the choices, and of data, weights and order in every trial",
    )
    for name, default in (
        ("widths", [16, 32, 64, 128]),
        ("depths", [1, 2, 3]),
        ("iterations", [2, 5, 10]),
    ):
        parser.add_argument(
            f"--{name}", type=integer, nargs="+", default=default, help="to choose from"
        )
    parser.add_argument(
        "--workers",
        type=common.non_negative_integer,
        default=0,
        help="train on so many processes on this machine, with one more as their chief",
    )
    parser.add_argument("--output", help="folder of the search (default: runs/tuning/TASK-TUNER)")
    parser.add_argument("--smoke", action="store_true", help="a search of seconds, for tests")
    parser.add_argument("--cpu", action="store_true", help="use no accelerator")
    common.check_backend()
    if parser.parse_known_args(arguments)[0].smoke:
        parser.set_defaults(**SMOKE)
    options, rest = parser.parse_known_args(arguments)
    for name in ("widths", "depths", "iterations"):
        setattr(options, name, sorted(set(getattr(options, name))))
    common.prepare_backend(options)
    return options, rest


# Options of the examples that a search does not have.
NOT_IN_A_SEARCH = frozenset(
    "budget devices dry_run initial_model name overwrite prepare_from repeats resume run "
    "sample".split()
)


def shared_arguments(task, options, rest):
    """What all trials share: arguments of the example's command line, and its options by name.

    Options that the search chooses, or that it does not have, raise RunError.
    """
    import keras_tuner

    # A trial has all of its epochs; examples may have a time budget by default.
    given = {"seed": options.seed, "epochs": options.epochs, "time_budget": "inf"}
    reserved = {*task.space(keras_tuner.HyperParameters(), options), *NOT_IN_A_SEARCH}
    if options.tuner == "hyperband":
        # Its trials go on with each other, so that the rate must not depend on their epochs.
        given["schedule"] = "constant"
        reserved.add("schedule")
    own = [*search_spaces.as_arguments(given), *(["--smoke"] if options.smoke else [])]
    shared, default = task.parse([*own, *rest]), task.parse(own)
    for name, value in vars(shared).items():
        if name in reserved and value != getattr(default, name):
            raise common.RunError(
                f"argument --{name.replace('_', '-')}: a search chooses this itself, or does not "
                f"have it. Received: {value}"
            )
    kept = {name: value for name, value in vars(shared).items() if name not in reserved}
    return [*own, *rest], kept


@common.command
def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    options, rest = parse(arguments)
    try:
        role = workers.own_role()
    except ValueError as error:
        raise common.RunError(str(error)) from error
    if role and options.workers:
        raise common.RunError(
            "argument --workers: this process is part of a distributed search already"
        )
    workers.end_with_parent()

    from examples.common.run import Run

    task = search_spaces.TASKS[options.task]
    shared, shared_options = shared_arguments(task, options, rest)
    options = argparse.Namespace(**{**shared_options, **vars(options)})
    options.free = shared_options["free"] | {"max_trials", "workers"}
    # Trials with other numbers of epochs do not compare.
    run = Run("tuning", f"{options.task}-{options.tuner}", options, extensible=False)
    options.overwrite = False
    options.resume = (run.path / "config.json").exists()
    if not options.resume and run.path.is_dir() and any(run.path.iterdir()):
        raise common.RunError(
            f"argument --output: the folder {run.path} holds files of something that is not a "
            "search. Give another one"
        )
    run.prepare()

    from tuning import results
    from tuning import search

    problem = None
    if options.workers:
        problem = workers.run(arguments, options.workers)
    else:
        after_trial = (lambda: None) if role else (lambda: results.write_table(run.path))
        trials = search.Search(run, task, shared, role, after_trial)
        if role != "chief":
            try:
                trials.load_data()
            except ValueError as error:
                raise common.RunError(str(error)) from error
        try:
            with workers.asking_the_chief(role):
                trials.search()
        except search.OutOfTime:
            print("The time budget is used up. The same command goes on.")
        except ConnectionError as error:
            raise common.RunError(str(error)) from error
    if role == "worker" or workers.is_child():
        return
    rows = results.write_table(run.path)
    best = results.best_of(rows)
    done = len(results.completed(rows))
    print(f"{done} of {options.max_trials} trials completed")
    if best is not None:
        title = f"{options.task}, {options.tuner} search, {done} trials"
        results.draw(rows, title, run.path)
        results.save_best_model(run.path, best)
        print(f"Best: trial {best['trial']}, score {best['score']:.4f}, as in")
        command = [*shared, *search_spaces.as_arguments(results.chosen(task, options, best))]
        print(f"python -m examples.{task.example} {' '.join(command)}")
        print(f"Table, pictures and the best model are in {run.path}")
    if problem is not None:
        sys.exit(f"{problem}. The same command goes on")


if __name__ == "__main__":
    main()
