"""Two errors of a rung against the Hessian that cost little once the rungs are there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decomposition.curvature import BlockDiagonal, Curvature, DenseCurvature, UnderPolicy
from decomposition.errors import DecompositionError

PANEL = 1024
EXACT = 1e-14
"""Below this a relative squared distance is rounding of its terms."""


def frobenius_errors(rungs: Mapping[str, Curvature]) -> dict[str, float]:
    """‖H − X‖_F / ‖H‖_F of every rung that has a matrix.

    ‖H − X‖² = ‖H‖² − 2⟨H, X⟩ + ‖X‖², with the inner product taken over the diagonal blocks where
    X has no others, and by products with X where it is not dense.
    """
    hessian = rungs["hessian"].dense()
    square = float(torch.linalg.vector_norm(hessian)) ** 2
    found = {}
    for name, rung in rungs.items():
        try:
            norm = rung.frobenius_norm() ** 2
            inner = _inner(hessian, rung)
        except DecompositionError:  # known by its solver alone
            continue
        distance = square - 2.0 * inner + norm
        found[name] = (distance / square) ** 0.5 if distance > EXACT * square else 0.0
    return found


def _inner(hessian: Tensor, rung: Curvature) -> float:
    """⟨H, X⟩ = tr(X H)."""
    if isinstance(rung, UnderPolicy):  # a policy changes the inverse, not the matrix
        return _inner(hessian, rung.curvature)
    if isinstance(rung, DenseCurvature):
        return float((hessian * rung.dense()).sum())
    total, start = 0.0, 0
    if isinstance(rung, BlockDiagonal):
        for block in rung.diagonal_blocks().values():
            inside = slice(start, start + block.size)
            total += _inner(hessian[inside, inside], block)
            start = inside.stop
        return total
    for panel in torch.arange(rung.size).split(PANEL):
        total += float(rung.matvec(hessian[:, panel])[panel].trace())
    return total


def solution_errors(
    rungs: Mapping[str, Curvature],
    queries: Tensor,
    dampings: Mapping[str, Mapping[str, float]],
    negative: str,
) -> dict[str, dict[str, float]]:
    """1 − cos² between X_λ⁻¹ g_Q and H_λ⁻¹ g_Q, all queries as one vector; protocol → rung.

    Up to scale, because no rank correlation sees the scale. λ is each rung's under the protocol,
    and ``negative`` the policy for negative eigenvalues.
    """
    found: dict[str, dict[str, float]] = {}
    for protocol, chosen in dampings.items():
        exact = rungs["hessian"].solve(queries, chosen["hessian"], negative).flatten()
        found[protocol] = {}
        for name, rung in rungs.items():
            if name == "hessian":
                found[protocol][name] = 0.0
                continue
            solved = rung.solve(queries, chosen[name], negative).flatten()
            norms = torch.linalg.vector_norm(solved) * torch.linalg.vector_norm(exact)
            cosine = float(torch.vdot(solved, exact) / norms)
            found[protocol][name] = max(0.0, 1.0 - cosine**2)
    return found
