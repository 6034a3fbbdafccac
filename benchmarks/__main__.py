"""Command line of the benchmarks; see `--help`."""

import argparse
import json
import math
import pathlib

import numpy as np

from benchmarks.worker import Worker
from benchmarks.worker import interleaved

BACKENDS = ("tensorflow", "jax", "torch")


def measure(subjects, repeats):
    """Seconds of subjects that take turns, after a round that does not count, and their facts."""
    workers = {name: Worker(**subject) for name, subject in subjects.items()}
    try:
        interleaved(workers, 1)
        seconds = interleaved(workers, repeats)
    finally:
        for worker in workers.values():
            worker.close()
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
        if "gigaflop" in results[name]:
            rate = f"  {results[name]['gigaflop'] / results[name]['seconds']:.0f} GFLOP/s"
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
    subjects = {"original, torch": {"subject": "original", **size}}
    for backend in options.backends:
        policy = {"policy": options.dtype_policy}
        common = {"backend": backend, **size, **policy}
        subjects[f"Swarm, {backend}"] = {"subject": "network", "layer": "swarm", **common}
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


COMMANDS = {"layers": layers, "sampling": sampling}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure how fast the layers are: all subjects take turns in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--repeats", type=int, default=9, help="turns of every subject")
    parser.add_argument("--sets", type=int, help="default: 10, or 4 with causal pooling; 12 images")
    parser.add_argument("--points", type=int, help="default: 1000, or 784")
    parser.add_argument("--hidden", type=int, help="default: 128, or 256")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument(
        "--dtype-policy",
        choices=["float32", "mixed_float16", "mixed_bfloat16"],
        default="float32",
        help="of the Keras models",
    )
    parser.add_argument("--peers", action="store_true", help="LSTM and a Set Transformer block too")
    parser.add_argument("--json", type=pathlib.Path, help="file for the results")
    options = parser.parse_args(arguments)
    results = COMMANDS[options.command](options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
