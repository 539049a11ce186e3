"""‖A − B‖²_F between curvatures that have matrices: of every pair, and pair of blocks, once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature import BlockDiagonal, Curvature, DenseCurvature, Diagonalised

ROWS = 64
"""Rows of a matrix that are taken at a time, so that no second matrix is formed."""


class Distances:
    """Squared Frobenius distances; those that were asked for are kept, and those of blocks.

    In a common basis it is the distance of the eigenvalues: exact even where they nearly agree.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._found: dict[tuple[int, int], float] = {}
        self._kept: list[Curvature] = []  # an id is a key only while its object lives

    def squared(self, a: Curvature, b: Curvature) -> float:
        """‖A − B‖²_F."""
        return self._once((id(a), id(b)), (a, b), lambda: self._between(a, b))

    def _once(
        self, key: tuple[int, int], who: tuple[Curvature, ...], compute: Callable[[], float]
    ) -> float:
        if key not in self._found:
            self._found[key] = self._found[key[1], key[0]] = compute()
            self._kept += who
        return self._found[key]

    def _between(self, a: Curvature, b: Curvature) -> float:
        if alike(a, b):
            assert isinstance(a, Diagonalised)
            assert isinstance(b, Diagonalised)
            return float((a.basis_values() - b.basis_values()).square().sum())
        if isinstance(a, DenseCurvature) and isinstance(b, BlockDiagonal):
            a, b = b, a
        if isinstance(a, BlockDiagonal) and isinstance(b, DenseCurvature):
            if same_blocks(a, b):
                return self._of_blocks(a, b) + self._once((id(b), 0), (b,), lambda: _beside(b))
            return _apart(a, b)
        if isinstance(a, BlockDiagonal) and isinstance(b, BlockDiagonal) and same_blocks(a, b):
            return self._of_blocks(a, b)
        return gap(a.dense(), b.dense())

    def _of_blocks(self, a: Curvature, b: Curvature) -> float:
        pairs = zip(a.diagonal_blocks().values(), b.diagonal_blocks().values(), strict=True)
        return sum(self.squared(x, y) for x, y in pairs)


def squared_distance(a: Curvature, b: Curvature) -> float:
    """‖A − B‖²_F of one pair."""
    return Distances().squared(a, b)


def alike(a: Curvature, b: Curvature) -> bool:
    """Whether both have one basis."""
    if not (isinstance(a, Diagonalised) and isinstance(b, Diagonalised)):
        return False
    return a.eigenbasis is not None and b.eigenbasis is not None and a.basis_key() == b.basis_key()


def same_blocks(a: Curvature, b: Curvature) -> bool:
    """Whether both have diagonal blocks of the same sizes, which make up the whole."""
    mine, theirs = ([part.size for part in x.diagonal_blocks().values()] for x in (a, b))
    return mine == theirs and sum(mine) == a.size


def gap(x: Float[Tensor, "n m"], y: Float[Tensor, "n m"]) -> float:
    """‖X − Y‖²_F."""
    parts = zip(x.split(ROWS), y.split(ROWS), strict=True)
    return sum(float(torch.linalg.vector_norm(one - other)) ** 2 for one, other in parts)


def inner(x: Float[Tensor, "n m"], y: Float[Tensor, "n m"], z: Float[Tensor, "n m"]) -> float:
    """⟨X − Y, Z⟩."""
    parts = zip(x.split(ROWS), y.split(ROWS), z.split(ROWS), strict=True)
    return sum(float(((one - other) * third).sum()) for one, other, third in parts)


def beside(matrix: Float[Tensor, "P P"], start: int, stop: int) -> float:
    """What the rows of one block make of a squared norm, beside it and in the mirror image."""
    return 2.0 * float(torch.linalg.vector_norm(matrix[start:stop, stop:])) ** 2


def _beside(whole: DenseCurvature) -> float:
    total, start = 0.0, 0
    for block in whole.diagonal_blocks().values():
        stop = start + block.size
        total += beside(whole.matrix, start, stop)
        start = stop
    return total


def _apart(blocks: BlockDiagonal, whole: DenseCurvature) -> float:
    """Of a matrix that knows nothing of these blocks."""
    total, start = 0.0, 0
    for block in blocks.diagonal_blocks().values():
        stop = start + block.size
        total += gap(block.dense(), whole.matrix[start:stop, start:stop])
        total += beside(whole.matrix, start, stop)
        start = stop
    return total
