"""The k leading eigenpairs of G, and the rest at its mean or dropped.

V diag(μ_1 … μ_k) Vᵀ + ρ (I − V Vᵀ) with ρ = (tr G − Σ μ) / (P − k); with ``rest="drop"`` the
other directions have no influence at all (Schioppa et al. 2022, *Scaling Up Influence Functions*,
arXiv 2112.03052, who find the eigenpairs by Arnoldi iteration).

Cost: G's own eigenpairs where it is decomposed anyway; otherwise about 3 k products with G
(implicitly restarted Lanczos, ARPACK) and 2 k + 20 vectors of P numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from torch import Tensor

from decomposition.chain.approximations.method import Method
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.shared_factors import Parts
from decomposition.checks import one_of, seed, whole
from decomposition.curvature import Curvature, DenseCurvature, EigenpairCurvature
from decomposition.curvature.solution import SolverError
from decomposition.linalg import from_numpy
from decomposition.problem import Problem

RULES = {"k": whole(1), "seed": seed, "rest": one_of("mean", "drop")}
TOLERANCE = 1e-8
"""Of eigenvalues that are iterated for, relative."""


@dataclass(frozen=True)
class LowRank(Method):
    """V diag(μ) Vᵀ + ρ (I − V Vᵀ)."""

    name = "low_rank"
    summary = "the K leading eigenpairs of the GGN (default 100), the rest at its mean"
    form = "low-rank"
    words = {"drop": {"rest": "drop"}}  # noqa: RUF012
    rules = RULES

    k: int = 100
    """Eigenpairs, at most P."""
    seed: int = 0
    """Seed of the start vector."""
    rest: Literal["mean", "drop"] = "mean"
    """mean: every other eigenvalue is their mean. drop: they have no influence."""

    def memory(self, problem: Problem) -> int:
        """Lanczos vectors, eigenvectors and reflectors."""
        p = problem.num_parameters
        return 8 * p * (min(p, 2 * self.k + 20) + 2 * min(p, self.k))

    def cost(self, costs: Costs) -> Cost:
        """Products of the iteration, as if G were not decomposed anyway."""
        build, product = costs.product("ggn")
        k = min(self.k, costs.size)
        if self.rest == "mean":  # the trace of G is that of EK-FAC
            build = build + costs.ekfac().build
        along = Work(multiplications=2 * k * costs.size)
        again = along + Work(multiplications=costs.examples * costs.size)
        held = self.memory(costs.problem) + costs.held("ggn")
        return Cost(build, product * (3 * k), costs.query + along, again, held)

    def made(self, parts: Parts) -> EigenpairCurvature:
        """From the GGN as the plan has it."""
        ggn, size = parts.ggn(), parts.problem.num_parameters
        k = min(self.k, size)
        values, vectors = _leading(ggn, k, self.seed)
        if self.rest == "drop":
            return EigenpairCurvature(values, vectors, None)
        trace = parts.ekfac().trace()  # tr E = tr G
        rest = max(0.0, trace - float(values.sum())) / max(1, size - k)
        return EigenpairCurvature(values, vectors, rest)


def _leading(ggn: Curvature, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ascending."""
    if isinstance(ggn, DenseCurvature):
        values, vectors = ggn.decomposition()
        return values[-k:], vectors[:, -k:].contiguous()
    if k == ggn.size:
        eye = torch.eye(k, dtype=torch.float64, device=ggn.device)
        return DenseCurvature(ggn.matvec(eye)).decomposition()
    start = np.random.default_rng(seed).standard_normal(ggn.size)
    basis = min(ggn.size, 2 * k + 20)
    try:
        found = eigsh(ggn.to_scipy(), k, which="LA", v0=start, ncv=basis, tol=TOLERANCE)  # pyright: ignore[reportArgumentType]
    except ArpackNoConvergence as error:
        raise SolverError(
            f"low_rank: {len(error.eigenvalues)} of {k} eigenpairs of the GGN have settled: take "
            "fewer"
        ) from error
    values, vectors = (from_numpy(np.ascontiguousarray(one), ggn.device) for one in found)
    return values, torch.linalg.qr(vectors)[0]
