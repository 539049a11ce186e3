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
    depth: int = 6,
    limit: int = 60,
) -> FixedPoints:
    """Iterate every problem until ‖r‖ ≤ tolerance · scale, at most ``limit`` times.

    Problems leave the batch as they converge, so that a hard one costs only its own steps.
    """
    points, found = start.clone(), start.new_full((len(start),), torch.inf)
    active = torch.arange(len(start), device=start.device)
    z, r = start.clone(), residual(start, active)
    moves: list[Tensor] = []
    changes: list[Tensor] = []
    first = r.norm(dim=1)
    for _ in range(limit + 1):
        size = r.norm(dim=1)
        bad = ~(size <= DIVERGED * torch.maximum(first[active], scale[active]))
        points[active[~bad]], found[active[~bad]] = z[~bad], (size / scale[active])[~bad]
        found[active[bad]] = torch.inf
        stay = (size > tolerance * scale[active]) & ~bad
        if not stay.any():
            break
        active, z, r = active[stay], z[stay], r[stay]
        moves, changes = ([part[stay] for part in parts][-depth:] for parts in (moves, changes))
        after = z + _step(r, moves, changes)
        r_after = residual(after, active)
        moves.append(after - z)
        changes.append(r_after - r)
        z, r = after, r_after
    return FixedPoints(points, found)


def _step(r: Tensor, moves: list[Tensor], changes: list[Tensor]) -> Tensor:
    """r − (ΔZ + ΔR) γ with γ = argmin ‖r − ΔR γ‖."""
    if not moves:
        return r
    change = torch.stack(changes, -1)
    gram = torch.linalg.pinv(change.mT @ change, hermitian=True, rtol=RANK_TOLERANCE)
    weights = gram @ (change.mT @ r[..., None])
    return r - ((torch.stack(moves, -1) + change) @ weights)[..., 0]
