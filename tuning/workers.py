"""A distributed search: Keras Tuner's chief holds the oracle, workers train."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

# Keras Tuner reads these.
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
# Set for processes whose standard input ends when the process that started them does, to the
# names of the workers among them.
CHILD = "KERAS_SETS_TUNING_CHILD"
ROOT = pathlib.Path(__file__).resolve().parent.parent


def own_role():
    """ "chief", "worker", or None, by Keras Tuner's environment variables.

    Raises:
        ValueError: Some of them are set and others are not.
    """
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if len(missing) == len(VARIABLES):
        return None
    if missing:
        raise ValueError(
            f"a distributed search needs the environment variables {', '.join(VARIABLES)}; "
            f"not set: {', '.join(missing)}"
        )
    return "chief" if "chief" in os.environ["KERASTUNER_TUNER_ID"] else "worker"


def is_child():
    """Whether `run` of another process started this one."""
    return CHILD in os.environ


def siblings():
    """Names of the workers that `run` started beside this process."""
    return os.environ.get(CHILD, "").split()


@contextlib.contextmanager
def asking_the_chief(role):
    """Says that the chief is gone, where a worker would fail with an error of gRPC.

    Raises:
        ConnectionError: The chief has ended, or cannot be reached.
    """
    if role != "worker":
        yield
        return
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        raise ConnectionError(
            f"the chief of the search has ended or cannot be reached ({error.details()}). Where "
            "trials are left, the same commands go on, the chief's among them"
        ) from error


def end_with_parent():
    """In a child, ends this process when its parent is gone, however it went."""
    if is_child():

        def wait():
            # Not through `sys.stdin`: its lock must be free when Python ends.
            while os.read(0, 1):
                pass
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(arguments, count):
    """Runs a chief and some workers on this machine until all workers are done.

    Args:
        arguments: Command line of the search.
        count: Number of workers.

    Returns:
        None, or what went wrong. No process is left.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    port = str(free_port())
    names = [f"worker{i}" for i in range(count)]
    processes = {}
    try:
        for name in ("chief", *names):
            values = (name, "127.0.0.1", port)
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tuning", *arguments, "--workers", "0"],
                env={
                    **os.environ,
                    **dict(zip(VARIABLES, values, strict=True)),
                    CHILD: " ".join(names),
                    "PYTHONPATH": path,
                },
                stdin=subprocess.PIPE,
            )
        while True:
            codes = {name: process.poll() for name, process in processes.items()}
            for name, code in codes.items():
                if code:
                    return f"{name} ended with exit code {code}"
            workers = [code for name, code in codes.items() if name != "chief"]
            # The chief answers every request after it has written its files, and would wait a
            # while for more.
            if None not in workers:
                return None
            time.sleep(0.2)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
            process.stdin.close()
