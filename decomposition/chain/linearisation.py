"""Step `linearisation`: drop the model's second derivatives, H → G."""

from __future__ import annotations

from decomposition.curvature import EXACT, DenseCurvature, Fisher
from decomposition.curvature.assembly import assemble_ggn
from decomposition.problem import Problem


def ggn(problem: Problem, fisher: Fisher = EXACT) -> DenseCurvature:
    """G = (1/N) Σ J_nᵀ Λ_n J_n (Schraudolph 2002): H without the term Σ_c (∇_f ℓ)_c ∇²_θ f_c.

    A sampled or empirical ``fisher`` takes the place of Λ.
    """
    return DenseCurvature(assemble_ggn(problem, fisher), {b.name: b.slice for b in problem.blocks})
