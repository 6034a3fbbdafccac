"""What a user waits for: training until a network is good enough."""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

# Example and options; the column of its log to watch; the value to reach, and whether that is
# the least or the most.
TASKS = {
    "clustering, adjusted Rand index of 0.8": (
        ["examples.amortized_clustering"],
        "val_ari",
        0.8,
        1,
    ),
    "images of 8 x 8 digits, 1.9 bits per dimension": (
        ["examples.image_transformer", "--neighborhood", "2", "--hidden", "32", "--references"],
        "val_bits_per_dimension",
        1.9,
        -1,
    ),
}
# Minutes after which a run counts as one that does not arrive.
PATIENCE = 20


def seconds_to_result(command, column, value, sign, backend, seed, patience=PATIENCE):
    """Seconds of training, compilation and validation included, until an epoch reaches a value.

    The learning rate is constant: a schedule would aim at an end.

    Args:
        command: Module of the example, and its options.
        column: Of `metrics.csv`.
        value: What it has to reach.
        sign: 1 if larger is better, -1 if smaller is.
        backend: Keras backend.
        seed: Of the run.
        patience: Minutes to wait at most.

    Returns:
        The seconds, or None for a run that has not arrived by then.

    Raises:
        RuntimeError: The example fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder, "run")
        options = ["--schedule", "constant", "--time-budget", patience, "--epochs", 100_000]
        options += ["--seed", seed, "--plot-interval", 10 * patience, "--output", output]
        log = pathlib.Path(folder, "log.txt")
        with open(log, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, *map(str, options)],
                env={**os.environ, "KERAS_BACKEND": backend},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            while True:
                running = process.poll() is None
                seconds = reached(output / "metrics.csv", column, value, sign)
                if seconds is not None or not running:
                    break
                time.sleep(0.5)
        finally:
            process.kill()
            process.wait()
        if seconds is None and process.returncode:
            raise RuntimeError(f"{command[0]} failed: {log.read_text()[-2000:]}")
        return seconds


def reached(path, column, value, sign):
    """Seconds at the end of the first epoch in a log that reaches a value, or None."""
    try:
        # The last line may be half written.
        lines = path.read_text().rpartition("\n")[0].splitlines()
    except FileNotFoundError:
        return None
    for row in csv.DictReader(lines):
        if sign * float(row[column]) >= sign * value:
            return float(row["seconds"])
    return None


def time_to_result(backends, repeats):
    """Prints and returns seconds by task and backend, for seeds from 0 on."""
    print(f"Seconds of training until a network is good enough; median of {repeats} seeds (least")
    print(f"and most), – where one takes more than {PATIENCE} minutes", flush=True)
    results = {}
    for task, (command, column, value, sign) in TASKS.items():
        print(f"\n{task}", flush=True)
        for backend in backends:
            found = [
                seconds_to_result(command, column, value, sign, backend, seed)
                for seed in range(repeats)
            ]
            results[f"{task}, {backend}"] = found
            text = "–"
            if None not in found:
                text = f"{np.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
            print(f"  {backend:12} {text}", flush=True)
    return results
