"""Step `cross_layer`: drop the coupling between layers, G → B = ⊕_l G_ll."""

from __future__ import annotations

from collections.abc import Iterable

from decomposition.curvature import BlockDiagonal, DenseCurvature
from decomposition.layers import Block, ExactBlock


def block_diagonal(full: DenseCurvature) -> BlockDiagonal:
    """⊕_l C_ll of a full curvature; the blocks are views, not copies."""
    return BlockDiagonal(full.diagonal_blocks())


def separate_bias(full: DenseCurvature, blocks: Iterable[Block]) -> BlockDiagonal:
    """⊕_l (C_WW ⊕ C_bb): the coupling of a layer's weight with its bias is dropped as well.

    Each layer keeps a block of its own, in two parts; those without a bias and exact
    blocks are left as they are.
    """
    layers = full.diagonal_blocks()
    return BlockDiagonal({block.name: _parted(layers[block.name], block) for block in blocks})


def _parted(layer: DenseCurvature, block: Block) -> DenseCurvature | BlockDiagonal:
    if isinstance(block, ExactBlock) or not block.bias:
        return layer
    split = block.d_out * block.d_in
    matrix = layer.matrix
    return BlockDiagonal({"weight": matrix[:split, :split], "bias": matrix[split:, split:]})
