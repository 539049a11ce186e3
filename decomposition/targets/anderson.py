"""Anderson acceleration of many fixed-point problems at once.

Shapes: m problems of n unknowns, depth d.
Sources: Anderson (1965); Walker & Ni (2011), "Anderson acceleration for fixed-point iterations",
SIAM J. Numer. Anal. 49, in the form that minimises the residual over the last d differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Residual = Callable[[Float[Tensor, "k n"], Int64[Tensor, " k"]], Float[Tensor, "k n"]]
"""(points, which problems) → r with the fixed point of z ↦ z + r(z) where r vanishes."""

DEPTH = 6
"""d, the differences that are kept of points and of residuals."""
DIVERGED = 10.0
"""A residual that has grown by this factor is given up."""
RANK_TOLERANCE = 1e-13
"""Eigenvalues of ΔRᵀΔR below this fraction of the largest are directions already spent."""


@dataclass(frozen=True)
class FixedPoints:
    """Where the iterations ended, converged or not."""

    points: Float[Tensor, "m n"]
    residual: Float[Tensor, " m"]
    """‖r‖ / scale at ``points``; infinite where the iteration diverged."""


def anderson(
    residual: Residual,
    start: Float[Tensor, "m n"],
    scale: Float[Tensor, " m"],
    tolerance: float,
    depth: int = DEPTH,
    limit: int = 60,
    first: Float[Tensor, "m n"] | None = None,
) -> FixedPoints:
    """Iterate every problem until ‖r‖ ≤ tolerance · scale, at most ``limit`` times.

    Problems leave the batch as they converge, so that a hard one costs only its own steps.
    ``first`` is r(start), where it is known already.
    """
    points, found = start.clone(), start.new_full((len(start),), torch.inf)
    active = torch.arange(len(start), device=start.device)
    z, r = start.clone(), residual(start, active) if first is None else first
    moves: list[Tensor] = []
    changes: list[Tensor] = []
    largest = torch.maximum(r.norm(dim=1), scale)
    for _ in range(limit + 1):
        size = r.norm(dim=1)
        bad = ~(size <= DIVERGED * largest[active])
        points[active[~bad]], found[active[~bad]] = z[~bad], (size / scale[active])[~bad]
        found[active[bad]] = torch.inf
        stay = (size > tolerance * scale[active]) & ~bad
        if not stay.any():
            break
        for history in (moves, changes):
            del history[:-depth]
        if not stay.all():
            active, z, r = active[stay], z[stay], r[stay]
            for history in (moves, changes):
                for k, part in enumerate(history):  # one at a time: no second copy of them all
                    history[k] = part[stay]
        after = z + _step(r, moves, changes)
        r_after = residual(after, active)
        moves.append(after - z)
        changes.append(r_after - r)
        z, r = after, r_after
    return FixedPoints(points, found)


def _step(r: Tensor, moves: list[Tensor], changes: list[Tensor]) -> Tensor:
    """r − (ΔZ + ΔR) γ with γ = argmin ‖r − ΔR γ‖; the histories are never stacked."""
    if not moves:
        return r
    gram = torch.stack([torch.stack([_dots(a, b) for b in changes], -1) for a in changes], -2)
    right = torch.stack([_dots(a, r) for a in changes], -1)[..., None]
    weights = (torch.linalg.pinv(gram, hermitian=True, rtol=RANK_TOLERANCE) @ right)[..., 0]
    step = r.clone()
    for k, (move, change) in enumerate(zip(moves, changes, strict=True)):
        weight = weights[:, k, None]
        step.addcmul_(move, weight, value=-1.0).addcmul_(change, weight, value=-1.0)
    return step


def _dots(a: Float[Tensor, "m n"], b: Float[Tensor, "m n"]) -> Float[Tensor, " m"]:
    return torch.einsum("mn,mn->m", a, b)
