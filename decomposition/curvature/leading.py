"""Leading eigenpairs of a curvature known by its products: a preconditioner for many solves.

One step of randomised subspace iteration (Halko, Martinsson & Tropp 2011, arXiv 0909.4061) from
2 r products gives Ritz pairs (μ, V) of the r largest eigenvalues, and

    V diag(μ) Vᵀ + ρ (I − V Vᵀ),    ρ half the smallest μ kept,

shrinks the condition number of C + λI from (μ_1 + λ)/λ to about (μ_r + λ)/λ, as Nyström
preconditioning does (Frangella, Tropp & Udell 2023, arXiv 2110.02820). The products are shared by
all right-hand sides and all λ.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.base import Curvature
from decomposition.curvature.matrix_free import Products
from decomposition.damping import NegativeCurvature, reciprocals
from decomposition.errors import DecompositionError

RANK_TOLERANCE = 1e-10
"""Part of the largest below which a Ritz value counts as zero."""


class LeadingCurvature(Curvature):
    """V diag(μ) Vᵀ + ρ (I − V Vᵀ) with P × r orthonormal V: r numbers a parameter, no basis of P.

    Args:
        values: μ (r,), ascending and positive.
        vectors: V (P, r), orthonormal columns.
        remainder: ρ ≥ 0.
    """

    def __init__(
        self, values: Float[Tensor, " r"], vectors: Float[Tensor, "P r"], remainder: float
    ) -> None:
        """Keep the parts."""
        self.size, self.device = len(vectors), vectors.device
        self._values, self._vectors, self._remainder = values, vectors, remainder
        self.notes = (
            f"{len(values)} leading eigenpairs, every other eigenvalue taken as {remainder:.3g}",
        )

    def eigenvalues(self) -> Tensor:
        """ρ for the rest, then μ, ascending."""
        rest = self._values.new_full((self.size - len(self._values),), self._remainder)
        return torch.cat([rest, self._values]).sort().values

    def _matvec(self, v: Tensor) -> Tensor:
        return self._with(self._values, self._remainder, v)

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        mu = torch.cat([self._values, self._values.new_full((1,), self._remainder)])
        inverse = reciprocals(negative.denominators(mu, damping), mu, damping)
        return self._with(inverse[:-1], float(inverse[-1]), v)

    def _with(self, values: Tensor, rest: float, v: Tensor) -> Tensor:
        return self._vectors @ ((values - rest)[:, None] * (self._vectors.T @ v)) + rest * v


def leading_curvature(product: Products, rank: int = 100, seed: int = 0) -> LeadingCurvature:
    """The positive leading eigenpairs of C from 2 ``rank`` products.

    Args:
        product: C v.
        rank: r, at most P.
        seed: of the random start.

    Raises:
        DecompositionError: the rank is less than 1, or no eigenvalue found is positive.
    """
    if rank < 1:
        raise DecompositionError(f"the rank of a preconditioner must be >= 1, got {rank}")
    generator = torch.Generator().manual_seed(seed)
    shape = (product.size, min(rank, product.size))
    start = torch.randn(shape, generator=generator, dtype=torch.float64).to(product.device)
    basis, _ = torch.linalg.qr(product.matvec(torch.linalg.qr(start)[0]))
    projected = basis.T @ product.matvec(basis)
    values, rotation = torch.linalg.eigh(0.5 * (projected + projected.T))
    kept = values > RANK_TOLERANCE * values.abs().max()
    if not bool(kept.any()):
        raise DecompositionError("no leading eigenvalue is positive: there is nothing to take out")
    return LeadingCurvature(values[kept], basis @ rotation[:, kept], 0.5 * float(values[kept][0]))
