"""Dense H and G on digits: `python -m tests.benchmarks.bench_assembly` (extra `oracle`).

Against curvlinops' linear operators applied to the identity 64 columns at a time, and the floor of
one triangle, N P²/2 multiply-adds, at the rate of a product measured in turn. P = 6,570, N = 1,617,
float64. curvlinops is timed on some columns, spread over the layers, and scaled up. Peak memory is
that of one assembly in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.inputs import double
from decomposition.problem import Problem
from decomposition.problems import digits
from tests.benchmarks.measuring import (
    Kept,
    Row,
    high_water_mark,
    in_turn,
    peak_bytes,
    thread_counts,
    threads,
)

ROUNDS, COLUMNS, BLOCKS, GEMM = 3, 64, 4, 3000
ASSEMBLE = {"dense G": assemble_ggn, "dense H": assemble_hessian}


def rivals(problem: Problem) -> dict[str, Callable[[Tensor], Tensor]]:
    import curvlinops

    model = problem.double_model()
    data = [(double(problem.train[0]), problem.train[1])]
    arguments = (model, nn.CrossEntropyLoss(), list(model.parameters()), data)
    kinds = {
        "dense G": curvlinops.GGNLinearOperator,
        "dense H": curvlinops.HessianLinearOperator,
    }
    return {what: kind(*arguments).__matmul__ for what, kind in kinds.items()}


def measure(problem: Problem, kept: Kept, peaks: dict[str, float]) -> None:
    size, a = problem.num_parameters, torch.randn(GEMM, GEMM, dtype=torch.float64)
    some = [
        torch.eye(size, COLUMNS, dtype=torch.float64).roll(int(start), 0)
        for start in np.linspace(0, size - COLUMNS, BLOCKS)
    ]
    ways: dict[str, Callable[[], object]] = {"product": lambda: a @ a}
    for what, other in rivals(problem).items():
        ways[what] = lambda assemble=ASSEMBLE[what]: assemble(problem)
        for i, columns in enumerate(some):
            ways[f"{what}, rival {i}"] = lambda other=other, columns=columns: other(columns)
    best = in_turn(ways, ROUNDS)
    floor = problem.num_examples * size**2 / 2 * best["product"] / GEMM**3
    for what in ASSEMBLE:
        rival = min(best[f"{what}, rival {i}"] for i in range(BLOCKS)) * size / COLUMNS
        more: dict[str, float | str] = {"peak, P² doubles": peaks[what]}
        row = Row(what, "digits", torch.get_num_threads(), best[what], rival, floor, more=more)
        kept.add(row)


def memory(what: str) -> int:
    """Peak bytes beyond what the assembly of a small problem has taken."""
    problem = digits().trained()
    ASSEMBLE[what](digits(quick=True))  # loads every library function first
    before = high_water_mark()
    ASSEMBLE[what](problem)
    return high_water_mark() - before


def main() -> None:
    problem, kept = digits().trained(), Kept("assembly")
    square = 8 * problem.num_parameters**2
    peaks = {
        what: peak_bytes("tests.benchmarks.bench_assembly", what) / square for what in ASSEMBLE
    }
    for count in thread_counts():
        with threads(count):
            measure(problem, kept, peaks)


if __name__ == "__main__":
    print(memory(sys.argv[2])) if sys.argv[1:2] == ["--memory"] else main()
