"""The reference rung: the exact Hessian H of the mean training loss."""

from __future__ import annotations

from decomposition.curvature import DenseCurvature
from decomposition.curvature.assembly import assemble_hessian
from decomposition.problem import Problem


def hessian(problem: Problem) -> DenseCurvature:
    """H = (1/N) Σ ∇²_θ ℓ_n, and the weight decay where it is part of the curvature."""
    matrix = assemble_hessian(problem)
    matrix.diagonal().add_(problem.curvature_decay)
    return DenseCurvature(matrix, {b.name: b.slice for b in problem.blocks})
