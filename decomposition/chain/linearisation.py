"""Step `linearisation`: drop the model's second derivatives, H → G.

    H = (1/N) Σ ∇²_θ ℓ_n                 the reference
    G = (1/N) Σ J_nᵀ Λ_n J_n             (Schraudolph 2002): H without Σ_c (∇_f ℓ)_c ∇²_θ f_c

A sampled or empirical Fisher takes the place of Λ. With the weight decay where it is part of the
curvature.
"""

from __future__ import annotations

from collections.abc import Sequence

from decomposition.curvature import EXACT, DenseCurvature, Fisher
from decomposition.curvature.assembly import assemble_ggn, assemble_hessian
from decomposition.curvature.derivatives import check_second_derivatives
from decomposition.curvature.gram import block_ggns
from decomposition.errors import NonFiniteError
from decomposition.layers import ExactBlock
from decomposition.problem import Problem


def hessian(problem: Problem) -> DenseCurvature:
    """H as a matrix.

    Raises:
        NonFiniteError: second derivatives are not finite; the message names the example.
    """
    matrix = assemble_hessian(problem)
    matrix.diagonal().add_(problem.curvature_decay)
    try:
        return DenseCurvature(matrix, {b.name: b.slice for b in problem.blocks})
    except NonFiniteError:
        check_second_derivatives(problem)
        raise


def ggn(problem: Problem, fisher: Fisher = EXACT) -> DenseCurvature:
    """G as a matrix, or that of another Fisher."""
    matrix = assemble_ggn(problem, fisher)
    matrix.diagonal().add_(problem.curvature_decay)
    return DenseCurvature(matrix, {b.name: b.slice for b in problem.blocks})


def ggn_blocks(
    problem: Problem, chosen: Sequence[ExactBlock], fisher: Fisher = EXACT
) -> list[tuple[ExactBlock, DenseCurvature]]:
    """G_ll of some blocks alone, each from its own rows of the Jacobian."""
    found = []
    for block, matrix in zip(chosen, block_ggns(problem, chosen, fisher), strict=True):
        matrix.diagonal().add_(problem.curvature_decay)
        found.append((block, DenseCurvature(matrix)))
    return found
