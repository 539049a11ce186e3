"""Two errors of a rung against the Hessian that cost little once the rungs are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decomposition.curvature import BlockDiagonal, Curvature, DenseCurvature, UnderPolicy
from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy

PANEL = 1024
SOLUTION_NUMBERS = 2**27
"""Numbers in the solutions that are held at once: 1 GB."""
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
    query_parts: Callable[[int], Iterable[Tensor]],
    dampings: Mapping[str, Mapping[str, float]],
    negative: str,
) -> xr.DataArray:
    """1 − cos² between X_λ⁻¹ g_Q and H_λ⁻¹ g_Q, all queries as one vector: (protocol, rung).

    Up to scale, because no rank correlation sees the scale. NaN where a rung has no solution, and
    everywhere if every solve with H takes products of its own.

    Args:
        rungs: with ``hessian`` among them.
        query_parts: most columns at a time → the query gradients in parts.
        dampings: protocol → rung → λ.
        negative: policy for negative eigenvalues.
    """
    names, protocols = list(rungs), list(dampings)
    inner = np.full((3, len(protocols), len(names)), np.nan)
    if not rungs["hessian"].matrix_free:
        inner[:] = 0.0
        most = max(1, SOLUTION_NUMBERS // (rungs["hessian"].size * max(1, len(protocols))))
        for part in query_parts(most):
            inner += _inner_products(rungs, part, dampings, negative)
    squared = inner[0] ** 2 / np.where(inner[1] * inner[2] > 0, inner[1] * inner[2], np.nan)
    found = np.maximum(0.0, 1.0 - squared)
    found[:, names.index("hessian")] = 0.0
    return xr.DataArray(found, {"protocol": protocols, "rung": names}, ("protocol", "rung"))


def _inner_products(
    rungs: Mapping[str, Curvature],
    queries: Tensor,
    dampings: Mapping[str, Mapping[str, float]],
    negative: str,
) -> np.ndarray:
    """⟨x, h⟩, ‖x‖² and ‖h‖² of the solutions with every rung and with H: (3, protocols, rungs)."""
    found = np.full((3, len(dampings), len(rungs)), np.nan)

    def solved(name: str) -> Tensor:
        wanted = [chosen[name] for chosen in dampings.values()]
        return rungs[name].solutions(queries, wanted, negative).x.flatten(1)

    exact = solved("hessian")
    for column, (name, rung) in enumerate(rungs.items()):
        if rung.matrix_free or not all(name in chosen for chosen in dampings.values()):
            continue
        mine = exact if name == "hessian" else solved(name)
        pairs = ((mine, exact), (mine, mine), (exact, exact))
        for row, (one, other) in enumerate(pairs):
            found[row, :, column] = to_numpy((one * other).sum(1))
    return found
