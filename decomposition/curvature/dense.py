"""A curvature held as a matrix; its eigendecomposition is made once, when first needed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.estimate import Estimate
from decomposition.curvature.operator import PROBES, Diagonalised
from decomposition.errors import DecompositionError, NonFiniteError
from decomposition.ledger import DECOMPOSE, spending
from decomposition.linalg import eigh, matmul
from decomposition.reals import real_tensor

SYMMETRY_TOLERANCE = 1e-8


class DenseCurvature(Diagonalised):
    """C given as a symmetric (P, P) float64 matrix.

    Args:
        matrix: symmetric (P, P); not copied.
        blocks: name → slice of each layer's parameters, for ``diagonal_blocks``.

    Raises:
        DecompositionError: not real numbers, not square, not finite, or not symmetric.
    """

    def __init__(
        self, matrix: Float[Tensor, "P P"], blocks: Mapping[str, slice] | None = None
    ) -> None:
        """Check and keep the matrix."""
        matrix = real_tensor(matrix, "a curvature matrix")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise DecompositionError(f"a curvature is square, got shape {tuple(matrix.shape)}")
        self.matrix = matrix
        self.size, self.device = len(matrix), matrix.device
        self._slices = dict(blocks or {})
        self._blocks: dict[str, DenseCurvature] = {}
        self._eigen: tuple[Tensor, Tensor] | None = None
        self._account = object()
        _check_symmetric(self.matrix)

    def dense(self) -> Tensor:
        """The matrix (not a copy)."""
        return self.matrix

    def _matvec(self, v: Tensor) -> Tensor:
        return matmul(self.matrix, v.contiguous())

    def decomposition(self) -> tuple[Float[Tensor, " P"], Float[Tensor, "P P"]]:
        """Eigenvalues, ascending, and eigenvectors in columns."""
        with spending(self._account, DECOMPOSE):
            if self._eigen is None:
                self._eigen = eigh(self.matrix)
            return self._eigen

    def basis_values(self) -> Tensor:
        """μ, ascending."""
        return self.decomposition()[0]

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v."""
        return matmul(self.decomposition()[1].T, v)

    def from_basis(self, c: Tensor) -> Tensor:
        """V c."""
        return matmul(self.decomposition()[1], c)

    def basis_columns(self, places: slice | Tensor) -> Tensor:
        """V[:, places]."""
        return self.decomposition()[1][:, places]

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C, exactly."""
        return Estimate(float(self.matrix.diagonal().sum()))

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F, exactly."""
        return Estimate(float(torch.linalg.vector_norm(self.matrix)))

    def diagonal_blocks(self) -> Mapping[str, DenseCurvature]:
        """Views of the layers' diagonal blocks, each decomposed at most once."""
        for name, part in self._slices.items():
            if name not in self._blocks:
                self._blocks[name] = DenseCurvature(self.matrix[part, part])
        return self._blocks


def _check_symmetric(matrix: Tensor) -> None:
    """Compare row panels with column panels, so that no second matrix is formed."""
    scale = float(matrix.abs().max()) if len(matrix) else 0.0
    if scale != scale or scale == float("inf"):
        row = int(torch.nonzero(~torch.isfinite(matrix).all(1))[0])
        raise NonFiniteError(f"the curvature matrix has a non-finite entry in row {row}")
    for start in range(0, len(matrix), 512):
        panel = slice(start, start + 512)
        gap = float((matrix[panel, start:] - matrix[start:, panel].T).abs().max())
        if gap > SYMMETRY_TOLERANCE * scale:
            raise DecompositionError(
                f"the curvature matrix is not symmetric: entries near row {start} differ from "
                f"their mirror images by {gap:.3g} (largest entry {scale:.3g}); pass (C + C.T) / 2"
            )
