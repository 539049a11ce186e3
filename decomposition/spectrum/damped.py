"""Errors of the damped inverse, which is what influence functions use of a curvature.

With d(μ, λ) the damped eigenvalues of the rung and e(ν, λ) those of the reference,

    ‖C_λ⁻¹ − R_λ⁻¹‖²_F = Σ 1/d² + Σ 1/e² − 2 (1/d)ᵀ W (1/e)
    Stein(C_λ, R_λ)    = tr(C_λ R_λ⁻¹) − log det(C_λ R_λ⁻¹) − P = dᵀ W (1/e) − Σ log d + Σ log e − P

(James & Stein 1961; twice the Kullback–Leibler divergence of the Gaussians with these
precisions). One pass over W serves every damping, and the subspace overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from decomposition.curvature.damped import DampedSpectrum
from decomposition.curvature.operator import Diagonalised
from decomposition.damping import NegativeCurvature
from decomposition.linalg import matmul, to_numpy
from decomposition.spectrum.overlap import leading, squared_cosines


@dataclass(frozen=True)
class DampedErrors:
    """Errors of one rung against one reference at D dampings."""

    inverse_squared: Float[np.ndarray, " D"]
    """‖C_λ⁻¹ − R_λ⁻¹‖²_F / ‖R_λ⁻¹‖²_F."""
    misaligned: Float[np.ndarray, " D"]
    """min over scales s of ‖s C_λ⁻¹ − R_λ⁻¹‖²_F / ‖R_λ⁻¹‖²_F = 1 − cos²: no rank sees a scale."""
    stein: Float[np.ndarray, " D"]
    """Stein divergence, NaN where a damped matrix is not positive definite."""
    subspace_overlap: float
    """‖V_kᵀ U_k‖²_F / k of the k leading eigenvectors."""


@dataclass(frozen=True)
class DampedPair:
    """Both directions of one comparison, from the same pass over W."""

    forward: DampedErrors
    """The rung against the reference."""
    backward: DampedErrors
    """The reference against the rung."""


def damped_errors(
    curvature: Diagonalised,
    reference: Diagonalised,
    dampings: Sequence[float],
    leading_count: int,
    negative: str | NegativeCurvature = "absolute",
    reference_dampings: Sequence[float] | None = None,
) -> DampedErrors:
    """Damped-inverse and Stein errors at every damping, and the top-k subspace overlap.

    ``reference_dampings`` gives the reference a λ of its own (default: the same).
    """
    theirs = dampings if reference_dampings is None else reference_dampings
    return damped_pair(curvature, reference, dampings, theirs, leading_count, negative).forward


def damped_pair(
    curvature: Diagonalised,
    reference: Diagonalised,
    dampings: Sequence[float],
    reference_dampings: Sequence[float],
    leading_count: int,
    negative: str | NegativeCurvature = "absolute",
) -> DampedPair:
    """The errors in both directions: each side counts as the reference once."""
    mine, theirs = curvature.spectrum(), reference.spectrum()
    mu, nu = mine.values, theirs.values
    d, inverse_d = _damped(mine, dampings, negative)
    e, inverse_e = _damped(theirs, reference_dampings, negative)
    positive = ((d > 0) & d.isfinite()).all(1) & ((e > 0) & e.isfinite()).all(1)
    # A direction left out (d = ∞) would spoil sums in which a cosine of zero meets it.
    d, e = (side.where(side.isfinite(), 0.0) for side in (d, e))
    count = len(dampings)
    top_mu = leading(mu, leading_count)
    is_top_nu = torch.zeros(len(nu), dtype=torch.bool, device=nu.device)
    is_top_nu[leading(nu, leading_count)] = True
    cross, product, reverse = (mu.new_zeros(count) for _ in range(3))
    shared = 0.0
    for panel, w in squared_cosines(curvature, reference):
        weighted = matmul(torch.cat([inverse_d, d]), w)
        cross += (weighted[:count] * inverse_e[:, panel]).sum(1)
        product += (weighted[count:] * inverse_e[:, panel]).sum(1)
        reverse += (weighted[:count] * e[:, panel]).sum(1)
        shared += float(w[top_mu][:, is_top_nu[panel]].sum())
    norm_d, norm_e = inverse_d.square().sum(1), inverse_e.square().sum(1)
    squared = norm_d + norm_e - 2.0 * cross
    misaligned = to_numpy((1.0 - cross.square() / (norm_d * norm_e)).clamp_min(0.0))
    log_ratio = d.abs().log().sum(1) - e.abs().log().sum(1)
    overlap = shared / leading_count

    def errors(norm: torch.Tensor, trace: torch.Tensor, log: torch.Tensor) -> DampedErrors:
        stein = torch.where(positive, (trace - log - len(mu)).clamp_min(0.0), torch.nan)
        relative = to_numpy(squared.clamp_min(0.0) / norm)
        return DampedErrors(relative, misaligned, to_numpy(stein), overlap)

    return DampedPair(
        errors(norm_e, product, log_ratio),
        errors(norm_d, reverse, -log_ratio),
    )


def _damped(
    spectrum: DampedSpectrum, dampings: Sequence[float], negative: str | NegativeCurvature
) -> tuple[torch.Tensor, torch.Tensor]:
    """Damped eigenvalues and their reciprocals, a row for each damping."""
    return (
        torch.stack([spectrum.denominators(damping, negative) for damping in dampings]),
        torch.stack([spectrum.inverse(damping, negative) for damping in dampings]),
    )
