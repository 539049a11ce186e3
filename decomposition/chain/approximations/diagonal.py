"""diag(G): every parameter by itself.

For a linear layer G_(ij),(ij) = (1/N) Σ_n Σ_c (Σ_t s_n,c,t,i a_n,t,j)², which is EK-FAC's
correction (George et al. 2018, arXiv 1806.03884) in the basis of the parameters themselves.

Cost: one pass over the examples with C backward passes, N P C multiplications; P numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decomposition.chain.approximations.method import Method
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import KroneckerBasis
from decomposition.curvature.diagonal import DiagonalCurvature
from decomposition.curvature.factor_basis import FactorBasis
from decomposition.curvature.factors import ggn_diagonals
from decomposition.layers import LinearBlock
from decomposition.problem import Problem


@dataclass(frozen=True)
class Diagonal(Method):
    """diag(G)."""

    name = "diagonal"
    summary = "the diagonal of the GGN"
    form = "diagonal"

    def cost(self, costs: Costs) -> Cost:
        """One pass, and the numbers of a vector."""
        scaled = Work(multiplications=costs.size)
        again = scaled + Work(multiplications=costs.examples * costs.size)
        build = costs.along_bases(costs.problem.num_outputs)
        return Cost(build, Work(), costs.query + scaled, again, 8 * costs.size)

    def made(self, parts: Parts) -> DiagonalCurvature:
        """From the layers' terms, and from the blocks that stand in."""
        problem = parts.problem
        linear = {b.name: b for b in problem.blocks if isinstance(b, LinearBlock)}
        found = ggn_diagonals(problem, {n: _parameters(b, problem) for n, b in linear.items()})
        values = torch.empty(problem.num_parameters, dtype=torch.float64, device=problem.device)
        for name, block in linear.items():
            values[block.slice] = block.from_matrix(found[name][..., None])[:, 0]
        values += problem.curvature_decay
        for block, exact in parts.stand_ins():
            values[block.slice] = exact.dense().diagonal()
        return DiagonalCurvature(values)


def _parameters(block: LinearBlock, problem: Problem) -> KroneckerBasis:
    """I ⊗ I."""

    def identity(size: int) -> FactorBasis:
        eye = torch.eye(size, dtype=torch.float64, device=problem.device)
        expanded = eye if block.groups == 1 else eye.expand(block.groups, size, size)
        return FactorBasis.of_vectors(expanded)

    return KroneckerBasis(block, identity(block.width), identity(block.d_out // block.groups))
