"""Cost against N, P and queries: `python -m tests.benchmarks.bench_cost N P Q` (minutes each).

On networks 64-w-w-2 with random data, on one thread: one Hessian-vector product, building EK-FAC,
the dual forms of G and block-G, a damped solve of H for some queries (20 steps of MINRES,
preconditioned by EK-FAC: how many it takes depends on the problem and on λ), and scores of EK-FAC;
peak memory of the matrix-free path (EK-FAC and the solve) and of the dual forms, each in a process
of its own. The powers that these follow, and the figure, are made of what is kept
(docs/make_tables.py).
"""

from __future__ import annotations

import sys

import torch

from decomposition import influence_scores
from decomposition.chain.rungs import EKFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import Curvature
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.minres import minres
from decomposition.curvature.products import Product, hessian_product
from decomposition.curvature.solution import Solution, Stopping
from decomposition.problem import Problem
from tests.benchmarks.measuring import Kept, Row, high_water_mark, in_turn, peak_bytes, threads
from tests.benchmarks.networks import wide

Point = tuple[int, int, int, int]
"""Width, examples, examples of the dual forms (whose matrices have the side N·C), queries."""
SWEEPS: dict[str, tuple[Point, ...]] = {
    "N": tuple((128, n, n // 5, 1) for n in (500, 1000, 2000, 4000, 8000)),
    "P": tuple((width, 2000, 200, 1) for width in (64, 108, 181, 304, 512)),
    "Q": tuple((128, 2000, 200, q) for q in (2, 4, 8, 16, 32)),
}
ROUNDS, ENOUGH, STEPS, SHARE = 5, 2.0, 20, 10.0
"""Most repetitions, seconds after which there are no more; steps of a solve, and its λ as a
multiple of tr E / P."""
WITHOUT_QUERIES = ("H product", "EK-FAC", "dual GGN")
"""What does not depend on them."""


def ekfac_of(problem: Problem) -> Curvature:
    return EKFAC().build(Parts(problem))


def solve(problem: Problem, product: Product, ekfac: Curvature) -> Solution:
    """(H + λI) x = 1 for every query, as far as it gets."""
    damping = SHARE * ekfac.trace() / problem.num_parameters
    return minres(
        lambda v: product(v) + damping * v,
        torch.ones(problem.num_parameters, problem.num_queries, dtype=torch.float64),
        lambda v: ekfac.solve(v, damping),
        Stopping(1e-12, STEPS, required=False),
    )


def seconds(point: Point) -> dict[str, float]:
    width, examples, few, queries = point
    problem, small = wide(width, examples, queries), wide(width, few)
    product, ekfac = hessian_product(problem), ekfac_of(problem)
    v = torch.ones(problem.num_parameters, 1, dtype=torch.float64)
    ways = {
        "H product": lambda: product(v),
        "EK-FAC": lambda: ekfac_of(problem),
        "dual GGN": lambda: dual_rungs(small),
        "damped H solve": lambda: solve(problem, product, ekfac),
        "EK-FAC scores": lambda: influence_scores(problem, ekfac, damping=1e-3),
    }
    return in_turn(ways, ROUNDS, ENOUGH)


def memory(what: str, width: int, examples: int) -> int:
    """Peak resident bytes beyond what a small problem has taken."""

    def once(problem: Problem) -> object:
        if what == "dual GGN":
            return dual_rungs(problem)
        return solve(problem, hessian_product(problem), ekfac_of(problem))

    once(wide(16, 16))
    problem = wide(width, examples)
    before = high_water_mark()
    once(problem)
    return high_water_mark() - before


def sweep(symbol: str, kept: Kept) -> None:
    for point in SWEEPS[symbol]:
        width, examples, few, queries = point
        sizes = {"N": examples, "P": wide(width, 4).num_parameters, "Q": queries}
        found = seconds(point)
        for what in WITHOUT_QUERIES if symbol == "Q" else ():
            del found[what]

        def add(what: str, value: float, unit: str, sizes: dict[str, int] = sizes) -> None:
            own = sizes | ({"N": few} if what == "dual GGN" else {})  # noqa: B023
            of = f"against {symbol}: " + ", ".join(f"{k} = {v:,}" for k, v in own.items())
            more: dict[str, float | str] = {k: float(v) for k, v in own.items()}
            kept.add(
                Row(what if unit == "s" else f"{what}, memory", of, 1, value, unit=unit, more=more)
            )

        for what, value in found.items():
            add(what, value, "s")
        for what, count in (("damped H solve", examples), ("dual GGN", few)):
            if symbol != "Q":
                peak = peak_bytes("tests.benchmarks.bench_cost", what, width, count)
                add(what, peak / 2**20, "MiB")


def main(symbols: list[str]) -> None:
    torch.manual_seed(0)
    with threads(1):
        for symbol in symbols or list(SWEEPS):
            kept = Kept("cost")
            sweep(symbol, kept)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        main(sys.argv[1:])
