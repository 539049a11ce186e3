"""Spectral and nuclear norms of the difference of two curvatures.

Up to ``EXACT_SIZE`` both come from the eigenvalues of the difference. Above it the spectral norm
is the largest Ritz value of a Lanczos run (with its residual bound as error) and the nuclear norm
tr|Δ| is a stochastic estimate with its standard error: the leading eigenpairs are taken exactly
and only the rest is sampled, as in Hutch++ (Meyer et al. 2021, arXiv 2010.09649). The sampled
products are in float32: their rounding (1e-7) is nothing beside the sampling error (1e-2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.estimate import probes
from decomposition.curvature.krylov import quadratures
from decomposition.device import full_precision
from decomposition.linalg import eigvalsh, matmul

EXACT_SIZE = 2048
LEADING, POWER_STEPS = 40, 4
RITZ_TOLERANCE = 0.03
PROBES, STEPS = 12, 36


@dataclass(frozen=True)
class Norms:
    """Norms of one matrix; errors are 0 where the value is exact."""

    spectral: float
    nuclear: float
    spectral_error: float = 0.0
    """Residual bound, and the rounding of products in single precision."""
    nuclear_error: float = 0.0
    """Standard error over probes, with half the distance between successive quadratures, and that
    rounding."""


@full_precision()
def norms(matrix: Float[Tensor, "P P"], seed: int = 0, exact_size: int = EXACT_SIZE) -> Norms:
    """Spectral norm max|μ| and nuclear norm Σ|μ| of a symmetric matrix."""
    if len(matrix) <= exact_size:
        magnitude = eigvalsh(matrix).abs()
        return Norms(float(magnitude.max()), float(magnitude.sum()))
    values, vectors, residual = _leading(matrix, seed)
    if len(values) == len(matrix):  # nothing is left to sample
        return Norms(float(values.abs().max()), float(values.abs().sum()), residual)
    start = probes(len(matrix), PROBES, seed + 1, matrix.device) / len(matrix) ** 0.5
    start = _project_out(vectors, start)
    weight = start.square().sum(0)  # ‖(I − QQᵀ)z‖², its mean is (P − k)/P
    size, single = len(matrix), matrix.float()
    product = lambda v: matmul(single, v.float()).double()  # noqa: E731
    *_, previous, ritz = quadratures(product, start / weight.sqrt(), max(2, STEPS), 2)
    before, after = (one.trace(torch.abs, size * weight) for one in (previous, ritz))
    rest, quadrature = 0.5 * (before + after), 0.5 * abs(after - before)
    top = float(values.abs().max()) if len(values) else 0.0
    bound = residual
    largest = ritz.values.abs().max()
    if float(largest) > top:
        at = ritz.values.abs() == largest
        top, bound = float(largest), float(ritz.residuals[at].min())
    rounding = 8.0 * torch.finfo(torch.float32).eps * top  # of products in single precision
    return Norms(
        top,
        float(values.abs().sum()) + rest,
        bound + rounding,
        math.hypot(after.error, quadrature, size * rounding),
    )


def _leading(matrix: Tensor, seed: int) -> tuple[Tensor, Tensor, float]:
    """Leading Ritz pairs by block Krylov iteration, and the residual of the largest.

    A pair with residual r counts as an eigenpair if r ≤ RITZ_TOLERANCE |θ|: yᵀ|Δ|y differs from
    |θ| by O(r²/|θ|) only, which is below a thousandth.
    """
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(len(matrix), LEADING, generator=generator, dtype=torch.float64)
    block = block.to(matrix.device)
    krylov = []
    for _ in range(POWER_STEPS):
        block, _ = torch.linalg.qr(matmul(matrix, block))
        krylov.append(block)
    basis, _ = torch.linalg.qr(torch.cat(krylov, 1))
    image = matmul(matrix, basis)
    values, rotation = torch.linalg.eigh(basis.T @ image)
    vectors = basis @ rotation
    residual = torch.linalg.vector_norm(image @ rotation - vectors * values, dim=0)
    converged = residual <= RITZ_TOLERANCE * values.abs()
    largest = int(values.abs().argmax())
    return values[converged], vectors[:, converged], float(residual[largest])


def _project_out(vectors: Tensor, v: Tensor) -> Tensor:
    return v - matmul(vectors, matmul(vectors.T, v)) if vectors.shape[1] else v
