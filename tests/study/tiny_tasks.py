"""Tasks that take no time, fail, kill or wait: ``python -m tests.study.tiny_tasks FOLDER …``."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from threadpoolctl import threadpool_info

from decomposition.study.executors import Backend
from decomposition.study.runner import run_tasks
from decomposition.study.task import Task

Deed = Literal["compute", "fail", "fail once", "exit", "kill", "kill once", "pause once"]


@dataclass(frozen=True)
class Tiny(Task):
    """Random numbers from a seed; says in ``folder``/attempts how often it was computed."""

    kind: ClassVar[str] = "tiny"
    stage: ClassVar[int] = 1

    seed: int
    deed: Deed = "compute"
    pause: float = 0.0
    cost: float = 1.0
    size: int = 1
    source: str = "errors.py"

    @property
    def label(self) -> str:
        return f"tiny {self.seed}"

    def config(self) -> dict[str, Any]:
        return {"seed": self.seed, "deed": self.deed}

    def code(self) -> tuple[str, ...]:
        return (self.source,)

    def seconds(self) -> float:
        return self.cost

    def memory(self) -> int:
        return self.size

    def compute(self, store: Path, threads: int) -> xr.DataTree:
        folder = store / "attempts"
        folder.mkdir(exist_ok=True)
        (folder / f"{self.seed}-{os.getpid()}-{time.time_ns()}").touch()
        first = attempts(store, self.seed) == 1
        if self.pause and (first or self.deed != "pause once"):
            time.sleep(self.pause)
        if self.deed == "fail" or (self.deed == "fail once" and first):
            raise RuntimeError(f"no numbers for seed {self.seed}\nat all")
        if self.deed == "exit":
            sys.exit("user code that exits")
        if self.deed == "kill" or (self.deed == "kill once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        values = np.random.default_rng((7, self.seed)).normal(size=(20, 3))
        data = xr.Dataset(
            {"values": (("draw", "rung"), values), "name": ((), self.label)},
            {"rung": ["hessian", "ggn", "kfac"]},
            {"threads": threads, "torch": torch.get_num_threads(), "blas": blas_threads()},
        )
        means = data[["values"]].mean("draw")
        return xr.DataTree.from_dict({"/levels": data, "/errors/deep": means})


@dataclass(frozen=True)
class Early(Tiny):
    """The same, before the others."""

    kind: ClassVar[str] = "early"
    stage: ClassVar[int] = 0


def blas_threads() -> int:
    """Most threads of any library of matrix products in this process."""
    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def attempts(folder: Path, seed: int) -> int:
    """How often a task was begun."""
    return len(list((folder / "attempts").glob(f"{seed}-*")))


def cells(folder: Path) -> dict[str, bytes]:
    """File name → content of every result."""
    return {path.name: path.read_bytes() for path in (folder / "cells").glob("*.cell")}


def many(count: int, pause: float = 0.0) -> list[Tiny]:
    """Early and late ones."""
    return [(Early if seed < count // 3 else Tiny)(seed, pause=pause) for seed in range(count)]


def drive(folder: Path, tasks: list[Tiny], backend: str = "sequential") -> None:
    """What a process of a study does, started from a terminal: one in the background ignores ^C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_tasks(
        tasks,
        folder,
        backend=Backend(backend, jobs=2, threads=1),  # type: ignore[arg-type]
        progress=False,
    )


if __name__ == "__main__":
    drive(Path(sys.argv[1]), many(int(sys.argv[3]), float(sys.argv[4])), sys.argv[2])
