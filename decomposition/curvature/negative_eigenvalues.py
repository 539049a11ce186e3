"""A curvature with a policy of its own for negative eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.estimate import Estimate
from decomposition.curvature.operator import (
    PROBES,
    Curvature,
    Diagonalised,
    NotAvailableError,
    Solutions,
    Solve,
)
from decomposition.damping import NegativeCurvature, as_policy


class UnderPolicy(Diagonalised):
    """The same matrix C in the same form; only its damped inverse follows ``policy`` throughout.

    Basis and eigenvalues, if it has them, are those of the curvature given, made once for both.

    Args:
        curvature: C.
        policy: name or instance (see decomposition.damping); what a caller of ``solve`` asks
            for is overruled.

    Raises:
        DampingError: unknown name.
    """

    def __init__(self, curvature: Curvature, policy: str | NegativeCurvature) -> None:
        """Keep the curvature and the policy."""
        self.curvature = curvature
        self._policy = as_policy(policy)
        self.negative = self._policy
        self.size, self.device = curvature.size, curvature.device
        self.matrix_free, self.definite = curvature.matrix_free, curvature.definite
        self.most_products = curvature.most_products
        self._blocks: dict[str, Curvature] = {}
        self.notes = (*curvature.notes, f"negative eigenvalues: policy {self._policy.name}")

    @property
    def eigenbasis(self) -> Diagonalised | None:
        """Itself where the curvature has one."""
        return None if self.curvature.eigenbasis is None else self

    @property
    def record(self) -> Sequence[Solve]:
        """The same as of the curvature itself."""
        return self.curvature.record

    def watched(self, told: Callable[[int], object]) -> AbstractContextManager[None]:
        """The same as of the curvature itself."""
        return self.curvature.watched(told)

    def eigenvalues(self) -> Tensor:
        """μ, ascending."""
        return self.curvature.eigenvalues()

    def basis_values(self) -> Tensor:
        """μ."""
        return self._basis().basis_values()

    def basis_key(self) -> object:
        """That of the curvature: gradients are rotated once for both."""
        return self._basis().basis_key()

    def factored_damping(self) -> FactoredDamping | None:
        """The same as of the curvature itself."""
        return self._basis().factored_damping()

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v."""
        return self._basis().to_basis(v)

    def from_basis(self, c: Tensor) -> Tensor:
        """V c."""
        return self._basis().from_basis(c)

    def basis_columns(self, panel: slice) -> Tensor:
        """V[:, panel]."""
        return self._basis().basis_columns(panel)

    def dense(self) -> Tensor:
        """A copy of C."""
        return self.curvature.dense().clone()

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C."""
        return self.curvature.trace(probes, seed)

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F."""
        return self.curvature.frobenius_norm(probes, seed)

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The blocks of C, each under the same policy."""
        for name, block in self.curvature.diagonal_blocks().items():
            self._blocks.setdefault(name, UnderPolicy(block, self._policy))
        return self._blocks

    def _basis(self) -> Diagonalised:
        found = self.curvature.eigenbasis
        if found is None:
            raise NotAvailableError(
                "this curvature has no eigenbasis under any policy: solve with it, or raise "
                "--memory until it is formed"
            )
        return found

    def _matvec(self, v: Tensor) -> Tensor:
        return self.curvature.matvec(v)

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        if self.eigenbasis is None:
            return self.curvature.solve(v, damping, self._policy)
        return super()._solve(v, damping, negative)

    def _solutions(
        self, v: Tensor, dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        if self.eigenbasis is None:
            return self.curvature.solutions(v, dampings, self._policy)
        return super()._solutions(v, dampings, negative)
