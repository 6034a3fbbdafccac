"""Command line of the benchmarks; see `--help`."""

import argparse
import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib

import numpy as np

from benchmarks import every_layer
from benchmarks.subjects import LINEAR
from benchmarks.time_to_result import time_to_result
from benchmarks.worker import Worker
from benchmarks.worker import interleaved
from examples.common.options import HelpFormatter
from examples.common.options import positive_integer

BACKENDS = ("tensorflow", "jax", "torch")


# Several processes at a time on one accelerator, so many, and one step that compiles.
TOGETHER = 4
SHARED = {"warm_up": 1, "variables": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}}


def measure(subjects, repeats):
    """Seconds of subjects that take turns, after a round that does not count, and their facts."""
    # They start and compile side by side.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        starting = {name: pool.submit(Worker, **subject) for name, subject in subjects.items()}
    started = {name: future for name, future in starting.items() if future.exception() is None}
    try:
        workers = {name: future.result() for name, future in starting.items()}
        if repeats:
            interleaved(workers, 1)
        seconds = interleaved(workers, repeats)
    finally:
        for future in started.values():
            future.result().close()
    return seconds, {name: worker.facts for name, worker in workers.items()}


def spread(ratios):
    """What is reported of ratios within a round: what slows the machine down slows both."""
    return {
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }


def compare(title, subjects, repeats, reference):
    """Measures subjects in turns; prints and returns how they compare with a reference."""
    print(f"\n{title}", flush=True)
    seconds, facts = measure(subjects, repeats)
    results = {}
    for name, values in seconds.items():
        results[name] = {
            **spread(seconds[reference] / values),
            "seconds": float(np.median(values)),
            **facts[name],
        }
        low, high = results[name]["ratio_quartiles"]
        rate = ""
        for fact, unit in (("gigaflop", "GFLOP/s"), ("gigabyte", "GB/s")):
            if fact in facts[name]:
                rate = f"  {facts[name][fact] / results[name]['seconds']:.0f} {unit}"
        print(
            f"  {name:34} {results[name]['ratio']:5.2f}x ({low:.2f} to {high:.2f})"
            f"  {1000 * results[name]['seconds']:8.1f} ms{rate}",
            flush=True,
        )
    return results


def swarm_subjects(options, training, causal):
    size = {
        "sets": options.sets or (4 if causal else 10),
        "points": options.points or (784 if causal else 1000),
        "hidden": options.hidden or (256 if causal else 128),
        "iterations": options.iterations,
        "training": training,
        "causal": causal,
    }
    subjects = {
        "original, torch": {"subject": "original", **size},
        "original, linear maps": {"subject": "original", **size, "convolutions": False},
        "bytes moved, by copies": {"subject": "traffic", **size, "policy": options.dtype_policy},
    }
    for backend in options.backends:
        policy = {"policy": options.dtype_policy}
        common = {"backend": backend, **size, **policy}
        subjects[f"Swarm, {backend}"] = swarm = {"subject": "network", "layer": "swarm", **common}
        if backend == "torch":  # "auto" leaves it out on this backend alone
            subjects["Swarm, torch, jit_compile"] = {**swarm, "jit_compile": True}
        if backend == "jax":  # which hands its memory back after every step
            subjects["Swarm, jax, memory kept"] = {**swarm, "keep_memory": True}
        subjects[f"bare products, {backend}"] = {"subject": "products", **common}
        if options.peers and not causal:
            subjects[f"LSTM, {backend}"] = {"subject": "network", "layer": "lstm", **common}
            subjects[f"one ISAB, {backend}"] = {"subject": "network", "layer": "isab", **common}
    words = f"{size['sets']} sets of {size['points']:,} points, hidden {size['hidden']}, "
    return f"{words}{size['iterations']} iterations, {options.dtype_policy}", subjects


