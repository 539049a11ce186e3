"""Step `cross_layer`: drop the coupling between layers, G → B = ⊕_l G_ll."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from decomposition.curvature import BlockDiagonal, Curvature, DenseCurvature
from decomposition.layers import Block, ExactBlock

PARTS = ("weight", "bias")


def block_diagonal(full: DenseCurvature) -> BlockDiagonal:
    """⊕_l C_ll of a full curvature; the blocks are views, not copies."""
    return BlockDiagonal(full.diagonal_blocks())


def separate_bias(full: DenseCurvature, blocks: Iterable[Block]) -> BlockDiagonal:
    """⊕_l (C_WW ⊕ C_bb): the coupling of a layer's weight with its bias is dropped as well."""
    layers = full.diagonal_blocks()
    return in_parts(
        {
            block.name: {
                name: DenseCurvature(layers[block.name].matrix[part, part])
                for name, part in parts_of(block).items()
            }
            for block in blocks
        }
    )


def parts_of(block: Block) -> dict[str, slice]:
    """Where a layer's weight and its bias lie within it; one part if there is nothing to part.

    Layers without a bias and exact blocks stay whole.
    """
    if isinstance(block, ExactBlock) or not block.bias:
        return {"layer": slice(0, block.size)}
    split = block.d_out * block.d_in
    return dict(zip(PARTS, (slice(0, split), slice(split, block.size)), strict=True))


def in_parts(layers: Mapping[str, Mapping[str, Curvature]]) -> BlockDiagonal:
    """⊕_l of layers in one or several parts: each layer keeps a block of its own."""
    return BlockDiagonal(
        {
            name: next(iter(parts.values())) if len(parts) == 1 else BlockDiagonal(parts)
            for name, parts in layers.items()
        }
    )
