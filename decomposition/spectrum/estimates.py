"""Traces and Frobenius norms of curvatures that are known by their products, with standard errors.

    ‖C‖²_F = E ‖C z‖² for z with independent ±1 entries (Hutchinson)
    tr C by XTrace: every probe in turn is left out of the basis in which the rest of the trace is
    exact, and tests what that basis misses (Epperly, Tropp & Webber 2024, arXiv 2301.07825)

Differences of two curvatures take the same probes for both, so that what they have in common
cancels before it is squared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError
from decomposition.spectrum.operators import Symmetric


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; 0 where it is exact."""

    value: float
    error: float = 0.0

    @staticmethod
    def mean(samples: Float[np.ndarray, " k"]) -> Estimate:
        """Mean of independent samples."""
        return Estimate(float(samples.mean()), float(samples.std(ddof=1) / len(samples) ** 0.5))


def probes(size: int, count: int, seed: int) -> Float[Tensor, "P k"]:
    """Columns of independent ±1 entries.

    Raises:
        DecompositionError: fewer than two, which have no spread.
    """
    if count < 2:
        raise DecompositionError(f"an estimate needs at least 2 probes, got {count}")
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size, count), generator=generator, dtype=torch.int8)
    return signs.double().mul_(2.0).sub_(1.0)


def xtrace(operator: Symmetric, count: int = 16, seed: int = 0) -> Estimate:
    """tr C from ``count`` Gaussian probes and twice as many products.

    With Q a basis of C Ω and Q_i that of C Ω without column i, the estimate that leaves probe i
    out is tr(Q_iᵀ C Q_i) + ω_iᵀ (I − Q_i Q_iᵀ) C (I − Q_i Q_iᵀ) ω_i; Q_i Q_iᵀ = Q (I − s sᵀ) Qᵀ
    with s the normalised i-th column of R⁻ᵀ.

    Raises:
        DecompositionError: fewer than two probes.
    """
    if count < 2:
        raise DecompositionError(f"XTrace needs at least 2 probes, got {count}")
    count = min(count, operator.size)
    generator = torch.Generator().manual_seed(seed)
    omega = torch.randn(operator.size, count, generator=generator, dtype=torch.float64)
    y = operator.matvec(omega)
    q, r = torch.linalg.qr(y)
    if bool((r.diagonal().abs() <= 1e-12 * r.diagonal().abs().max()).any()):
        # the probes span the range of C: the trace in their basis is all of it
        u, sigma, _ = torch.linalg.svd(y, full_matrices=False)
        u = u[:, sigma > 1e-10 * sigma.max()]
        return Estimate(float((u * operator.matvec(u)).sum()))
    h = q.T @ operator.matvec(q)
    s = torch.linalg.inv(r).T
    s = s / torch.linalg.vector_norm(s, dim=0)
    w, image = q.T @ omega, q.T @ y
    p = w - s * (s * w).sum(0)  # (I − s sᵀ) Qᵀ ω
    inside = h.diagonal().sum() - (s * (h @ s)).sum(0)
    outside = (omega * y).sum(0) - 2.0 * (p * image).sum(0) + (p * (h @ p)).sum(0)
    return Estimate.mean((inside + outside).numpy())
