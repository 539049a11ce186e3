"""Step `linearisation`: drop the model's second derivatives, H → G."""

from __future__ import annotations

from collections.abc import Sequence

from decomposition.curvature import EXACT, DenseCurvature, Fisher
from decomposition.curvature.assembly import assemble_ggn
from decomposition.curvature.fisher import jacobian_rows
from decomposition.layers import ExactBlock
from decomposition.linalg import matmul
from decomposition.problem import Problem


def ggn(problem: Problem, fisher: Fisher = EXACT) -> DenseCurvature:
    """G = (1/N) Σ J_nᵀ Λ_n J_n (Schraudolph 2002): H without the term Σ_c (∇_f ℓ)_c ∇²_θ f_c.

    A sampled or empirical ``fisher`` takes the place of Λ. With the weight decay where it is part
    of the curvature, here and in ``blocks``.
    """
    matrix = assemble_ggn(problem, fisher)
    matrix.diagonal().add_(problem.curvature_decay)
    return DenseCurvature(matrix, {b.name: b.slice for b in problem.blocks})


def blocks(
    problem: Problem, chosen: Sequence[ExactBlock], fisher: Fisher = EXACT
) -> list[tuple[ExactBlock, DenseCurvature]]:
    """G_ll of some blocks alone, each from its own rows of the Jacobian."""
    found = []
    for block in chosen:
        like = problem.theta()
        total = like.new_zeros(block.size, block.size)
        for rows in jacobian_rows(problem, fisher, [block]):
            flat = rows.flatten(0, 1)
            total += matmul(flat.T, flat)
        total.div_(problem.num_examples).diagonal().add_(problem.curvature_decay)
        found.append((block, DenseCurvature(total)))
    return found
