"""Curvatures of the user's own: from eigenpairs, from blocks, or from a solver."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.checks import checked, number, whole
from decomposition.curvature.base import Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.dense import DenseCurvature
from decomposition.damping import NegativeCurvature
from decomposition.device import CPU
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul
from decomposition.reals import check_finite, real_tensor

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
        vectors = real_tensor(vectors, "vectors")
        values = real_tensor(values, "values").to(vectors.device)
        if (
            values.ndim != 1
            or vectors.ndim != 2
            or vectors.shape[1] != len(values)
            or not len(vectors)
        ):
            raise DecompositionError(
                f"eigenpairs are values (k,) and vectors (P, k), got {tuple(values.shape)} and "
                f"{tuple(vectors.shape)}"
            )
        for name, part in (("values", values), ("vectors", vectors)):
            check_finite(part, f"the {name} of the eigenpairs hold NaN or infinity")
        remainder = checked("remainder", remainder, number(), DecompositionError)
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
        self.size = size
        self.scale = checked("scale", scale, number(), DecompositionError)
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
        solve: (v (P, k), damping) → (C + λI)⁻¹ v. How negative eigenvalues count is its matter,
            whatever policy is asked for.
        matvec: v (P, k) → C v; without it only attribution is scored, not the spectrum.
        device: where both are given their vectors.

    Raises:
        DecompositionError: the size is no whole number >= 1, or a function is none; later, what
            one of them returns is no array of finite real numbers of the vector's shape.
    """

    def __init__(
        self,
        size: int,
        solve: Callable[[Tensor, float], Tensor],
        matvec: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = CPU,
    ) -> None:
        """Keep the functions."""
        if not callable(solve) or not (matvec is None or callable(matvec)):
            raise DecompositionError(
                f"solve and matvec are functions of vectors, got {type(solve).__name__} and "
                f"{type(matvec).__name__}"
            )
        self.size = checked("size", size, whole(1, bits=63), DecompositionError)
        self.device = torch.device(device)
        self._user_solve, self._user_matvec = solve, matvec

    def _matvec(self, v: Tensor) -> Tensor:
        if self._user_matvec is None:
            raise NotAvailableError(
                "this curvature was given by its solver alone: pass matvec= to SolveCurvature for "
                "products, the dense matrix and spectral errors"
            )
        return _checked(self._user_matvec(v.clone()), v, "matvec")

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        # a copy: a solver that works in place must not change the caller's gradients
        return _checked(self._user_solve(v.clone(), damping), v, "solve")

    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the dense matrix, if products are known.

        Raises:
            NotAvailableError: they are not.
            DecompositionError: the products are those of no symmetric matrix.
        """
        return DenseCurvature(self.dense()).eigenvalues()


def _checked(result: object, v: Tensor, name: str) -> Tensor:
    found = real_tensor(result, f"what {name} returned").to(v.device)
    if found.shape != v.shape:
        raise DecompositionError(
            f"{name} returned shape {tuple(found.shape)} for a vector of shape {tuple(v.shape)}"
        )
    check_finite(found, f"{name} returned a non-finite value")
    return found
