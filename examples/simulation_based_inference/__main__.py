"""Command line of the example of simulation-based inference; see `--help`."""

import argparse
import dataclasses
import importlib.util
import pathlib

from examples.common import options as common

SMOKE = {"epochs": 1, "batches": 5, "test_sets": 40, "samples": 50}


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m examples.simulation_based_inference",
        description="Infer mean and scale of a normal distribution from a set of draws with "
        "BayesFlow and a summary network built of this package's layers; compare the result "
        "with the exact posterior.",
        formatter_class=common.HelpFormatter,
    )
    integer = common.positive_integer
    parser.add_argument(
        "--output", help="folder of the run (default: runs/simulation_based_inference/swarm)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run in the output folder"
    )
    parser.add_argument(
        "--evaluate", metavar="FILE", help="train nothing, evaluate this saved approximator"
    )
    parser.add_argument(
        "--seed", type=common.non_negative_integer, default=0, help="seed of data and weights"
    )
    parser.add_argument("--smoke", action="store_true", help="a run of seconds, for tests")
    common.add_machine_group(parser)
    parser.add_argument("--epochs", type=integer, default=20, help="epochs of training")
    parser.add_argument("--batches", type=integer, default=200, help="batches in an epoch")
    parser.add_argument("--batch-size", type=integer, default=64, help="sets in a batch")
    parser.add_argument(
        "--learning-rate", type=common.positive_number, default=0.002, help="first learning rate"
    )
    parser.add_argument("--test-sets", type=integer, default=1000, help="fresh sets to evaluate")
    parser.add_argument("--samples", type=integer, default=1000, help="of each posterior")
    # A run of other examples can be resumed; BayesFlow's own training is not.
    parser.set_defaults(resume=False, log_to_stdout=False)
    if common.process_count() > 1:
        raise common.RunError(
            "KERAS_DISTRIBUTION_NUM_PROCESSES: this example needs one process, because BayesFlow "
            "would give each of several the same batches"
        )
    options = common.parse(parser, SMOKE, arguments, free=["test_sets"])
    if options.devices > 1 and options.evaluate is not None:
        parser.error("argument --devices: --evaluate trains nothing")
    if options.evaluate is not None and not pathlib.Path(options.evaluate).is_file():
        parser.error(f"argument --evaluate: there is no file {options.evaluate}")
    if importlib.util.find_spec("bayesflow") is None:
        parser.error("this example needs BayesFlow: pip install bayesflow")
    return options


@common.command
def main(arguments=None):
    options = parse(arguments)

    import keras

    from examples.common import datasets
    from examples.common import devices
    from examples.common.run import Run
    from examples.simulation_based_inference import data
    from examples.simulation_based_inference import evaluate
    from examples.simulation_based_inference import model
    from examples.simulation_based_inference import plots

    if options.devices > 1 and keras.config.backend() != "jax":
        raise common.RunError(
            "argument --devices: this example needs JAX, because BayesFlow's training on "
            f"{keras.config.backend()} would add up the gradients of all devices"
        )
    keras.utils.set_random_seed(options.seed)
    run = Run("simulation_based_inference", "swarm", options)
    run.prepare()

    path = options.evaluate
    if path is None:
        path = run.path / "approximator.keras"
        workflow = model.workflow(datasets.generator(options.seed, 1), options.learning_rate)
        workflow.fit_online(
            epochs=options.epochs,
            num_batches_per_epoch=options.batches,
            batch_size=options.batch_size,
            verbose=2,
            callbacks=[devices.Sharing()],
        )
        workflow.approximator.save(path)

    approximator = keras.saving.load_model(path)
    test = data.simulate(datasets.generator(options.seed, 2), options.test_sets)
    samples = evaluate.draw_samples(approximator, test, options.samples, options.seed)
    scores = evaluate.scores(samples, test)
    kl = evaluate.divergence(approximator, test)
    plots.posteriors(samples, test, run.path / "posteriors.png")
    text = evaluate.table(scores, kl, options.test_sets, options.samples)
    numbers = {name: dataclasses.asdict(score) for name, score in scores.items()}
    numbers["kullback_leibler"] = kl
    run.write_results(text, numbers)
    print(f"\n{text}\n\nThe results are in {run.path}")


if __name__ == "__main__":
    main()
