"""The main command, from end to end: `python -m tests.benchmarks.bench_run [PROBLEM …]`.

``decompose run`` with these arguments, in a process of its own and an empty folder; default:
``digits``, and ``digits --quick``. By the clock, with the seconds of the processor and of every
stage, and the peak of resident memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

import torch

from decomposition import open_result
from tests.benchmarks.measuring import Kept, Row

RUNS = ["digits"], ["digits", "--quick"]


def measure(arguments: list[str], kept: Kept) -> None:
    """One run."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "decomposition", "run", *arguments, "--out", out]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            clock = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        stages = json.loads(open_result(out).attrs["timings"])
    more: dict[str, float | str] = {
        "processor seconds": used.ru_utime + used.ru_stime,
        "peak GiB": used.ru_maxrss / 2**20,
        "stages": json.dumps(stages),
    }
    what = " ".join(["decompose run", *arguments])
    kept.add(Row(what, arguments[0], torch.get_num_threads(), clock, more=more))


def main(arguments: list[str]) -> None:
    kept = Kept("run")
    for one in [arguments] if arguments else RUNS:
        measure(one, kept)


if __name__ == "__main__":
    main(sys.argv[1:])
