"""Dense H and G on digits against curvlinops, the GEMM floor, and peak memory; run it as a script.

`python tests/benchmarks/bench_assembly.py` (needs the extra `oracle`) compares the assembly at
P = 6,570, N = 1,617, float64, with curvlinops' linear operators applied to the identity 64 columns
at a time. curvlinops is timed on a slice of the columns, spread over the layers, and scaled up.
Rounds are interleaved and minima taken, so that a disturbance does not fall on one side only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.problems import digits

ROUNDS, COLUMNS, BLOCKS, GEMM = 3, 64, 4, 3000


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    import curvlinops

    problem = digits().trained()
    size, examples = problem.num_parameters, problem.num_examples
    model = problem.double_model()
    data = [(problem.train[0].double(), problem.train[1])]
    arguments = (model, nn.CrossEntropyLoss(), list(model.parameters()), data)
    ours = {"GGN": assemble_ggn, "Hessian": assemble_hessian}
    theirs = {
        "GGN": curvlinops.GGNLinearOperator(*arguments),
        "Hessian": curvlinops.HessianLinearOperator(*arguments),
    }
    starts = np.linspace(0, size - COLUMNS, BLOCKS).astype(int)
    best = dict.fromkeys([*ours, *(f"curvlinops {name}" for name in ours), "gemm"], np.inf)

    def record(name: str, value: float) -> None:
        best[name] = min(best[name], value)

    a = np.random.default_rng(0).standard_normal((GEMM, GEMM))
    for _ in range(ROUNDS):
        record("gemm", seconds(lambda: a @ a))
        for name, assemble in ours.items():
            record(name, seconds(lambda assemble=assemble: assemble(problem)))
            operator = theirs[name]
            for start in starts:
                eye = torch.zeros(size, COLUMNS, dtype=torch.float64)
                eye[start : start + COLUMNS] = torch.eye(COLUMNS, dtype=torch.float64)
                spent = seconds(lambda operator=operator, eye=eye: operator @ eye)
                record(f"curvlinops {name}", spent * size / COLUMNS)
    floor = examples * size**2 / (2 * GEMM**3 / best["gemm"])  # one triangle: N P²/2 multiply-adds
    print(f"P = {size:,}, N = {examples:,}, float64; GEMM floor {floor:.2f} s")
    for name in ours:
        mine, other = best[name], best[f"curvlinops {name}"]
        print(
            f"{name:8} ours {mine:6.2f} s  curvlinops {other:6.1f} s  ratio {other / mine:5.1f}  "
            f"over the floor {mine / floor:4.1f}×"
        )
    for name in ours:
        print(f"{name:8} peak memory over P² doubles: {peak(name):.2f}")


def peak(name: str) -> float:
    """Peak resident memory of one assembly in a process of its own, in P² doubles."""
    command = [sys.executable, __file__, "--memory", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(name: str) -> None:
    problem = digits().trained()
    assemble = assemble_ggn if name == "GGN" else assemble_hessian
    small = digits(quick=True)  # loads every library function first
    assemble(small)
    before = high_water_mark()
    assemble(problem)
    print((high_water_mark() - before) / (8 * problem.num_parameters**2))


def high_water_mark() -> int:
    """Peak resident bytes of this program (ru_maxrss would include the parent's before exec)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    memory(sys.argv[2]) if sys.argv[1:2] == ["--memory"] else main()
