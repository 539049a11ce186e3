"""A curvature by some eigenpairs and one eigenvalue for all other directions.

    C = V diag(μ) Vᵀ + ρ (I − V Vᵀ),    V (P × k) orthonormal

A curvature that knows nothing outside its subspace leaves those directions out of its inverse,
V diag(1/(μ + λ)) Vᵀ, by ν = ∞ (see ``curvature.damped``).

A complete eigenbasis is V beside the last P − k columns of the orthogonal factor Q of V = Q R. It
is kept as k Householder reflections: P k numbers and 4 P k operations a vector, never P × P.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.checks import checked, number, optional, whole
from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.estimate import Symmetric
from decomposition.curvature.operator import Diagonalised
from decomposition.device import CPU
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul
from decomposition.reals import check_finite, real_tensor

ORTHONORMAL_TOLERANCE = 1e-6
OUTSIDE = "directions outside its subspace have no influence: its inverse is zero there"
RANK_TOLERANCE = 1e-10
"""Part of the largest below which a Ritz value counts as zero."""


class EigenpairCurvature(Diagonalised):
    """V diag(μ) Vᵀ + ρ (I − V Vᵀ) from k ≤ P orthonormal eigenvectors.

    Args:
        values: μ (k,).
        vectors: V (P, k), orthonormal columns.
        remainder: ρ, the eigenvalue of every direction outside their span; None: 0, and the
            inverse leaves them out.

    Raises:
        DecompositionError: shapes disagree, a number is not finite, or the columns are not
            orthonormal.
    """

    def __init__(
        self,
        values: Float[Tensor, " k"],
        vectors: Float[Tensor, "P k"],
        remainder: float | None = 0.0,
    ) -> None:
        """Check both, and complete the basis by reflections."""
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
        remainder = checked("remainder", remainder, optional(number()), DecompositionError)
        k = len(values)
        gap = (vectors.T @ vectors - torch.eye(k, dtype=torch.float64, device=vectors.device)).abs()
        error = float(gap.max()) if k else 0.0
        if not error <= ORTHONORMAL_TOLERANCE:
            raise DecompositionError(
                f"the eigenvectors are not orthonormal: VᵀV differs from I by {error:.3g}"
            )
        self.size, self.device = len(vectors), vectors.device
        self._vectors, self._count = vectors, k
        self._values = torch.cat([values, values.new_full((self.size - k,), remainder or 0.0)])
        self._left_out = remainder is None and k < self.size
        self.notes = (OUTSIDE,) if self._left_out else ()
        self._reflections = torch.geqrf(vectors) if 0 < k < self.size else None

    def basis_values(self) -> Tensor:
        """μ, then ρ for the rest."""
        return self._values

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v, then the coordinates of what V leaves."""
        found = self._reflected(v, transpose=True)
        return torch.cat([matmul(self._vectors.T, v), found[self._count :]])

    def from_basis(self, c: Tensor) -> Tensor:
        """V c of the first k coordinates, and the rest."""
        rest = c.clone()
        rest[: self._count] = 0.0
        inside = matmul(self._vectors, c[: self._count])
        return inside if self._count == self.size else inside + self._reflected(rest, False)

    def factored_damping(self) -> FactoredDamping | None:
        """ν = ∞ outside the subspace, where that is left out."""
        if not self._left_out:
            return None
        return FactoredDamping.leaving_out(
            torch.arange(self.size, device=self.device) >= self._count
        )

    def _reflected(self, v: Tensor, transpose: bool) -> Tensor:
        if self._reflections is None:
            return v
        return torch.ormqr(*self._reflections, v.contiguous(), transpose=transpose)


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


def leading_eigenpairs(operator: Symmetric, rank: int = 100, seed: int = 0) -> EigenpairCurvature:
    """The positive leading eigenpairs of C from 2 ``rank`` products.

    One step of randomised subspace iteration (Halko, Martinsson & Tropp 2011, arXiv 0909.4061); ρ
    is half the smallest μ kept. As a preconditioner it shrinks the condition number of C + λI from
    (μ_1 + λ)/λ to about (μ_r + λ)/λ (Frangella, Tropp & Udell 2023, arXiv 2110.02820), for all
    right-hand sides and all λ.

    Args:
        operator: C, by its products.
        rank: r, at most P.
        seed: of the random start.

    Raises:
        DecompositionError: the rank is less than 1, or no eigenvalue found is positive.
    """
    rank = checked("rank", rank, whole(1), DecompositionError)
    generator = torch.Generator().manual_seed(seed)
    shape = (operator.size, min(rank, operator.size))
    start = torch.randn(shape, generator=generator, dtype=torch.float64).to(operator.device)
    basis, _ = torch.linalg.qr(operator.matvec(torch.linalg.qr(start)[0]))
    projected = basis.T @ operator.matvec(basis)
    values, rotation = torch.linalg.eigh(0.5 * (projected + projected.T))
    kept = values > RANK_TOLERANCE * values.abs().max()
    if not bool(kept.any()):
        raise DecompositionError("no leading eigenvalue is positive: there is nothing to take out")
    remainder = 0.5 * float(values[kept][0])
    found = EigenpairCurvature(values[kept], basis @ rotation[:, kept], remainder)
    found.notes = (
        f"{int(kept.sum())} leading eigenpairs, every other eigenvalue taken as {remainder:.3g}",
    )
    return found
