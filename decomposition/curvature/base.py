"""The one interface of every rung: dense, structured, or known only through its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.damped import DampedSpectrum, FactoredDamping
from decomposition.damping import NegativeCurvature, check_damping
from decomposition.device import CPU
from decomposition.errors import DampingError, DecompositionError


@dataclass(frozen=True)
class Solutions:
    """(C + λI)⁻¹ v for several λ."""

    x: Float[Tensor, "D P k"]
    """NaN where there is none."""
    change: Float[Tensor, "D k"]
    """Relative error as far as it is known: 0 of a direct solve, infinite without a solution."""
    failures: tuple[str, ...] = ()
    """Why there is none."""


class NotAvailableError(DecompositionError):
    """This curvature is not known well enough to answer: a solver alone has no spectrum."""


class Curvature(ABC):
    """A symmetric P × P matrix C, in parameter order, float64.

    A subclass need not be able to form the matrix: it implements what it can, and what it
    cannot do raises DecompositionError saying so.
    """

    size: int
    """P."""
    device: torch.device = CPU
    """Where the matrix lies, and the vectors that ``to_basis`` and ``from_basis`` are given."""
    notes: tuple[str, ...] = ()
    """What a reader of a result must know about this rung (degenerate basis, stand-ins)."""

    def matvec(self, v: Tensor) -> Tensor:
        """C v for v (P,) or (P, k), of the same shape and on the same device."""
        return self._columns(v, self._matvec)

    def solve(
        self, v: Tensor, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Tensor:
        """(C + λI)⁻¹ v for v (P,) or (P, k); ``negative`` says how eigenvalues below 0 count.

        A rung whose damping adds something else than λI says so in its ``notes``.

        Raises:
            DampingError: λ < 0, or the damped matrix is singular to working precision.
        """
        value = check_damping(damping)
        return self._columns(v, lambda columns: self._solve(columns, value, negative))

    def solutions(
        self,
        v: Float[Tensor, "P k"],
        dampings: Sequence[float],
        negative: str | NegativeCurvature = "absolute",
    ) -> Solutions:
        """``solve`` at several λ; where C is singular at one of them, there is no solution."""
        x = v.new_full((len(dampings), *v.shape), torch.nan)
        change = v.new_full((len(dampings), v.shape[1]), torch.inf)
        failures = []
        for i, damping in enumerate(dampings):
            try:
                x[i] = self.solve(v, damping, negative)
                change[i] = 0.0
            except DampingError as error:
                failures.append(f"at damping {damping:.3g}: {error}")
        return Solutions(x, change, tuple(failures))

    @abstractmethod
    def _matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]: ...

    @abstractmethod
    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: str | NegativeCurvature
    ) -> Float[Tensor, "P k"]: ...

    @abstractmethod
    def eigenvalues(self) -> Float[Tensor, " P"]:
        """All eigenvalues, ascending."""

    def dense(self) -> Float[Tensor, "P P"]:
        """The matrix itself."""
        return self._matvec(torch.eye(self.size, dtype=torch.float64, device=self.device))

    def trace(self) -> float:
        """tr C."""
        return float(self.eigenvalues().sum())

    def frobenius_norm(self) -> float:
        """‖C‖_F."""
        return float(torch.linalg.vector_norm(self.eigenvalues()))

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The diagonal block of every layer, by name; empty if there is no such structure."""
        return {}

    def _columns(self, v: Tensor, apply) -> Tensor:
        v = torch.as_tensor(np.array(v) if isinstance(v, np.ndarray) else v).detach()
        where = v.device
        if v.ndim not in (1, 2) or len(v) != self.size:
            raise DecompositionError(
                f"a vector for this curvature has shape ({self.size},) or ({self.size}, k), "
                f"got {tuple(v.shape)}"
            )
        v = v.to(self.device, torch.float64)
        return (apply(v[:, None])[:, 0] if v.ndim == 1 else apply(v)).to(where)


class Diagonalised(Curvature):
    """A curvature C = V diag(μ) Vᵀ with an orthonormal basis V that may be implicit.

    Coordinates in the basis are cheap to rescale: a new damping costs P multiplications.
    """

    negative: NegativeCurvature | None = None
    """A policy of its own for negative eigenvalues, which overrules every caller's."""

    @abstractmethod
    def basis_values(self) -> Float[Tensor, " P"]:
        """μ in the order of the basis."""

    @abstractmethod
    def to_basis(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """Vᵀ v."""

    @abstractmethod
    def from_basis(self, c: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """V c."""

    def basis_key(self) -> object:
        """Equal for curvatures that share one basis."""
        return id(self)

    def factored_damping(self) -> FactoredDamping | None:
        """What λ adds besides itself, in the order of the basis; None: λI alone is added."""
        return None

    def spectrum(self) -> DampedSpectrum:
        """μ and how λ enters the inverse: what every user of a damped inverse asks."""
        return DampedSpectrum(self.basis_values(), self.factored_damping(), self.negative)

    def basis_columns(self, panel: slice) -> Float[Tensor, "P panel"]:
        """Eigenvectors ``panel`` of V, dense."""
        count = panel.stop - panel.start
        unit = torch.zeros(self.size, count, dtype=torch.float64, device=self.device)
        unit[panel].fill_diagonal_(1.0)
        return self.from_basis(unit)

    def eigenvalues(self) -> Tensor:
        """μ, ascending."""
        return self.basis_values().sort().values

    def _matvec(self, v: Tensor) -> Tensor:
        return self.from_basis(self.basis_values()[:, None] * self.to_basis(v))

    def _solve(self, v: Tensor, damping: float, negative: str | NegativeCurvature) -> Tensor:
        inverse = self.spectrum().inverse(damping, negative)
        return self.from_basis(inverse[:, None] * self.to_basis(v))