def layers(options):
    results = {}
    for causal in (False, True):
        for training in (True, False):
            size, subjects = swarm_subjects(options, training, causal)
            title = (
                f"{'Training step' if training else 'Inference'}, "
                f"{'causal' if causal else 'mean'} pooling: {size}; speed over the original"
            )
            results[title] = compare(title, subjects, options.repeats, "original, torch")
    return results


def sampling(options):
    """Images drawn in one go against one full pass over the network for every value."""
    size = {
        "images": options.sets or 12,
        "side": math.isqrt(options.points or 784),
        "hidden": options.hidden or 256,
        "iterations": options.iterations,
        "policy": options.dtype_policy,
    }
    values = size["side"] ** 2
    print(
        f"\n{size['images']} images of {size['side']} x {size['side']} values, hidden "
        f"{size['hidden']}, {size['iterations']} iterations, {options.dtype_policy}; speed over a "
        f"full pass for every value,\n{values} passes of the same size: {values} times the time of "
        "one"
    )
    results = {}
    for backend in options.backends:
        common = {"subject": "sampling", "backend": backend, **size}
        subjects = {name: {"method": name, **common} for name in ("generate", "full_pass")}
        seconds, facts = measure(subjects, options.repeats)
        generate, full_pass = (float(np.median(seconds[name])) for name in subjects)
        results[backend] = {
            **spread(values * seconds["full_pass"] / seconds["generate"]),
            "generate_seconds": generate,
            "full_pass_seconds": full_pass,
            **facts["generate"],
        }
        low, high = results[backend]["ratio_quartiles"]
        ratio = f"{results[backend]['ratio']:5.0f}x ({low:.0f} to {high:.0f})"
        print(
            f"  {backend:12} {ratio}  all images {generate:6.2f} s, one pass {full_pass:6.2f} s, "
            f"{values} passes {values * full_pass:6.0f} s",
            flush=True,
        )
    return results


def against(common, variants, repeats):
    """How fast the first of two variants of a subject is, in speeds of the second; facts of both.

    `variants` are dicts of options, `{name: options}`.
    """
    seconds, facts = measure({name: {**common, **v} for name, v in variants.items()}, repeats)
    first, second = variants
    return spread(seconds[second] / seconds[first]), facts


def training(options):
    """Does an epoch wait for its data, what does memory cost, does half precision pay?"""
    size = {
        "subject": "network",
        "layer": "swarm",
        "sets": options.sets or 10,
        "points": options.points or 1000,
        "hidden": options.hidden or 128,
        "iterations": options.iterations,
    }
    return {**epochs(options), **memory(options, size), **half_precision(options, size)}


def epochs(options):
    print("\nAn epoch of the clustering example: speed with batches made on the way over batches")
    print("that are there, steps, and programs that were compiled for it", flush=True)
    results = {}
    for backend in options.backends:
        common = {"subject": "epoch", "backend": backend, "warm_up": 1}
        variants = {"made on the way": {"held": False}, "held": {"held": True}}
        way, facts = against(common, variants, options.repeats)
        results[f"epoch, {backend}"] = {**way, **facts["made on the way"]}
        low, high = way["ratio_quartiles"]
        programs = facts["held"]["programs"]
        print(
            f"  {backend:12} {way['ratio']:5.2f}x ({low:.2f} to {high:.2f})"
            f"  {facts['held']['steps']} steps, {'no' if programs is None else programs} programs",
            flush=True,
        )
    return results


def mib(value):
    return "unknown" if value is None else f"{value:.0f}"


