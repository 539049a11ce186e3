"""Workers whose driver was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.study.processes import ROOT, wait_until
from tests.study.tiny_tasks import attempts, cells


def test_workers_end_soon_after_their_driver_and_let_go_of_its_output(tmp_path: Path) -> None:
    """One computes, and what it computes is kept; the other has never had a job."""
    command = [sys.executable, "-m", "tests.study.tiny_tasks", str(tmp_path), "loky", "1", "3"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: (tmp_path / "attempts").exists() and attempts(tmp_path, 0))
        workers = children(process.pid)
        process.kill()
        begun = time.monotonic()
        process.communicate(timeout=60)  # a reader of the output does not wait for the workers
    wait_until(lambda: not any(map(lives, workers)))
    assert time.monotonic() - begun < 20
    assert len(workers) >= 2
    assert len(cells(tmp_path)) == 1


def children(parent: int) -> list[int]:
    return [int(pid) for pid, its in processes("pid=,ppid=") if int(its) == parent]


def lives(process: int) -> bool:
    return any(int(p) == process and state[0] != "Z" for p, state in processes("pid=,stat="))


def processes(columns: str) -> list[list[str]]:
    listed = subprocess.run(["ps", "-A", "-o", columns], capture_output=True, text=True, check=True)
    return [line.split() for line in listed.stdout.splitlines()]
