"""The main command, from end to end: `decompose run digits`, whole and with --quick.

`python -m tests.benchmarks.bench_run [results.json]` runs each in a process of its own, nothing
being kept from the one before, and tells its seconds on the clock and of the processor, its peak
memory, and the seconds of every stage. What is kept names the machine and how busy it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from decomposition import open_result
from tests.benchmarks.bench_products import machine

RUNS = {"digits": [], "digits --quick": ["--quick"]}


def measure(arguments: list[str], out: str) -> dict[str, object]:
    """Of one run into an empty folder."""
    command = [sys.executable, "-m", "decomposition", "run", "digits", *arguments, "--out", out]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "clock_seconds": round(clock, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "stages": json.loads(open_result(out).attrs["timings"]),
    }


def main(path: str | None) -> None:
    kept: dict[str, object] = {"machine": machine()}
    for name, arguments in RUNS.items():
        with tempfile.TemporaryDirectory() as out:
            kept[name] = measure(arguments, out)
        print(name, json.dumps(kept[name], indent=1))
    if path is not None:
        Path(path).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
