"""Step `linearisation`: drop the model's second derivatives, H → G."""

from __future__ import annotations

from decomposition.curvature import DenseCurvature
from decomposition.curvature.assembly import assemble_ggn
from decomposition.problem import Problem


def ggn(problem: Problem) -> DenseCurvature:
    """G = (1/N) Σ J_nᵀ Λ_n J_n (Schraudolph 2002): H without the term Σ_c (∇_f ℓ)_c ∇²_θ f_c."""
    return DenseCurvature(assemble_ggn(problem), {b.name: b.slice for b in problem.blocks})
