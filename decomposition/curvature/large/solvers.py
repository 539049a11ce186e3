"""Preconditioned MINRES and conjugate gradients for many right-hand sides at once.

Both solve A X = B column by column, with one product for all columns that have not converged:
columns that have are set aside. A is given by its products, and M ≈ A⁻¹, symmetric and positive
definite, by its own. The residual is the true one, ‖b − A x‖ / ‖b‖, followed by a recurrence.

MINRES (Paige & Saunders 1975, doi 10.1137/0712047) takes a symmetric A, definite or not;
conjugate gradients (Hestenes & Stiefel 1952, doi 10.6028/jres.049.044) a positive definite one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.errors import DecompositionError

Apply = Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]


class NotConvergedError(DecompositionError):
    """An iterative solver did not reach its tolerance."""


@dataclass(frozen=True)
class Solution:
    """What a solver found, and what it cost."""

    x: Float[Tensor, "P k"]
    """Columns of the solution."""
    residuals: Float[Tensor, " k"]
    """‖b − A x‖ / ‖b‖ of every column."""
    iterations: Float[Tensor, " k"]
    """Steps, one product each, until the column converged."""
    history: list[float] = field(default_factory=list)
    """Largest residual after every step."""

    @property
    def products(self) -> int:
        """Columns multiplied with A."""
        return int(self.iterations.sum())


def minres(
    a: Apply,
    b: Float[Tensor, "P k"],
    preconditioner: Apply | None = None,
    tolerance: float = 1e-8,
    most: int = 1000,
) -> Solution:
    """Solve A x = b for a symmetric A.

    Args:
        a: v → A v.
        b: right-hand sides.
        preconditioner: v → M v with M ≈ |A|⁻¹ symmetric and positive definite; default I.
        tolerance: on the residual of every column.
        most: steps.

    Raises:
        NotConvergedError: a column is above the tolerance after ``most`` steps.
        DecompositionError: the preconditioner is not positive definite.
    """
    track = _Columns(b, tolerance)
    apply = preconditioner or (lambda v: v)
    r1 = track.take(b)
    y = apply(r1)
    beta1 = _root((r1 * y).sum(0))
    state = {
        "r1": r1,
        "r2": r1.clone(),
        "residual": r1.clone(),
        "y": y,
        "x": torch.zeros_like(r1),
        "w": torch.zeros_like(r1),
        "w2": torch.zeros_like(r1),
        "beta": beta1,
        "old": torch.ones_like(beta1),
        "dbar": torch.zeros_like(beta1),
        "epsilon": torch.zeros_like(beta1),
        "phibar": beta1.clone(),
        "cs": -torch.ones_like(beta1),
        "sn": torch.zeros_like(beta1),
    }
    for step in range(most):
        if track.done():
            break
        s = state
        v = s["y"] / s["beta"]
        y = a(v)
        if step:
            y = y - (s["beta"] / s["old"]) * s["r1"]
        alpha = (v * y).sum(0)
        y = y - (alpha / s["beta"]) * s["r2"]
        s["r1"], s["r2"] = s["r2"], y
        s["y"] = apply(y)
        s["old"], s["beta"] = s["beta"], _root((y * s["y"]).sum(0))
        before = s["epsilon"]
        delta = s["cs"] * s["dbar"] + s["sn"] * alpha
        gbar = s["sn"] * s["dbar"] - s["cs"] * alpha
        s["epsilon"], s["dbar"] = s["sn"] * s["beta"], -s["cs"] * s["beta"]
        gamma = torch.hypot(gbar, s["beta"]).clamp_min(torch.finfo(b.dtype).tiny)
        s["cs"], s["sn"] = gbar / gamma, s["beta"] / gamma
        phi, s["phibar"] = s["cs"] * s["phibar"], s["sn"] * s["phibar"]
        w = (v - before * s["w2"] - delta * s["w"]) / gamma
        s["w2"], s["w"] = s["w"], w
        s["x"] = s["x"] + phi * w
        next_basis = s["r2"] / torch.where(s["beta"] > 0, s["beta"], 1.0)
        s["residual"] = s["sn"].square() * s["residual"] - s["phibar"] * s["cs"] * next_basis
        state = track.after_step(s, exhausted=s["beta"] == 0)
    return track.solution("MINRES", state["x"], most)


def conjugate_gradients(
    a: Apply,
    b: Float[Tensor, "P k"],
    preconditioner: Apply | None = None,
    tolerance: float = 1e-8,
    most: int = 1000,
) -> Solution:
    """Solve A x = b for a positive definite A; arguments as for ``minres``.

    Raises:
        NotConvergedError: a column is above the tolerance after ``most`` steps.
        DecompositionError: A or the preconditioner is not positive definite.
    """
    track = _Columns(b, tolerance)
    apply = preconditioner or (lambda v: v)
    residual = track.take(b)
    z = apply(residual)
    state = {"residual": residual, "p": z, "x": torch.zeros_like(z), "rho": (residual * z).sum(0)}
    _root(state["rho"])
    for _ in range(most):
        if track.done():
            break
        s = state
        image = a(s["p"])
        curvature = (s["p"] * image).sum(0)
        if bool((curvature <= 0).any()):
            raise DecompositionError(
                "conjugate gradients met a direction of non-positive curvature "
                f"({float(curvature.min()):.3g}): the matrix is not positive definite; raise the "
                "damping or use MINRES"
            )
        length = s["rho"] / curvature
        s["x"] = s["x"] + length * s["p"]
        s["residual"] = s["residual"] - length * image
        z = apply(s["residual"])
        rho = (s["residual"] * z).sum(0)
        s["p"] = z + (rho / s["rho"]) * s["p"]
        s["rho"] = rho
        state = track.after_step(s, exhausted=rho <= 0)
    return track.solution("conjugate gradients", state["x"], most)


class _Columns:
    """Which columns are still at work, and what became of the others."""

    def __init__(self, b: Tensor, tolerance: float) -> None:
        self.norms = torch.linalg.vector_norm(b, dim=0)
        self.x = torch.zeros_like(b)
        self.tolerance = tolerance
        self.residuals = torch.zeros_like(self.norms)
        self.iterations = torch.zeros_like(self.norms)
        self.active = torch.nonzero(self.norms > 0).flatten()  # a zero column is solved by zero
        self.residuals[self.active] = 1.0
        self.history: list[float] = []

    def take(self, b: Tensor) -> Tensor:
        return b[:, self.active].clone()

    def done(self) -> bool:
        return not len(self.active)

    def after_step(self, state: dict[str, Tensor], exhausted: Tensor) -> dict[str, Tensor]:
        """Set aside the columns that have converged or cannot go on."""
        size = torch.linalg.vector_norm(state["residual"], dim=0) / self.norms[self.active]
        self.iterations[self.active] += 1
        self.residuals[self.active] = size
        self.history.append(float(self.residuals.max()))
        over = (size <= self.tolerance) | exhausted | ~torch.isfinite(size)
        if not bool(over.any()):
            return state
        self.x[:, self.active[over]] = state["x"][:, over]
        self.active = self.active[~over]
        return {name: value[..., ~over] for name, value in state.items()}

    def solution(self, name: str, x: Tensor, most: int) -> Solution:
        self.x[:, self.active] = x
        worst = float(self.residuals.max()) if len(self.residuals) else 0.0
        if not worst <= self.tolerance:
            count = int((~(self.residuals <= self.tolerance)).sum())
            raise NotConvergedError(
                f"{name}: {count} of {len(self.residuals)} columns are above the tolerance "
                f"{self.tolerance:g} after {int(self.iterations.max())} of at most {most} steps "
                f"(largest residual {worst:.3g}): raise the damping, the tolerance or the number "
                "of steps, or give a better preconditioner"
            )
        return Solution(self.x, self.residuals, self.iterations, self.history)


def _root(square: Tensor) -> Tensor:
    """√(vᵀ M v), which is real for a positive definite M."""
    if bool((square < 0).any()):
        raise DecompositionError(
            f"the preconditioner is not positive definite: vᵀMv = {float(square.min()):.3g}"
        )
    return square.sqrt()
