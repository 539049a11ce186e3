"""A curvature that is a diagonal matrix: its basis is that of the parameters themselves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.operator import Diagonalised


class DiagonalCurvature(Diagonalised):
    """diag(μ) for μ (P,)."""

    def __init__(self, values: Float[Tensor, " P"]) -> None:
        """Keep the diagonal."""
        self.size, self.device = len(values), values.device
        self._values = values

    def basis_values(self) -> Tensor:
        """μ in parameter order."""
        return self._values

    def to_basis(self, v: Tensor) -> Tensor:
        """The vector itself."""
        return v

    def from_basis(self, c: Tensor) -> Tensor:
        """The vector itself."""
        return c

    def basis_key(self) -> object:
        """The parameters' own: equal for all diagonal matrices."""
        return DiagonalCurvature

    def dense(self) -> Tensor:
        """The (P, P) matrix."""
        return torch.diag(self._values)
