"""Damping: what λ means on each rung (protocols) and what is done with negative eigenvalues.

The Hessian is indefinite, so (H + λI)⁻¹ needs a policy for eigenvalues μ < 0. A policy maps
(μ, λ) to the denominators d(μ, λ) of the inverse V diag(1/d) Vᵀ; d = ∞ leaves a direction out.
On positive semi-definite rungs all ``POLICIES`` agree.

Damping need not add λI: the factored damping of K-FAC (``decomposition.curvature.damped``) adds
other amounts along the same eigenvectors, and the effective dimension here takes them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import root_scalar
from torch import Tensor

from decomposition.checks import check_fields, checked, number
from decomposition.errors import DampingError


class NegativeCurvature(ABC):
    """A policy for negative eigenvalues: subclass it and give it a ``name`` to add one."""

    name: str
    one_by_one: bool = True
    """Whether d of an eigenvalue depends on no other one, so that blocks can be taken apart."""
    leaves_out: bool = False
    """Whether directions may get no influence at all, those of positive eigenvalues too."""

    @abstractmethod
    def denominators(self, mu: Float[Tensor, " P"], damping: float) -> Float[Tensor, " P"]:
        """d(μ, λ), one per eigenvalue, in the order of ``mu``."""

    def indefinite(self, mu: Float[Tensor, " P"], damping: float) -> bool:
        """Whether the inverse has negative eigenvalues at this damping."""
        return bool((self.denominators(mu, damping) < 0).any())


class Absolute(NegativeCurvature):
    """|μ| + λ: steep directions count as steep whatever their sign (the default of scores)."""

    name = "absolute"

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """|μ| + λ."""
        return mu.abs() + damping


class Signed(NegativeCurvature):
    """μ + λ: the matrix as it is, the default of ``Curvature.solve``.

    Indefinite, and close to singular, while λ < |μ_min|.
    """

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
    one_by_one = False

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """μ − min(μ_min, 0) + λ."""
        return mu - min(float(mu.min()), 0.0) + damping


@dataclass(frozen=True)
class Truncate(NegativeCurvature):
    """μ + λ where that exceeds ε, else ∞: directions of damped curvature ≤ ε get no influence.

    What the code published with Hong et al. 2025 (arXiv 2509.23437) does to H: it damps first,
    (H + λI), and then sets the inverse of every eigenvalue not above ε = 10⁻⁶ to zero. Negative
    curvature up to −λ + ε survives, barely damped; what lies below is left out. Semi-definite
    rungs are changed too once λ ≤ ε.

    Raises:
        DampingError: ε is negative or not finite.
    """

    threshold: float = 1e-6
    """ε."""
    name = "truncate"
    leaves_out = True

    def __post_init__(self) -> None:
        """Check ε."""
        check_fields(self, {"threshold": number(0)}, DampingError, "the {} of truncation")

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """μ + λ, or ∞ where that is at most ε."""
        damped = mu + damping
        return damped.where(~(damped <= self.threshold), torch.inf)  # NaN stays NaN


class PseudoInverse(NegativeCurvature):
    """|μ| where that exceeds λ, else ∞: λ damps nothing, it is the threshold ε.

    A replication of Hong et al. 2025 inverts so, with ε = 10⁻⁴ and 10⁻⁶
    (gsindlinger/Hessian-Approximation-for-Toy-Models).
    """

    name = "pseudo_inverse"
    leaves_out = True

    def denominators(self, mu: Tensor, damping: float) -> Tensor:
        """|μ|, or ∞ where that is at most λ."""
        size = mu.abs()
        return size.where(~(size <= damping), torch.inf)  # NaN stays NaN


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
    if not isinstance(policy, str) or policy not in POLICIES:
        raise DampingError(
            f"unknown policy for negative curvature {policy!r}: use one of {', '.join(POLICIES)}"
        )
    return POLICIES[policy]


def check_damping(damping: object) -> float:
    """λ as a float.

    Raises:
        DampingError: λ is no number, negative or not finite.
    """
    return checked("damping", damping, number(0), DampingError)


def inverse_eigenvalues(
    mu: Float[Tensor, " P"], damping: float, negative: str | NegativeCurvature = "absolute"
) -> Float[Tensor, " P"]:
    """1 / d(μ, λ) for every eigenvalue.

    Raises:
        DampingError: some denominator vanishes to working precision, so no inverse exists, or
            an eigenvalue is not finite.
    """
    denominators = as_policy(negative).denominators(mu, check_damping(damping))
    return reciprocals(denominators, mu, damping)


def reciprocals(
    denominators: Float[Tensor, " P"], mu: Float[Tensor, " P"], damping: float
) -> Float[Tensor, " P"]:
    """1 / d for denominators d that belong to the eigenvalues ``mu`` at λ; 0 where d = ∞.

    Raises:
        DampingError: some denominator vanishes to working precision, all are infinite, or an
            eigenvalue is not finite.
    """
    bad = denominators.isnan() | ~mu.isfinite()
    if bad.any():
        where = int(torch.nonzero(bad)[0])
        raise DampingError(
            f"damped eigenvalue {where} is {float(denominators[where])} at damping={damping:g}: "
            f"the eigenvalue itself is {float(mu[where])}"
        )
    scale = float(mu.abs().max()) + damping
    floor = len(mu) * torch.finfo(mu.dtype).eps * scale
    nearest = int(denominators.abs().argmin())
    smallest = float(denominators[nearest].abs())
    if smallest <= floor:
        raise _singular(float(mu[nearest]), float(mu.min()), damping, floor)
    if math.isinf(smallest):
        raise DampingError(
            f"no eigenvalue is left at damping={damping:g}: the largest is {float(mu.max()):.3g}; "
            "use another damping, or an inverse that leaves no direction out"
        )
    return denominators.reciprocal()


def _singular(nearest: float, lowest: float, damping: float, floor: float) -> DampingError:
    """λ meets a negative eigenvalue as it is, or leaves a direction without curvature."""
    met = nearest < -floor and abs(nearest + damping) <= 2 * floor
    way_out = f"use a damping above {2 * floor:.3g}"
    if met:
        way_out = (
            f"use a damping above {1.00001 * (2 * floor - lowest):.6g} (the lowest eigenvalue is "
            f"{lowest:.6g}) or negative='absolute', the policy of scores"
        )
    return DampingError(
        f"the curvature is singular at damping={damping:g}: its eigenvalue {nearest:.6g} is damped "
        f"to within {floor:.3g} of zero; {way_out}"
    )


Added = Callable[[float], Tensor]
"""λ → what damping adds to every eigenvalue (P,)."""


def effective_dimension(
    mu: Float[Tensor, " m"],
    damping: float,
    added: Added | None = None,
    counts: Float[Tensor, " m"] | None = None,
) -> float:
    """Σ μ₊ / (μ₊ + λ), with μ₊ = max(μ, 0): the number of directions that damping leaves alone.

    Negative eigenvalues count as none: a Hessian has thousands of tiny ones, and to match them λ
    of the other rungs would have to fall tenfold. Zeros count as none, at λ = 0 too.

    Args:
        mu: eigenvalues, or the nodes of a quadrature of them.
        damping: λ.
        added: where damping adds something else than λ, what (``DampedSpectrum.added``).
        counts: how many eigenvalues each node stands for; default one.

    Raises:
        DampingError: λ < 0.
    """
    value = check_damping(damping)
    known = mu > 0
    positive = mu[known]
    extra = value if added is None else added(value)[known]
    kept = positive / (positive + extra)
    return float((kept if counts is None else kept * counts[known]).sum())


def damping_for_effective_dimension(
    mu: Float[Tensor, " m"],
    target: float,
    added: Added | None = None,
    counts: Float[Tensor, " m"] | None = None,
) -> float:
    """The λ at which the effective dimension equals ``target`` (Brent's method in log λ).

    Arguments as of ``effective_dimension``.

    Raises:
        DampingError: the target lies outside (0, number of positive eigenvalues).
    """
    largest = float(mu.max())
    positive = mu > max(len(mu) * torch.finfo(mu.dtype).eps * largest, 0.0)
    rank = float(positive.sum() if counts is None else counts[positive].sum())
    if not 0 < target < rank:
        raise DampingError(f"effective dimension must lie in (0, {rank:g}), got {target}")
    low, high = math.log(largest) - 80.0, math.log(largest) + 80.0

    def beyond(log: float) -> float:
        return effective_dimension(mu, math.exp(log), added, counts) - target

    if beyond(low) <= 0.0:  # directions that are left out at every λ count in the rank alone
        return math.exp(low)
    if beyond(high) >= 0.0:
        return math.exp(high)
    found = root_scalar(beyond, bracket=(low, high), method="brentq", xtol=1e-14)
    return math.exp(float(found.root))
