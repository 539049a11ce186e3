"""Step `cross_layer`: drop the coupling between layers, G → B = ⊕_l G_ll."""

from __future__ import annotations

from decomposition.curvature import BlockDiagonal, DenseCurvature


def block_diagonal(full: DenseCurvature) -> BlockDiagonal:
    """⊕_l C_ll of a full curvature; the blocks are views, not copies."""
    return BlockDiagonal(full.diagonal_blocks())
