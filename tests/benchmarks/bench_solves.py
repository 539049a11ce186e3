"""Products with H that a preconditioner saves: `python -m tests.benchmarks.bench_solves` (minutes).

(H + λI) x = g for queries, to one residual, at λ as multiples of tr E / P, on quick digits
networks: plain CG (where H + λI is definite), which is the rival, plain MINRES, and MINRES
preconditioned at the same λ by EK-FAC, by the GGN itself (dense here, dual in large models) and by
100 leading eigenpairs (whose own products are shared by all queries and λ, and given apart).
"""

from __future__ import annotations

import torch

from decomposition.chain.rungs import EKFAC
from decomposition.chain.shared_factors import Parts
from decomposition.curvature.cg import cg
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.curvature.low_rank import leading_eigenpairs
from decomposition.curvature.minres import minres
from decomposition.curvature.products import hessian_product
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.inputs import take
from decomposition.problem import Problem
from decomposition.problems import digits
from decomposition.problems.bundled import digits_cnn
from tests.benchmarks.measuring import Kept, Row

SHARES = (1.0, 3.0, 10.0)
"""λ as multiples of tr E / P."""
TOLERANCE, MOST, QUERIES, RANK = 1e-6, 1000, 20, 100


def savings(name: str, problem: Problem, kept: Kept) -> None:
    parts, product = Parts(problem), hessian_product(problem)
    ekfac = EKFAC().build(parts)
    preconditioners = {
        "EK-FAC": ekfac,
        "the GGN": parts.ggn(),
        f"{RANK} leading eigenpairs": leading_eigenpairs(product, RANK),
    }
    x, y = problem.query
    some = slice(0, QUERIES)
    b = per_example_gradients(problem, take(x, some), y[some]).T.contiguous()
    stopping = Stopping(TOLERANCE, MOST, required=False)
    for share in SHARES:
        damping = share * ekfac.trace() / problem.num_parameters

        def damped(v: torch.Tensor, damping: float = damping) -> torch.Tensor:
            return product(v) + damping * v

        ways = {
            "CG": lambda a=damped: cg(a, b, None, stopping),
            "MINRES": lambda a=damped: minres(a, b, None, stopping),
        }
        for label, other in preconditioners.items():

            def inverse(v: torch.Tensor, other=other, damping: float = damping) -> torch.Tensor:
                return other.solve(v, damping)

            ways[f"MINRES with {label}"] = lambda a=damped, m=inverse: minres(a, b, m, stopping)
        plain = None
        for label, solve in ways.items():
            try:
                solution = solve()
            except SolverError:  # indefinite
                continue
            products = solution.products / b.shape[1]
            plain = products if label == "CG" else plain
            more: dict[str, float | str] = {"largest residual": float(solution.residuals.max())}
            more["P"] = float(problem.num_parameters)
            what = f"damped solve, λ = {share:g} tr/P, {label}"
            kept.add(Row(what, name, 1, products, plain, unit="products a query", more=more))


def main() -> None:
    kept = Kept("solves")
    savings("digits", digits(quick=True).trained(), kept)
    savings("digits_cnn", digits_cnn(quick=True).trained(), kept)


if __name__ == "__main__":
    main()
