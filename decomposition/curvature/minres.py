"""Preconditioned MINRES for symmetric, possibly indefinite A, many right-hand sides at once.

Paige & Saunders 1975 (doi 10.1137/0712047), with a positive definite preconditioner M as in Choi,
Paige & Saunders 2011 (doi 10.1137/100787921). Each step makes the residual smallest in the norm of
M⁻¹ over the Krylov space. Its Euclidean norm, on which the tolerance is put, follows from

    r_j = s_j² r_(j−1) − φ_j c_j q_(j+1),      q_(j+1) = M v_(j+1)

with the rotations (c, s) and φ_j = s_j φ_(j−1) = ‖r_j‖_(M⁻¹). Every column has its own scalars,
and leaves when it is done.
"""

from __future__ import annotations

from dataclasses import dataclass

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

RESTARTS = 3
"""Times that the recurrence may be taken up again from the true residual."""


def minres(
    apply: Apply,
    b: Float[Tensor, "P k"],
    precondition: Apply | None = None,
    stopping: Stopping | None = None,
) -> Solution:
    """x with A x = b.

    The true residual is computed at the end; where rounding has made the recurrence too
    optimistic, MINRES goes on from there.

    Args:
        apply: v → A v, A symmetric.
        b: right-hand sides, float64.
        precondition: v → M⁻¹ v, symmetric positive definite.
        stopping: tolerance and iterations.

    Raises:
        SolverError: M is not positive definite, or the tolerance is missed.
    """
    check_system(b)
    stopping = stopping or Stopping()
    norms = torch.linalg.vector_norm(b, dim=0)
    x = torch.zeros_like(b)
    history: list[Tensor] = []
    products = 0
    r, residuals = b, (norms > 0).to(b.dtype)
    for _ in range(1 + RESTARTS):
        left = torch.nonzero(residuals > stopping.tolerance).flatten()
        if not len(left) or len(history) >= stopping.iterations:
            break
        run = _Run(apply, precondition, r[:, left], norms[left], stopping.tolerance)
        while len(run.active) and len(history) < stopping.iterations:
            run.step()
            now = residuals.clone()
            now[left] = run.residuals
            history.append(now)
        x[:, left] += run.x
        r = b - apply(x)
        products += run.products + b.shape[1]
        residuals = relative(r, norms)
    table = torch.stack(history) if history else residuals[None][:0]
    solution = Solution(x, "minres", len(history), products, residuals, table, stopping.tolerance)
    return finished(solution, stopping)


@dataclass
class _State:
    """What the recurrences carry over, for the columns still active; the names of the paper."""

    q_old: Tensor
    """M v of the step before, times its β."""
    q: Tensor
    """M v, times β."""
    z: Tensor
    """v, times β."""
    w_old: Tensor
    w: Tensor
    r: Tensor
    """The residual."""
    beta_old: Tensor
    beta: Tensor
    delta_bar: Tensor
    epsilon: Tensor
    phi: Tensor
    c: Tensor
    s: Tensor

    def keep(self, chosen: Tensor) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[..., chosen])


class _Run:
    """MINRES from x = 0 on some columns."""

    def __init__(
        self, apply: Apply, precondition: Apply | None, b: Tensor, norms: Tensor, tolerance: float
    ) -> None:
        self.apply, self.precondition = apply, precondition
        self.norms, self.tolerance = norms, tolerance
        self.x = torch.zeros_like(b)
        self.residuals = relative(b, norms)
        self.active = torch.arange(b.shape[1], device=b.device)
        self.products = 0
        z = self._inverse(b)
        beta = self._beta(b, z)
        zero, one = torch.zeros_like(beta), torch.ones_like(beta)
        none = torch.zeros_like(b)
        self.now = _State(none, b, z, none, none, b, zero, beta, zero, zero, beta, -one, zero)

    def step(self) -> None:
        """One product with A, one with M⁻¹."""
        t = self.now
        v = t.z / t.beta
        q = self.apply(v)
        self.products += len(self.active)
        if bool((t.beta_old > 0).all()):  # not in the first step
            q = q - (t.beta / t.beta_old) * t.q_old
        alpha = dots(v, q)
        q = q - (alpha / t.beta) * t.q
        z = self._inverse(q)
        beta = self._beta(q, z)
        epsilon_old = t.epsilon
        delta = t.c * t.delta_bar + t.s * alpha
        gamma_bar = t.s * t.delta_bar - t.c * alpha
        epsilon, delta_bar = t.s * beta, -t.c * beta
        gamma = torch.hypot(gamma_bar, beta).clamp_min(torch.finfo(beta.dtype).tiny)
        c, s = gamma_bar / gamma, beta / gamma
        tau, phi = c * t.phi, s * t.phi
        w = (v - epsilon_old * t.w_old - delta * t.w) / gamma
        self.x[:, self.active] += tau * w
        exhausted = beta <= torch.finfo(beta.dtype).eps * (alpha.abs() + t.beta)
        direction = torch.where(exhausted, 0.0, q / beta.clamp_min(torch.finfo(beta.dtype).tiny))
        r = s.square() * t.r - (phi * c) * direction
        self.now = _State(t.q, q, z, t.w, w, r, t.beta, beta, delta_bar, epsilon, phi, c, s)
        self.residuals[self.active] = relative(r, self.norms[self.active])
        going = (self.residuals[self.active] > self.tolerance) & ~exhausted
        if not bool(going.all()):
            self.active = self.active[going]
            self.now.keep(going)

    def _inverse(self, q: Tensor) -> Tensor:
        return self.precondition(q) if self.precondition else q

    def _beta(self, q: Tensor, z: Tensor) -> Tensor:
        square = dots(q, z)
        floor = (
            -torch.finfo(q.dtype).eps
            * torch.linalg.vector_norm(q, dim=0)
            * (torch.linalg.vector_norm(z, dim=0))
        )
        if not bool((square >= floor).all()):
            raise SolverError(
                f"the preconditioner is not positive definite: rᵀM⁻¹r = {float(square.min()):.3g}; "
                "precondition by a positive semi-definite rung at a positive damping"
            )
        return square.clamp_min(0.0).sqrt()