def memory(options, size):
    print("\nMemory of a training step in MiB (what it adds to the peak of the process), with")
    print("remat, and the speed with remat over that without", flush=True)
    points, iterations = size["points"], size["iterations"]
    results = {}
    for larger in ({}, {"iterations": 4 * iterations}, {"points": 4 * points}):
        common = {**size, **larger}
        for backend in options.backends:
            variants = {"remat": {"remat": True}, "plain": {"remat": False}}
            repeats = max(1, options.repeats // 3)
            way, facts = against({**common, "backend": backend}, variants, repeats)
            name = f"{common['points']:,} points, {common['iterations']} iterations, {backend}"
            added = {key: facts[key]["memory_mib"] for key in variants}
            results[f"memory, {name}"] = {**way, **added}
            print(
                f"  {name:44} {mib(added['plain']):>7} {mib(added['remat']):>7}"
                f"  {way['ratio']:.2f}x",
                flush=True,
            )
    return results


def half_precision(options, size):
    print("\nSpeed of a training step in mixed_bfloat16 over float32, and the two losses")
    print(f"(matrix units for bfloat16: {'yes' if has_bfloat16_units() else 'no'})", flush=True)
    results = {}
    for backend in options.backends:
        variants = {name: {"policy": name} for name in ("mixed_bfloat16", "float32")}
        way, facts = against({**size, "backend": backend}, variants, options.repeats)
        losses = {name: facts[name]["loss"] for name in variants}
        results[f"mixed_bfloat16, {backend}"] = {**way, **losses}
        print(
            f"  {backend:12} {way['ratio']:5.2f}x  {losses['mixed_bfloat16']:.4f}, "
            f"{losses['float32']:.4f}",
            flush=True,
        )
    return results


def has_bfloat16_units():
    """Whether the processor multiplies matrices in bfloat16 (AMX)."""
    try:
        return "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def data(options):
    """How fast tasks are drawn, and what batches of sets of different sizes cost."""
    return {**drawing(options), **batching(options)}


def drawing(options):
    """Clustering tasks, drawn all at once against one at a time with SciPy."""
    count = options.sets or 10_000
    few = max(1, count // 20)
    subjects = {
        "together": {"subject": "tasks", "method": "together", "count": count},
        "one_by_one": {"subject": "tasks", "method": "one_by_one", "count": few},
    }
    seconds, _ = measure(
        {name: {**s, "warm_up": 1} for name, s in subjects.items()}, options.repeats
    )
    each = {name: 1000 * seconds[name] / subjects[name]["count"] for name in subjects}
    way = spread(each["one_by_one"] / each["together"])
    low, high = way["ratio_quartiles"]
    medians = {name: float(np.median(each[name])) for name in each}
    print(
        f"\n{count:,} clustering tasks together: {way['ratio']:.1f}x ({low:.1f} to {high:.1f}) the "
        f"speed of one at a time with SciPy, {medians['together']:.3f} against "
        f"{medians['one_by_one']:.3f} ms a task"
    )
    return {**way, "milliseconds": medians}


def batching(options):
    """Does a step wait for `SetDataset`, and how much of its batches is padding?"""
    sets = {"sets": min(options.sets or 1000, 1000)}
    results = {}
    print("\nTime of a step of deep sets with batches from SetDataset over that with batches held")
    print(f"in memory; {sets['sets']:,} sets of log-normal sizes around 100, 4 sizes to pad to")
    for backend in options.backends:
        common = {"subject": "set_epoch", "backend": backend, "warm_up": 1, **sets}
        # `against` divides the time of the second by that of the first.
        variants = {"held": {"held": True}, "SetDataset": {"held": False}}
        way, facts = against(common, variants, options.repeats)
        results[f"SetDataset, {backend}"] = {**way, **facts["SetDataset"]}
        low, high = way["ratio_quartiles"]
        print(f"  {backend:12} {way['ratio']:5.2f} ({low:.2f} to {high:.2f})", flush=True)
    subject = {"subject": "padding", "backend": options.backends[0], "warm_up": 0, **sets}
    shares = measure({"padding": subject}, 0)[1]["padding"]["shares"]
    print("Padded share of the batches, by standard deviation of log size and number of sizes:")
    for name, share in shares.items():
        print(f"  {name:12} {share:6.1%}")
    return {**results, "padded shares": shares}


def scaling(options):
    """Inference against the size of a set: is the cost linear, and the memory constant?"""
    most = options.points or 1_000_000
    sizes = [most // 1000, most // 100, most // 10, most]
    results = {}
    print("\nInference with one set, milliseconds for " + ", ".join(f"{n:,}" for n in sizes))
    print("entities; exponent of the cost: slope of the line through all, and of the last two")
    for backend in options.backends:
        for name in LINEAR:
            subjects = {
                str(n): {"subject": "layer", "backend": backend, "name": name, "entities": n}
                for n in sizes
            }
            seconds, _ = measure(subjects, max(1, options.repeats // 3))
            medians = [float(np.median(seconds[str(n)])) for n in sizes]
            logs = np.log(sizes), np.log(medians)
            slope = float(np.polyfit(*logs, 1)[0])
            last = float(np.diff(logs[1])[-1] / np.diff(logs[0])[-1])
            results[f"{name}, {backend}"] = {"exponent": slope, "last": last, "seconds": medians}
            times = "".join(f"{1000 * value:10.1f}" for value in medians)
            print(f"  {name + ', ' + backend:42}{times}  {slope:5.2f} {last:5.2f}", flush=True)
    entities = 10 * most
    print(
        f"\nSwarm of {entities:,} entities, {options.iterations} iterations, in chunks of 100,000: "
        "time\nin units of a pass for every iteration, and MiB that inference adds",
        flush=True,
    )
    for backend in options.backends:
        common = {"subject": "chunks", "backend": backend, "entities": entities, "warm_up": 1}
        common["iterations"] = options.iterations
        methods = ("once", "passes", "scratch", "anew")
        subjects = {name: {**common, "method": name} for name in methods}
        seconds, facts = measure(subjects, max(1, options.repeats // 3))
        for name in methods:
            ratio = spread(seconds[name] / seconds["passes"])
            added = facts[name]["memory_mib"]
            results[f"chunks {name}, {backend}"] = {**ratio, "memory_mib": added}
            print(f"  {name + ', ' + backend:20} {ratio['ratio']:5.2f}  {mib(added)}", flush=True)
    return results


def clustering(options):
    """The network of the protocol that is shipped against EM with the prior, in this process."""
    from examples.amortized_clustering import evaluate
    from examples.amortized_clustering.data import generate_tasks
    from keras_sets import models

    tasks = generate_tasks(options.sets or 300, seed=1)
    network = models.load_pretrained("clustering_2d_protocol")
    predict = lambda tasks: evaluate.network_predictions(network, tasks, step=100)  # noqa: E731
    predict(tasks)  # a backend may compile first
    ours, theirs = scores = [
        evaluate.timed_score(name, tasks, method)[0]
        for name, method in {
            "network": predict,
            "EM with the prior": evaluate.map_em_predictions,
        }.items()
    ]
    ratio = theirs.milliseconds / ours.milliseconds
    print(evaluate.table(scores, len(tasks)))
    print(
        f"The network is {ratio:.0f} times faster; its ARI is {ours.ari[0] - theirs.ari[0]:+.4f} "
        "against that of EM, and both find the number of clusters themselves."
    )
    return {"ratio": ratio, "scores": [dataclasses.asdict(score) for score in scores]}


def accelerator(options):
    """Milliseconds of every kind of layer, in training and inference and in two precisions."""
    size = {
        "sets": options.sets or 64,
        "entities": options.points or 1000,
        "units": options.hidden or 512,
    }
    sizes = "{sets} sets of {entities:,} entities, {units} units".format(**size)
    kinds = [f"{p}, {k}" for p in every_layer.POLICIES for k in ("training", "inference")]
    results = {}
    for backend in options.backends:
        names = [every_layer.PRODUCTS, *every_layer.NAMES]
        names += [every_layer.ORIGINAL] * (backend == "torch")
        subjects = {
            name: {"subject": "every_layer", "backend": backend, "name": name, **size, **SHARED}
            for name in names
        }
        print(
            f"\n{backend}, {sizes}; milliseconds, and seconds until the first step is done\n"
            f"{'':28} {'float32':>27} {'mixed_bfloat16':>27}\n"
            f"{'':28}" + f" {'training':>9} {'inference':>9} {'first':>7}" * 2,
            flush=True,
        )
        # In groups, so that a run that is cut off has shown the first of them.
        for start in range(0, len(names), TOGETHER):
            group = names[start : start + TOGETHER]
            _, facts = measure({name: subjects[name] for name in group}, options.repeats)
            for name in group:
                results[f"{name}, {backend}"] = facts[name]
                print(_row(name, facts[name], kinds), flush=True)
        products = results[f"{every_layer.PRODUCTS}, {backend}"]
        rates = (f"{kind}: {products[f'{kind}, gigaflop'] / products[kind]:,.0f}" for kind in kinds)
        print(f"  GFLOP/s of the bare products: {'; '.join(rates)}", flush=True)
    return results


def _row(name, measured, kinds):
    cells = ""
    for kind in kinds:
        seconds = measured.get(kind)
        cells += f" {'–' if seconds is None else f'{1000 * seconds:.2f}':>9}"
        if "training" in kind:
            first = measured.get(f"{kind}, first")
            last = f" {'–' if first is None else f'{first:.1f}':>7}"
        else:
            cells += last
    return f"  {name:26}{cells}"


# Which options a command takes, beside --json.
SIZES = ("backends", "repeats", "sets", "points", "hidden")
TAKEN = {
    "accelerator": SIZES,
    "layers": (*SIZES, "iterations", "dtype_policy", "peers"),
    "training": (*SIZES, "iterations"),
    "sampling": (*SIZES, "iterations", "dtype_policy"),
    "data": ("backends", "repeats", "sets"),
    "clustering": ("sets",),
    "scaling": ("backends", "repeats", "points", "iterations"),
    "result": ("backends", "repeats"),
}
COMMANDS = {
    "accelerator": accelerator,
    "layers": layers,
    "training": training,
    "sampling": sampling,
    "data": data,
    "clustering": clustering,
    "scaling": scaling,
    "result": lambda options: time_to_result(options.backends, max(1, options.repeats // 3)),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure how fast the layers are: all subjects take turns in one run.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument(
        "--repeats", type=positive_integer, default=9, help="turns of every subject"
    )
    parser.add_argument(
        "--sets",
        type=positive_integer,
        help="default: 10, or 4 with causal pooling; 12 images; 10,000 tasks; 300 to cluster; 64 "
        "for accelerator",
    )
    parser.add_argument(
        "--points", type=positive_integer, help="default: 1000, or 784; 1,000,000 for scaling"
    )
    parser.add_argument("--hidden", type=positive_integer, help="default: 128, 256 or 512")
    parser.add_argument("--iterations", type=positive_integer, default=10, help="of a Swarm")
    parser.add_argument(
        "--dtype-policy",
        choices=["float32", "mixed_float16", "mixed_bfloat16"],
        default="float32",
        help="of the Keras models",
    )
    parser.add_argument("--peers", action="store_true", help="LSTM and a Set Transformer block too")
    parser.add_argument("--json", type=pathlib.Path, help="file for the results")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        ignored = name not in ("command", "json", *TAKEN[options.command])
        if ignored and value != parser.get_default(name):
            flag = name.replace("_", "-")
            parser.error(f"argument --{flag}: {options.command} has no use for it")
    if options.command == "scaling" and (options.points or 1000) < 1000:
        parser.error(
            "argument --points: scaling compares four sizes down to a thousandth, and expects at "
            f"least 1000, received {options.points}"
        )
    if options.json and not options.json.parent.is_dir():
        parser.error(f"argument --json: {options.json.parent} is no folder")
    if options.json and options.json.is_dir():
        parser.error(f"argument --json: {options.json} is a folder, expected a file")
    results = COMMANDS[options.command](options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
