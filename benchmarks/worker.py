"""One subject of a benchmark in a process of its own.

The process sets its subject up, writes its facts, and then measures whenever it is told to:
for a line with a number of steps it writes the seconds of a step, and what the last step
returned if that is a dict. So subjects on several backends take turns within one run.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np


class Worker:
    """A subject that waits in another process.

    Args:
        subject: Name of a function of `benchmarks.subjects`.
        backend: Keras backend, or None.
        warm_up: Steps before the first that is measured.
        variables: Environment variables of the process, beside those of this one.
        options: Keyword arguments of the function, as JSON can hold them.

    Attributes:
        facts: What the subject says of itself, with `memory_mib`, by which the first steps
            raised the peak of the memory of the process (None where that cannot be known).
    """

    def __init__(self, subject, backend=None, warm_up=3, variables=None, **options):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(variables or {})}
        if backend is not None:
            environment["KERAS_BACKEND"] = backend
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", subject, str(warm_up), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.facts = json.loads(self._answer())

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A worker ended: exit status {self._process.wait()}")
        return line

    def measure(self, steps=1):
        """Seconds of one step, the mean over `steps`."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = json.loads(self._answer())
        self.facts.update(answer["facts"])
        return answer["seconds"]

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def interleaved(workers, repeats, steps=1):
    """`{name: seconds}`: all workers take turns, `repeats` times."""
    seconds = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            seconds[name].append(worker.measure(steps))
    return {name: np.array(values) for name, values in seconds.items()}


def memory_mib(field):
    """Memory of this process now (`"VmRSS"`) or at its peak (`"VmHWM"`), None if not known."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def added_memory_mib(function):
    """By how much a call raises the peak above what the process has before it."""
    with contextlib.suppress(OSError):  # the peak starts anew where Linux allows it
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = memory_mib("VmRSS")
    function()
    return None if before is None else memory_mib("VmHWM") - before


def main():
    from benchmarks import subjects

    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    step, facts = getattr(subjects, sys.argv[1])(**json.loads(sys.argv[3]))

    def warm_up():
        for _ in range(int(sys.argv[2])):
            step()

    facts["memory_mib"] = added_memory_mib(warm_up)
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        count = int(line)
        start = time.perf_counter()
        for _ in range(count):
            result = step()
        seconds = (time.perf_counter() - start) / count
        answer = {"seconds": seconds, "facts": result if isinstance(result, dict) else {}}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
