"""Step `eigenbasis`: force the Kronecker eigenbasis, keep the best eigenvalues in it, B → E."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from decomposition.curvature import BlockDiagonal, KroneckerBasis, KroneckerCurvature


def in_kronecker_basis(
    bases: Mapping[str, KroneckerBasis], diagonals: Mapping[str, Tensor]
) -> BlockDiagonal:
    """⊕_l Q_l diag(d_l) Q_lᵀ with d_l = diag(Q_lᵀ C_ll Q_l): Frobenius-optimal in its basis."""
    blocks = {name: KroneckerCurvature(basis, diagonals[name]) for name, basis in bases.items()}
    return BlockDiagonal(blocks)
