"""What all benchmarks share: timing in turn, threads, the machine, and results that are kept.

A time is the least of several rounds by the clock. Whatever is compared is run in turn within each
round, so that a disturbance does not fall on one side only; how much of the machine other programs
had meanwhile is kept with the result.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from decomposition.results.provenance import hardware, versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    of: str
    """The problem, or the size of it."""
    threads: int
    value: float
    rival: float | None = None
    """Of what it is held against."""
    floor: float | None = None
    """Of its matrix products alone, at the rate of one measured just before."""
    unit: str = "s"
    more: dict[str, float | str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is a measurement of."""
        return self.what, self.of, self.threads

    def __str__(self) -> str:
        ratio = "" if self.rival is None else f"  rival {self.rival:.4g}, {self.ratio:.2f}×"
        floor = "" if self.floor is None else f"  floor {self.floor:.4g}, {self.over:.2f}×"
        head = f"{self.of}, {self.threads} threads, {self.what}: {self.value:.4g} {self.unit}"
        return f"{head}{ratio}{floor}"

    @property
    def ratio(self) -> float:
        """How many times less than the rival."""
        return math.nan if self.rival is None else self.rival / self.value

    @property
    def over(self) -> float:
        """How many times the floor."""
        return math.nan if self.floor is None else self.value / self.floor


def in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int = 5, enough: float = math.inf
) -> dict[str, float]:
    """Least seconds of each, in turn: at most ``rounds``, and two even if they take long."""
    best = dict.fromkeys(ways, math.inf)
    began = time.perf_counter()
    for done in range(rounds):
        if done > 1 and time.perf_counter() - began > enough:
            break
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads in PyTorch, NumPy and SciPy."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def thread_counts() -> tuple[int, ...]:
    """As many as there are by default, and one."""
    return tuple(dict.fromkeys((torch.get_num_threads(), 1)))


def seconds_of_product(m: int, k: int, n: int, dtype: torch.dtype = torch.float64) -> float:
    """Of one multiply-add in a product of such matrices."""
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    return in_turn({"product": lambda: a @ b}, 10, 1.0)["product"] / (m * k * n)


def peak_bytes(module: str, *arguments: object) -> int:
    """What ``python -m module --memory arguments`` prints: its peak, in a process of its own."""
    command = [sys.executable, "-m", module, "--memory", *map(str, arguments)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def high_water_mark() -> int:
    """Peak resident bytes of this program (ru_maxrss would include the parent's before exec)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


class Kept:
    """Rows of one benchmark, as JSON beside the machine that they come from.

    Rows of an earlier run that this one did not measure stay, with their own machine.
    """

    def __init__(self, name: str) -> None:
        """Begin to count what other programs take."""
        self._path, self._rows = RESULTS / f"{name}.json", []
        self._load, self._start, self._cpu = os.getloadavg()[0], time.time(), _busy()

    def add(self, row: Row) -> None:
        """Print it, and keep it with those before it."""
        print(row, flush=True)
        self._rows.append(row)
        own, every = (now - then for now, then in zip(_busy(), self._cpu, strict=True))
        others = (every - own) / (time.time() - self._start)
        machine = hardware() | {
            "torch": versions()["torch"],
            "load": round(self._load, 1),
            "cores_taken_by_others": round(max(others, 0.0), 2),
            "measured": datetime.now(UTC).isoformat(timespec="minutes"),
        }
        new = {row.key for row in self._rows}
        old = json.loads(self._path.read_text()) if self._path.exists() else []
        runs = [run | {"rows": [r for r in run["rows"] if Row(**r).key not in new]} for run in old]
        runs.append({"machine": machine, "rows": [asdict(_rounded(row)) for row in self._rows]})
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps([run for run in runs if run["rows"]], indent=1)
        self._path.write_text(text + "\n")


def _rounded(row: Row) -> Row:
    """Four digits are more than a repetition confirms."""

    def short(value: float | str | None) -> float | str | None:
        return float(f"{value:.4g}") if isinstance(value, float) else value

    more = {name: short(value) for name, value in row.more.items()}
    times = {name: short(getattr(row, name)) for name in ("value", "rival", "floor")}
    return replace(row, **times, more=more)  # pyright: ignore[reportArgumentType]


def _busy() -> tuple[float, float]:
    """Processor seconds of this program and its children, and of the whole machine."""
    mine = sum(os.times()[:4])
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return mine, mine
    return mine, sum(map(int, first.split()[1:4])) / os.sysconf("SC_CLK_TCK")
