"""How λ enters the inverse of a diagonalised curvature: exact or factored damping, and policies.

Exact damping inverts C + λI. The factored damping of Martens & Grosse (2015, section 6.3) inverts

    (A + π√λ I) ⊗ (S + (√λ/π) I),    π = √((tr A / d_A) / (tr S / d_S)),

which is diagonal in the same basis: (α_j + π√λ)(σ_i + √λ/π) = σ_i α_j + λ + √λ (π σ_i + α_j/π).
So every inverse here is V diag(1/d) Vᵀ with

    d(μ, λ) = d_policy(μ, λ) + √λ κ + λ ν,

κ = ν = 0 for exact damping; κ_ij = π σ_i + α_j/π, ν = 0 where both factors are damped; and
κ_ij = α_j/π, ν = −1 where S alone is. ν = ∞ leaves a direction out, at every λ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decomposition.damping import NegativeCurvature, as_policy, check_damping, reciprocals
from decomposition.device import CPU


@dataclass(frozen=True)
class FactoredDamping:
    """What damping adds besides λ, along every basis vector."""

    root: Float[Tensor, " P"]
    """κ ≥ 0, which √λ multiplies."""
    whole: Float[Tensor, " P"]
    """ν, which λ multiplies."""

    def at(self, damping: float) -> Float[Tensor, " P"]:
        """√λ κ + λ ν, infinite where ν is, at λ = 0 too."""
        found = math.sqrt(damping) * self.root + damping * self.whole
        return found.where(self.whole.isfinite(), torch.inf)

    @staticmethod
    def none(size: int, device: torch.device = CPU) -> FactoredDamping:
        """Zeros: λ alone."""
        zeros = torch.zeros(size, dtype=torch.float64, device=device)
        return FactoredDamping(zeros, zeros)

    @staticmethod
    def leaving_out(directions: Bool[Tensor, " P"]) -> FactoredDamping:
        """ν = ∞ for these, 0 for the others."""
        zeros = torch.zeros(len(directions), dtype=torch.float64, device=directions.device)
        return FactoredDamping(zeros, zeros.masked_fill(directions, torch.inf))

    @staticmethod
    def joined(parts: Sequence[FactoredDamping]) -> FactoredDamping:
        """One after the other."""
        return FactoredDamping(
            torch.cat([part.root for part in parts]), torch.cat([part.whole for part in parts])
        )


def factor_ratio(alpha: Float[Tensor, " width"], sigma: Float[Tensor, " d_out"]) -> float | None:
    """π from the eigenvalues of A and S; None where a factor vanishes, and nothing is balanced."""
    means = float(alpha.mean()), float(sigma.mean())
    return math.sqrt(means[0] / means[1]) if min(means) > 0 else None


@dataclass(frozen=True)
class DampedSpectrum:
    """All that a damped inverse takes from a curvature besides its basis."""

    values: Float[Tensor, " P"]
    """μ in the order of the basis."""
    factored: FactoredDamping | None = None
    """None: exact damping."""
    negative: NegativeCurvature | None = None
    """A policy of the curvature's own, which overrules the caller's."""

    def added(self, damping: float) -> Float[Tensor, " P"]:
        """λ + √λ κ + λ ν: what λ adds to the eigenvalues that are not negative."""
        exact = torch.full_like(self.values, damping)
        return exact if self.factored is None else exact + self.factored.at(damping)

    def denominators(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[Tensor, " P"]:
        """d(μ, λ), unchecked."""
        policy = self.negative or as_policy(negative)
        plain = policy.denominators(self.values, damping)
        return plain if self.factored is None else plain + self.factored.at(damping)

    def inverse(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[Tensor, " P"]:
        """1 / d(μ, λ); 0 for directions that the policy leaves out.

        Raises:
            DampingError: λ < 0, or the damped curvature is singular to working precision.
        """
        value = check_damping(damping)
        return reciprocals(self.denominators(value, negative), self.values, value)

    def blind_to_damping(self) -> bool:
        """Whether every λ gives the same inverse up to a factor."""
        return self.factored is None and bool((self.values == self.values[0]).all())
