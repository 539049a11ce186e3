"""Step `eigenvalues`: products of the factors' eigenvalues instead of exact ones, E → K."""

from __future__ import annotations

from collections.abc import Mapping

from decomposition.curvature import BlockDiagonal, KroneckerBasis, KroneckerCurvature


def kfac(bases: Mapping[str, KroneckerBasis]) -> BlockDiagonal:
    """⊕_l A_l ⊗ S_l, in the same eigenbasis as EK-FAC."""
    blocks = {name: KroneckerCurvature(basis, basis.products()) for name, basis in bases.items()}
    return BlockDiagonal(blocks)
