"""Damping: what λ means on each rung (protocols) and what is done with negative eigenvalues.

The Hessian is indefinite, so (H + λI)⁻¹ needs a policy for eigenvalues μ < 0. A policy maps
(μ, λ) to the denominators d(μ, λ) of the inverse V diag(1/d) Vᵀ. On positive semi-definite
rungs all policies agree.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DampingError


class NegativeCurvature(ABC):
    """A policy for negative eigenvalues: subclass it and give it a ``name`` to add one."""

    name: str

    @abstractmethod
    def denominators(self, mu: Float[Tensor, " P"], damping: float) -> Float[Tensor, " P"]:
        """d(μ, λ), one per eigenvalue, in the order of ``mu``."""

    def indefinite(self, mu: Float[Tensor, " P"], damping: float) -> bool:
        """Whether the inverse has negative eigenvalues at this damping."""
        return bool((self.denominators(mu, damping) < 0).any())


class Absolute(NegativeCurvature):
    """|μ| + λ: steep directions count as steep whatever their sign (the default)."""

    name = "absolute"

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """|μ| + λ."""
        return mu.abs() + damping


class Signed(NegativeCurvature):
    """μ + λ: the matrix as it is. Indefinite, and close to singular, while λ < |μ_min|."""

    name = "signed"

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """μ + λ."""
        return mu + damping


class Clip(NegativeCurvature):
    """max(μ, 0) + λ: negative curvature counts as none (projection onto the PSD cone)."""

    name = "clip"

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """max(μ, 0) + λ."""
        return mu.clamp_min(0.0) + damping


class Shift(NegativeCurvature):
    """μ − min(μ_min, 0) + λ: the whole spectrum moved up until nothing is negative."""

    name = "shift"

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """μ − min(μ_min, 0) + λ."""
        return mu - min(float(mu.min()), 0.0) + damping


POLICIES: dict[str, NegativeCurvature] = {
    policy.name: policy for policy in (Absolute(), Signed(), Clip(), Shift())
}


def as_policy(policy: str | NegativeCurvature) -> NegativeCurvature:
    """Policy by name, or an instance of one's own.

    Raises:
        DampingError: unknown name.
    """
    if isinstance(policy, NegativeCurvature):
        return policy
    if policy not in POLICIES:
        raise DampingError(
            f"unknown policy for negative curvature {policy!r}: use one of {', '.join(POLICIES)}"
        )
    return POLICIES[policy]


def check_damping(damping: float) -> float:
    """λ as a float.

    Raises:
        DampingError: λ is negative or not finite.
    """
    try:
        value = float(damping)
    except (TypeError, ValueError):
        raise DampingError(f"damping must be a number, got {damping!r}") from None
    if not (math.isfinite(value) and value >= 0):
        raise DampingError(f"damping must be a finite number >= 0, got {damping}")
    return value


def inverse_eigenvalues(
    mu: Float[Tensor, " P"], damping: float, negative: str | NegativeCurvature = "absolute"
) -> Float[Tensor, " P"]:
    """1 / d(μ, λ) for every eigenvalue.

    Raises:
        DampingError: some denominator vanishes to working precision, so no inverse exists, or
            an eigenvalue is not finite.
    """
    denominators = as_policy(negative).denominators(mu, check_damping(damping))
    if not torch.isfinite(denominators).all():
        where = int(torch.nonzero(~torch.isfinite(denominators))[0])
        raise DampingError(
            f"damped eigenvalue {where} is {float(denominators[where])} at damping={damping:g}: "
            f"the eigenvalue itself is {float(mu[where])}"
        )
    scale = float(mu.abs().max()) + damping
    floor = len(mu) * torch.finfo(mu.dtype).eps * scale
    smallest = float(denominators.abs().min())
    if smallest <= floor:
        raise DampingError(
            f"the curvature is singular at damping={damping:g}: its smallest damped eigenvalue is "
            f"{smallest:.3g}, its largest {scale:.3g}; use another damping, above {floor:.3g}"
        )
    return denominators.reciprocal()


def relative_damping(c: float, trace: float, size: int) -> float:
    """λ = c · trace / P, the protocol ``relative`` (trace of a PSD rung, or of |C|)."""
    return c * trace / size


def effective_dimension(mu: Float[Tensor, " P"], damping: float) -> float:
    """Σ |μ| / (|μ| + λ): the number of directions that the damping leaves alone.

    Zero eigenvalues count as none, at λ = 0 too.

    Raises:
        DampingError: λ < 0.
    """
    magnitude = mu.abs()
    magnitude = magnitude[magnitude > 0]
    return float((magnitude / (magnitude + check_damping(damping))).sum())


def damping_for_effective_dimension(mu: Float[Tensor, " P"], target: float) -> float:
    """The λ at which the effective dimension equals ``target`` (bisection in log λ).

    Raises:
        DampingError: the target lies outside (0, number of non-zero eigenvalues).
    """
    magnitude = mu.abs()
    largest = float(magnitude.max())
    rank = int((magnitude > len(mu) * torch.finfo(mu.dtype).eps * largest).sum())
    if not 0 < target < rank:
        raise DampingError(f"effective dimension must lie in (0, {rank}), got {target}")
    low, high = math.log(largest) - 80.0, math.log(largest) + 80.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        if effective_dimension(mu, math.exp(middle)) > target:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))
