"""Preconditioned conjugate gradients for positive definite A, many right-hand sides at once.

Hestenes & Stiefel 1952 (doi 10.6028/jres.049.044); in the form of Saad 2003, *Iterative Methods
for Sparse Linear Systems*, algorithm 9.1. Every column has its own scalars, and leaves when done.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.solution import (
    Apply,
    Solution,
    SolverError,
    Stopping,
    check_system,
    dots,
    finished,
    relative,
)


def cg(
    apply: Apply,
    b: Float[Tensor, "P k"],
    precondition: Apply | None = None,
    stopping: Stopping | None = None,
) -> Solution:
    """x with A x = b.

    Args:
        apply: v → A v, A symmetric positive definite.
        b: right-hand sides, float64.
        precondition: v → M⁻¹ v, symmetric positive definite, close to A⁻¹ v.
        stopping: tolerance and iterations.

    Raises:
        SolverError: A or M is not positive definite, or the tolerance is missed.
    """
    check_system(b)
    stopping = stopping or Stopping()
    norms = torch.linalg.vector_norm(b, dim=0)
    x = torch.zeros_like(b)
    history: list[Tensor] = []
    now = (norms > 0).to(b.dtype)  # relative residuals at x = 0
    active = torch.nonzero(norms > 0).flatten()
    r = b[:, active].clone()
    z = precondition(r) if precondition else r
    p, rho = z.clone(), dots(r, z)
    products = 0
    while len(active) and len(history) < stopping.iterations:
        _check_preconditioner(rho)
        image = apply(p)
        products += len(active)
        curvature = dots(p, image)
        if not bool((curvature > 0).all()):
            worst = int(curvature.argmin())
            share = float(curvature[worst] / dots(p, p)[worst])
            raise SolverError(
                f"conjugate gradients met a direction of curvature {share:.3g} (column "
                f"{int(active[worst])}, iteration {len(history) + 1}, relative residual "
                f"{float(now[active[worst]]):.3g}): the damped matrix is not positive definite; "
                "use MINRES, or a damping above the most negative eigenvalue"
            )
        alpha = rho / curvature
        x[:, active] += alpha * p
        r = r - alpha * image
        now = now.clone()
        now[active] = relative(r, norms[active])
        history.append(now)
        going = now[active] > stopping.tolerance
        if not bool(going.all()):
            active, r, p, rho = active[going], r[:, going], p[:, going], rho[going]
        if len(active):
            z = precondition(r) if precondition else r
            new = dots(r, z)
            p, rho = z + (new / rho) * p, new
    residuals = relative(b - apply(x), norms)
    products += b.shape[1]
    table = torch.stack(history) if history else now[None][:0]
    solution = Solution(x, "cg", len(history), products, residuals, table, stopping.tolerance)
    return finished(solution, stopping)


def _check_preconditioner(rho: Tensor) -> None:
    if not bool((rho > 0).all()):
        raise SolverError(
            f"the preconditioner is not positive definite: rᵀM⁻¹r = {float(rho.min()):.3g}; "
            "precondition by a positive semi-definite rung at a positive damping"
        )
