"""Real processes that drive a study, and ways to kill them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from decomposition.study.running import RunningTasks
from tests.study.tiny_tasks import Tiny, attempts, cells, drive

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


def driver(folder: Path, tasks: list[Tiny], backend: str = "sequential") -> BaseProcess:
    """A started process; forked from one that has imported the package, which takes seconds."""
    os.environ["PYTHONPATH"] = str(ROOT)  # of the fork server, which starts with the first driver
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.study.warm"])
    process = context.Process(target=drive, args=(folder, tasks, backend))
    process.start()
    return process


def listed(columns: str) -> list[list[str]]:
    """Columns of all processes of this machine."""
    command = ["ps", "-A", "-o", columns]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split() for line in found.stdout.splitlines()]


def lives(process: int) -> bool:
    """Whether a process has not ended."""
    return any(int(pid) == process and state[0] != "Z" for pid, state in listed("pid=,stat="))


def wait_until(condition) -> None:
    """Poll; an assertion after two minutes."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextlib.contextmanager
def one_worker_killed(folder: Path, after: int) -> Iterator[list[int]]:
    """Kill -9 a process that computes a task, once ``after`` results are there."""
    killed: list[int] = []
    stop = threading.Event()

    def strike() -> None:
        while not killed and not stop.wait(0.005):
            if not (folder / "running").exists() or len(cells(folder)) < after:
                continue
            for owner in RunningTasks(folder).owners().values():
                seed = int(owner.label.removeprefix("tiny "))
                if owner.pid != os.getpid() and attempts(folder, seed):
                    os.kill(owner.pid, signal.SIGKILL)
                    killed.append(owner.pid)
                    return

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()
