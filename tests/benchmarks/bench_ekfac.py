"""EK-FAC against curvlinops: `python -m tests.benchmarks.bench_ekfac` (needs the extra `oracle`).

What EK-FAC is made of (Kronecker factors, their eigenbases, and the exact curvature along these),
K-FAC *expand* with the sum over all labels (type-2), float64, on the linear blocks of an MLP, of a
convolutional network and of a transformer. curvlinops 3.0.1 gets the same parameters and examples,
in batches of the size that suits it best. The results are compared as well: both libraries compute
the same numbers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decomposition import Problem
from decomposition.curvature.factors import ggn_diagonals, kronecker_bases, kronecker_factors
from decomposition.inputs import double
from decomposition.layers import LinearBlock
from tests.benchmarks.measuring import Kept, Row, thread_counts, threads
from tests.benchmarks.networks import NETWORKS

ROUNDS = 3
PARTS = 10, 4, 1
"""Batches that curvlinops is given the examples in."""
STAGES = ("factors", "basis", "correction")
Spent = np.ndarray
"""Seconds of the stages."""


def timed(action: Callable[[], Any], spent: list[float]) -> Any:
    start = time.perf_counter()
    result = action()
    spent.append(time.perf_counter() - start)
    return result


def ours(problem: Problem) -> tuple[Spent, dict[str, Tensor]]:
    spent: list[float] = []
    factors = timed(lambda: kronecker_factors(problem), spent)
    bases = timed(lambda: kronecker_bases(problem, factors), spent)
    diagonals = timed(lambda: ggn_diagonals(problem, bases), spent)
    return np.array(spent), diagonals


def theirs(problem: Problem, batch: int) -> tuple[Spent, dict[str, Tensor]]:
    import curvlinops

    model, (x, y) = problem.double_model(), problem.train
    x, n = double(x), problem.num_examples
    data = [(x[i : i + batch], y[i : i + batch]) for i in range(0, n, batch)]
    blocks = [block.name for block in problem.blocks if isinstance(block, LinearBlock)]
    parameters = [p for name in blocks for p in model.get_submodule(name).parameters()]
    operator = curvlinops.EKFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        parameters,
        data,
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    spent: list[float] = []
    timed(operator.compute_kronecker_factors, spent)
    timed(operator._compute_eigenvectors, spent)
    timed(operator.compute_eigenvalue_correction, spent)
    return np.array(spent), operator._corrected_eigenvalues


def gap(mine: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of sorted eigenvalues over the largest eigenvalue of the layer."""
    return max(
        float((mine[name].flatten().sort()[0] - other[name].flatten().sort()[0]).abs().max())
        / float(mine[name].max())
        for name in mine
    )


def measure(name: str, problem: Problem, kept: Kept) -> None:
    """In turn."""
    for count in thread_counts():
        found: dict[int, list[Spent]] = {}  # by the rival's batches; 0: ours
        worst = 0.0
        with threads(count):
            for _ in range(ROUNDS):
                spent, values = ours(problem)
                found.setdefault(0, []).append(spent)
                for parts in PARTS:
                    spent, other = theirs(problem, problem.num_examples // parts)
                    found.setdefault(parts, []).append(spent)
                    worst = max(worst, gap(values, other))
        best = {parts: min(spent, key=np.sum) for parts, spent in found.items()}
        parts = min(PARTS, key=lambda parts: float(best[parts].sum()))
        kfac, rival = best[0][:2].sum(), best[parts][:2].sum()
        more: dict[str, float | str] = dict(zip(STAGES, map(float, best[0]), strict=True))
        names = (f"{stage} (rival)" for stage in STAGES)
        more |= zip(names, map(float, best[parts]), strict=True)
        more |= {"rival's batch": problem.num_examples // parts, "eigenvalues differ by": worst}
        kept.add(Row("EK-FAC", name, count, best[0].sum(), best[parts].sum(), more=more))
        kept.add(Row("K-FAC", name, count, kfac, rival))


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    kept = Kept("ekfac")
    for name in names or NETWORKS:
        measure(name, NETWORKS[name](), kept)


if __name__ == "__main__":
    main(sys.argv[1:])
