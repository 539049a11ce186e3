"""A curvature without coupling between layers: one curvature per block, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decomposition.curvature.base import Diagonalised
from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.dense import DenseCurvature
from decomposition.errors import DecompositionError


class BlockDiagonal(Diagonalised):
    """⊕_l C_l with the blocks in parameter order.

    Args:
        blocks: name → curvature of that layer, or its symmetric matrix, in parameter order.
    """

    def __init__(self, blocks: Mapping[str, Diagonalised | Tensor]) -> None:
        """Lay the blocks out one after the other."""
        if not blocks:
            raise DecompositionError("a block-diagonal curvature needs at least one block")
        self._blocks: dict[str, Diagonalised] = {
            name: block if isinstance(block, Diagonalised) else DenseCurvature(block)
            for name, block in blocks.items()
        }
        self._slices: dict[str, slice] = {}
        start = 0
        for name, block in self._blocks.items():
            self._slices[name] = slice(start, start + block.size)
            start += block.size
        self.size = start
        places = {str(block.device) for block in self._blocks.values()}
        if len(places) > 1:
            raise DecompositionError(f"the blocks lie on {' and '.join(sorted(places))}: use one")
        self.device = next(iter(self._blocks.values())).device
        self.notes = tuple(note for block in self._blocks.values() for note in block.notes)
        policies = {block.negative for block in self._blocks.values()}
        if len(policies) > 1:
            raise DecompositionError(
                "some blocks have a policy of their own for negative eigenvalues: give it to the "
                "whole curvature, UnderPolicy(BlockDiagonal(…), policy)"
            )
        self.negative = policies.pop()

    def diagonal_blocks(self) -> Mapping[str, Diagonalised]:
        """The blocks themselves."""
        return self._blocks

    def dense(self) -> Tensor:
        """The (P, P) matrix, zero between layers."""
        out = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.device)
        for name, block in self._blocks.items():  # one at a time, to hold no block twice
            part = self._slices[name]
            out[part, part] = block.dense()
        return out

    def basis_values(self) -> Tensor:
        """Eigenvalues of the first block, then of the second, …"""
        return torch.cat([block.basis_values() for block in self._blocks.values()])

    def factored_damping(self) -> FactoredDamping | None:
        """That of the first block, then of the second, …; λ alone for blocks without."""
        parts = [(block.size, block.factored_damping()) for block in self._blocks.values()]
        if all(part is None for _, part in parts):
            return None
        return FactoredDamping.joined(
            [part or FactoredDamping.none(n, self.device) for n, part in parts]
        )

    def basis_key(self) -> object:
        """The blocks' bases."""
        return tuple(block.basis_key() for block in self._blocks.values())

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v, block by block."""
        return self._each(v, lambda block, part: block.to_basis(part))

    def from_basis(self, c: Tensor) -> Tensor:
        """V c, block by block."""
        return self._each(c, lambda block, part: block.from_basis(part))

    def _matvec(self, v: Tensor) -> Tensor:
        return self._each(v, lambda block, part: block.matvec(part))

    def trace(self) -> float:
        """Σ_l tr C_l."""
        return sum(block.trace() for block in self._blocks.values())

    def frobenius_norm(self) -> float:
        """√Σ_l ‖C_l‖²_F."""
        return sum(block.frobenius_norm() ** 2 for block in self._blocks.values()) ** 0.5

    def _each(self, v: Tensor, apply) -> Tensor:
        parts = [apply(block, v[self._slices[name]]) for name, block in self._blocks.items()]
        return torch.cat(parts)
