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

from decomposition.curvature.base import Diagonalised
from decomposition.damping import NegativeCurvature, as_policy, inverse_eigenvalues
from decomposition.linalg import matmul
from decomposition.spectrum.overlap import leading, squared_cosines


@dataclass(frozen=True)
class DampedErrors:
    """Errors of one rung against one reference at D dampings."""

    inverse_squared: Float[np.ndarray, " D"]
    """‖C_λ⁻¹ − R_λ⁻¹‖²_F / ‖R_λ⁻¹‖²_F."""
    stein: Float[np.ndarray, " D"]
    """Stein divergence, NaN where a damped matrix is not positive definite."""
    subspace_overlap: float
    """‖V_kᵀ U_k‖²_F / k of the k leading eigenvectors."""


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
    policy = as_policy(negative)
    theirs = dampings if reference_dampings is None else reference_dampings
    mu, nu = curvature.basis_values(), reference.basis_values()
    d = torch.stack([policy.denominators(mu, damping) for damping in dampings])
    e = torch.stack([policy.denominators(nu, damping) for damping in theirs])
    inverse_d = torch.stack([inverse_eigenvalues(mu, damping, policy) for damping in dampings])
    inverse_e = torch.stack([inverse_eigenvalues(nu, damping, policy) for damping in theirs])
    top_mu = leading(mu, leading_count)
    is_top_nu = torch.zeros(len(nu), dtype=torch.bool)
    is_top_nu[leading(nu, leading_count)] = True
    weights = torch.cat([inverse_d, d])
    cross, product, shared = torch.zeros(len(dampings)), torch.zeros(len(dampings)), 0.0
    cross, product = cross.double(), product.double()
    for panel, w in squared_cosines(curvature, reference):
        both = matmul(weights, w)
        cross += (both[: len(dampings)] * inverse_e[:, panel]).sum(1)
        product += (both[len(dampings) :] * inverse_e[:, panel]).sum(1)
        shared += float(w[top_mu][:, is_top_nu[panel]].sum())
    norm = inverse_e.square().sum(1)
    squared = (inverse_d.square().sum(1) + norm - 2.0 * cross).clamp_min(0.0) / norm
    positive = (d > 0).all(1) & (e > 0).all(1)
    stein = product - d.abs().log().sum(1) + e.abs().log().sum(1) - len(mu)
    stein = torch.where(positive, stein.clamp_min(0.0), torch.nan)
    return DampedErrors(squared.numpy(), stein.numpy(), shared / leading_count)
