"""How λ enters the inverse of a diagonalised curvature: exact or factored damping, and policies.

Exact damping inverts C + λI. The factored damping of Martens & Grosse (2015, section 6.3) inverts

    (A + π√λ I) ⊗ (S + (√λ/π) I),    π = √((tr A / d_A) / (tr S / d_S)),

which is diagonal in the same basis: (α_j + π√λ)(σ_i + √λ/π) = σ_i α_j + λ + √λ κ_ij with the
*cross damping* κ_ij = π σ_i + α_j / π. So every inverse here is V diag(1/d) Vᵀ with

    d(μ, λ) = d_policy(μ, λ) + √λ κ,    κ = 0 for exact damping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.damping import NegativeCurvature, as_policy, check_damping, reciprocals


@dataclass(frozen=True)
class DampedSpectrum:
    """All that a damped inverse takes from a curvature besides its basis."""

    values: Float[Tensor, " P"]
    """μ in the order of the basis."""
    cross: Float[Tensor, " P"] | None = None
    """κ ≥ 0; None is zero: exact damping."""
    negative: NegativeCurvature | None = None
    """A policy of the curvature's own, which overrules the caller's."""

    def denominators(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[Tensor, " P"]:
        """d(μ, λ), unchecked."""
        policy = self.negative or as_policy(negative)
        plain = policy.denominators(self.values, damping)
        return plain if self.cross is None else plain + math.sqrt(damping) * self.cross

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
        constant = bool((self.values == self.values[0]).all())
        return constant and (self.cross is None or bool((self.cross == self.cross[0]).all()))


def cross_damping(
    alpha: Float[Tensor, " width"], sigma: Float[Tensor, " d_out"]
) -> Float[Tensor, "d_out width"]:
    """κ_ij = π σ_i + α_j / π from the eigenvalues of A and S; zero where a factor vanishes."""
    ratio = float(alpha.mean()) / float(sigma.mean()) if float(sigma.mean()) > 0 else 0.0
    if ratio <= 0:
        return torch.zeros(len(sigma), len(alpha), dtype=alpha.dtype)
    pi = math.sqrt(ratio)
    return pi * sigma[:, None] + alpha[None, :] / pi
