"""A curvature with a policy of its own for negative eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from decomposition.curvature.base import Diagonalised
from decomposition.curvature.damped import FactoredDamping
from decomposition.damping import NegativeCurvature, as_policy


class UnderPolicy(Diagonalised):
    """The same matrix C = V diag(μ) Vᵀ; only its damped inverse follows ``policy`` throughout.

    The basis and the eigenvalues are those of the curvature given, made once for both.

    Args:
        curvature: C.
        policy: name or instance (see decomposition.damping); what a caller of ``solve`` asks
            for is overruled.

    Raises:
        DampingError: unknown name.
    """

    def __init__(self, curvature: Diagonalised, policy: str | NegativeCurvature) -> None:
        """Keep both."""
        self.curvature = curvature
        self.negative = as_policy(policy)
        self.size, self.device = curvature.size, curvature.device
        self._blocks: dict[str, Diagonalised] = {}
        self.notes = (*curvature.notes, f"negative eigenvalues: policy {self.negative.name}")

    def basis_values(self) -> Tensor:
        """μ."""
        return self.curvature.basis_values()

    def basis_key(self) -> object:
        """That of the curvature: gradients are rotated once for both."""
        return self.curvature.basis_key()

    def factored_damping(self) -> FactoredDamping | None:
        """That of the curvature."""
        return self.curvature.factored_damping()

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v."""
        return self.curvature.to_basis(v)

    def from_basis(self, c: Tensor) -> Tensor:
        """V c."""
        return self.curvature.from_basis(c)

    def basis_columns(self, panel: slice) -> Tensor:
        """V[:, panel]."""
        return self.curvature.basis_columns(panel)

    def dense(self) -> Tensor:
        """A copy of C."""
        return self.curvature.dense().clone()

    def trace(self) -> float:
        """tr C."""
        return self.curvature.trace()

    def frobenius_norm(self) -> float:
        """‖C‖_F."""
        return self.curvature.frobenius_norm()

    def diagonal_blocks(self) -> Mapping[str, Diagonalised]:
        """The blocks of C, each under the same policy."""
        assert self.negative is not None
        for name, block in self.curvature.diagonal_blocks().items():
            if name not in self._blocks and isinstance(block, Diagonalised):
                self._blocks[name] = UnderPolicy(block, self.negative)
        return self._blocks

    def _matvec(self, v: Tensor) -> Tensor:
        return self.curvature.matvec(v)
