"""A curvature without coupling between layers whose blocks need not have an eigenbasis."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decomposition.curvature.base import Curvature, Solutions
from decomposition.damping import NegativeCurvature


class Blockwise(Curvature):
    """⊕_l C_l.

    Args:
        blocks: name → curvature of that layer, in parameter order.
    """

    def __init__(self, blocks: Mapping[str, Curvature]) -> None:
        """Lay the blocks out one after the other."""
        self._blocks = dict(blocks)
        self.size = sum(block.size for block in self._blocks.values())
        self.device = next(iter(self._blocks.values())).device
        self.notes = tuple(note for block in self._blocks.values() for note in block.notes)

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The blocks themselves."""
        return self._blocks

    def eigenvalues(self) -> Tensor:
        """Of all blocks, ascending."""
        return torch.cat([block.eigenvalues() for block in self._blocks.values()]).sort().values

    def trace(self) -> float:
        """Σ_l tr C_l."""
        return sum(block.trace() for block in self._blocks.values())

    def frobenius_norm(self) -> float:
        """√Σ_l ‖C_l‖²_F."""
        return sum(block.frobenius_norm() ** 2 for block in self._blocks.values()) ** 0.5

    def _solutions(
        self, v: Tensor, dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        """Of every block; where one of them has none, there is none."""
        parts, start = [], 0
        for block in self._blocks.values():
            parts.append(block.solutions(v[start : start + block.size], dampings, negative))
            start += block.size
        change = torch.stack([part.change for part in parts]).amax(0)
        x = torch.cat([part.x for part in parts], 1)
        x = torch.where(torch.isfinite(change)[:, None], x, torch.nan)
        failures = dict.fromkeys(text for part in parts for text in part.failures)
        return Solutions(x, change, tuple(failures))

    def _matvec(self, v: Tensor) -> Tensor:
        return self._each(v, lambda block, part: block.matvec(part))

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        return self._each(v, lambda block, part: block.solve(part, damping, negative))

    def _each(self, v: Tensor, apply) -> Tensor:
        found, start = [], 0
        for block in self._blocks.values():
            found.append(apply(block, v[start : start + block.size]))
            start += block.size
        return torch.cat(found)
