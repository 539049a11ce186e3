"""Curvatures of the user's own: from eigenpairs, from blocks, or from a solver."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.base import Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.dense import DenseCurvature
from decomposition.damping import NegativeCurvature
from decomposition.device import CPU
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul

ORTHONORMAL_TOLERANCE = 1e-6


class EigenpairCurvature(Diagonalised):
    """V diag(μ) Vᵀ + ρ (I − V Vᵀ) from k ≤ P orthonormal eigenvectors.

    Args:
        values: μ (k,).
        vectors: V (P, k), orthonormal columns.
        remainder: ρ, the eigenvalue of every direction outside their span.

    Raises:
        DecompositionError: shapes disagree, a number is not finite, or the columns are not
            orthonormal.
    """

    def __init__(
        self,
        values: Float[Tensor, " k"],
        vectors: Float[Tensor, "P k"],
        remainder: float = 0.0,
    ) -> None:
        """Check and complete the basis."""
        vectors = torch.as_tensor(vectors).detach().to(torch.float64)
        values = torch.as_tensor(values).detach().to(vectors.device, torch.float64)
        if values.ndim != 1 or vectors.ndim != 2 or vectors.shape[1] != len(values):
            raise DecompositionError(
                f"eigenpairs are values (k,) and vectors (P, k), got {tuple(values.shape)} and "
                f"{tuple(vectors.shape)}"
            )
        for name, part in (("values", values), ("vectors", vectors)):
            if not torch.isfinite(part).all():
                raise DecompositionError(f"the {name} of the eigenpairs hold NaN or infinity")
        remainder = _finite(remainder, "remainder")
        k = len(values)
        gap = (vectors.T @ vectors - torch.eye(k, dtype=torch.float64, device=vectors.device)).abs()
        error = float(gap.max()) if k else 0.0
        if not error <= ORTHONORMAL_TOLERANCE:
            raise DecompositionError(
                f"the eigenvectors are not orthonormal: VᵀV differs from I by {error:.3g}"
            )
        self.size, self.device = len(vectors), vectors.device
        if k < self.size:
            complete, _ = torch.linalg.qr(vectors, mode="complete")
            vectors = torch.cat([vectors, complete[:, k:]], dim=1)
            values = torch.cat([values, values.new_full((self.size - k,), remainder)])
        self._values, self._vectors = values, vectors

    def basis_values(self) -> Tensor:
        """μ, then ρ for the rest."""
        return self._values

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v."""
        return matmul(self._vectors.T, v)

    def from_basis(self, c: Tensor) -> Tensor:
        """V c."""
        return matmul(self._vectors, c)


class ScaledIdentity(Diagonalised):
    """ρ I: influence by the inner product of gradients, up to a scale."""

    def __init__(self, size: int, scale: float, device: torch.device | str = CPU) -> None:
        """Keep P and ρ, and where vectors lie."""
        self.size, self.scale = size, _finite(scale, "scale")
        self.device = torch.device(device)

    def basis_values(self) -> Tensor:
        """ρ, P times."""
        return torch.full((self.size,), self.scale, dtype=torch.float64, device=self.device)

    def to_basis(self, v: Tensor) -> Tensor:
        """The vector itself."""
        return v

    def from_basis(self, c: Tensor) -> Tensor:
        """The vector itself."""
        return c


class SolveCurvature(Curvature):
    """A curvature known by its solver, and perhaps its products.

    Args:
        size: P.
        solve: (v (P, k), damping) → (C + λI)⁻¹ v.
        matvec: v (P, k) → C v; without it only attribution is scored, not the spectrum.
        device: where both are given their vectors.
    """

    def __init__(
        self,
        size: int,
        solve: Callable[[Tensor, float], Tensor],
        matvec: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = CPU,
    ) -> None:
        """Keep the functions."""
        self.size, self.device = size, torch.device(device)
        self._user_solve, self._user_matvec = solve, matvec

    def _matvec(self, v: Tensor) -> Tensor:
        if self._user_matvec is None:
            raise NotAvailableError(
                "this curvature was given by its solver alone: pass matvec= to SolveCurvature for "
                "products, the dense matrix and spectral errors"
            )
        return _checked(self._user_matvec(v), v, "matvec")

    def _solve(self, v: Tensor, damping: float, negative: str | NegativeCurvature) -> Tensor:
        return _checked(self._user_solve(v, damping), v, "solve")

    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the dense matrix, if products are known.

        Raises:
            NotAvailableError: they are not.
            DecompositionError: the products are those of no symmetric matrix.
        """
        return DenseCurvature(self.dense()).eigenvalues()


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise DecompositionError(f"{name} must be finite, got {value}")
    return float(value)


def _checked(result: Tensor, v: Tensor, name: str) -> Tensor:
    result = torch.as_tensor(result).detach().to(v.device, torch.float64)
    if result.shape != v.shape:
        raise DecompositionError(
            f"{name} returned shape {tuple(result.shape)} for a vector of shape {tuple(v.shape)}"
        )
    if not torch.isfinite(result).all():
        raise DecompositionError(f"{name} returned a non-finite value")
    return result
