"""Beyond dense: products that EK-FAC saves, memory against P, time against N and P.

`python tests/benchmarks/bench_matrix_free.py [small]` prints three tables (minutes; `small`: one):

1. products with H for (H + λI) x = g, per query, to one residual: plain CG (where H + λI is
   definite), plain MINRES, and MINRES preconditioned at the same λ by EK-FAC, by the GGN itself
   (dense here, dual in large models) and by 100 leading eigenpairs (whose own products are shared
   by all queries and λ, and given apart);
2. peak memory of one preconditioned solve against P, each in a process of its own, and the power
   of P that it grows with;
3. seconds of one product against N, and against P.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from decomposition.problems.digits import mlp
from decomposition.problems.digits_cnn import digits_cnn
from torch import nn

from decomposition.chain.rungs import EKFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature.cg import cg
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.curvature.low_rank import leading_eigenpairs
from decomposition.curvature.minres import minres
from decomposition.curvature.products import hessian_product
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.problem import Problem
from decomposition.problems import digits

SHARES = (1.0, 3.0, 10.0)
"""λ as multiples of tr E / P."""
TOLERANCE, MOST, QUERIES, RANK = 1e-6, 1000, 20, 100
WIDTHS, EXAMPLES = (128, 256, 512, 1024), (100, 300, 1000)


def main(small: bool) -> None:
    savings("MLP on digits", digits(quick=small).trained())
    savings("CNN on digits", digits_cnn(quick=small).trained())
    widths = WIDTHS[:3] if small else WIDTHS
    growth(widths)
    times(widths, EXAMPLES[:2] if small else EXAMPLES)


def savings(name: str, problem: Problem) -> None:
    parts, product = Parts(problem), hessian_product(problem)
    ekfac = EKFAC().build(parts)
    preconditioners = {
        "EK-FAC": ekfac,
        "GGN": parts.ggn(),
        "leading": leading_eigenpairs(product, RANK),
    }
    x, y = problem.query
    b = per_example_gradients(problem, x[:QUERIES], y[:QUERIES]).T.contiguous()  # type: ignore[index]
    mean = ekfac.trace() / problem.num_parameters
    stopping = Stopping(TOLERANCE, MOST, required=False)
    print(
        f"\n{name}: P = {problem.num_parameters:,}, N = {problem.num_examples:,}; "
        f"products per query, and {2 * RANK / b.shape[1]:.0f} shared ones for the eigenpairs"
    )
    for share in SHARES:
        damping = share * mean

        def damped(v: torch.Tensor, damping=damping) -> torch.Tensor:
            return product(v) + damping * v

        ways = {
            "CG": lambda a=damped: cg(a, b, None, stopping),
            "MINRES": lambda a=damped: minres(a, b, None, stopping),
        }
        for label, other in preconditioners.items():

            def inverse(v: torch.Tensor, other=other, damping=damping) -> torch.Tensor:
                return other.solve(v, damping)

            ways[label] = lambda a=damped, m=inverse: minres(a, b, m, stopping)
        found = {}
        for label, solve in ways.items():
            try:
                solution = solve()
                short = "" if solution.converged else f" (residual {solution.residuals.max():.0e})"
                found[label] = f"{solution.products / b.shape[1]:.0f}{short}"
            except SolverError:
                found[label] = "indefinite"
        cells = "  ".join(f"{label} {value}" for label, value in found.items())
        print(f"  λ = {share:5.0f} tr/P = {damping:.1e}:  {cells}", flush=True)


def wide(width: int, examples: int = 200) -> Problem:
    """Three layers on 64 inputs: P grows with the square of the width."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples + 4, 64, generator=generator)
    y = torch.randint(0, 10, (examples + 4,), generator=generator)
    model = mlp((64, width, width, 10), nn.GELU, 0)
    n = examples
    return Problem(model, nn.CrossEntropyLoss(), (x[:n], y[:n]), (x[n:], y[n:]), name="wide")


def growth(widths: tuple[int, ...]) -> None:
    sizes, peaks = [], []
    for width in widths:
        command = [sys.executable, __file__, "--memory", str(width)]
        result = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sizes.append(wide(width).num_parameters)
        peaks.append(float(result))
        print(f"  P = {sizes[-1]:>9,}: peak {peaks[-1] / 2**20:7.1f} MiB", flush=True)
    power = np.polyfit(np.log(sizes[-3:]), np.log(peaks[-3:]), 1)[0]
    print(
        f"  memory grows like P^{power:.2f} over the last three; P² would take "
        f"{8 * sizes[-1] ** 2 / 2**20:,.0f} MiB a matrix"
    )


def memory(width: int) -> None:
    """Peak resident bytes of one preconditioned solve, beyond what a small one has taken."""
    solve_once(wide(16))
    problem = wide(width)
    before = high_water_mark()
    solve_once(problem)
    print(high_water_mark() - before)


def solve_once(problem: Problem) -> None:
    ekfac, product = EKFAC().build(Parts(problem)), hessian_product(problem)
    b = torch.ones(problem.num_parameters, 4, dtype=torch.float64)
    damping = 10 * ekfac.trace() / problem.num_parameters
    minres(
        lambda v: product(v) + damping * v,
        b,
        lambda v: ekfac.solve(v, damping),
        Stopping(1e-4, 20, required=False),
    )


def times(widths: tuple[int, ...], examples: tuple[int, ...]) -> None:
    print("\nseconds of one Hessian product (one column)")
    for count in examples:
        problem = wide(64, count)
        print(
            f"  N = {count:>5,}, P = {problem.num_parameters:>9,}: {product_seconds(problem):.4f}"
        )
    for width in widths:
        problem = wide(width)
        seconds = product_seconds(problem)
        print(f"  N = {problem.num_examples:>5,}, P = {problem.num_parameters:>9,}: {seconds:.4f}")


def product_seconds(problem: Problem) -> float:
    product = hessian_product(problem)
    v = torch.ones(problem.num_parameters, 1, dtype=torch.float64)
    return best(lambda: product(v))


def best(work: Callable[[], object], rounds: int = 5) -> float:
    work()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def high_water_mark() -> int:
    """Peak resident bytes of this program (ru_maxrss would include the parent's before exec)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(int(sys.argv[2]))
    else:
        main("small" in sys.argv[1:])
