"""How much a rung's layers share of the exact ones' spectra: Eq. 16 and 17 of Hong et al. 2025.

For the block C_l of a rung and G_l of the block GGN, with sorted eigenvalues μ and ν, and their k
leading eigenvectors by magnitude V_k and U_k,

    block_eigenvalue_overlap  1 − ‖μ − ν‖₂ / ‖ν‖₂
    block_subspace_overlap    ‖V_kᵀ U_k‖²_F / k

1 where they are equal; the first is negative where the error is larger than the spectrum. Of a
whole rung it is the mean over layers, weighted by their numbers of parameters. H and G stand with
their diagonal blocks. Among repeated eigenvalues at the k-th place V_k is arbitrary.

The paper (arXiv 2509.23437) could not be read in full: the definitions are those of its public code
(SteveHong1901/Hessian @1cb5c60), which says nothing of weights or of k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature import Curvature, NotAvailableError
from decomposition.spectrum.scopes import blocks_of

BLOCK_OVERLAPS = {
    "block_eigenvalue_overlap": "1 − ‖μ − ν‖₂ / ‖ν‖₂ of a layer's sorted spectra; 1 is perfect",
    "block_subspace_overlap": "‖V_kᵀ U_k‖²_F / k of a layer's k leading eigenvectors; 1 is perfect",
}
"""Metric against the block GGN → what it is."""
REFERENCE = "block_ggn"


def block_overlaps(rungs: Mapping[str, Curvature], leading: int) -> dict[str, xr.Dataset]:
    """Both overlaps of every rung that has blocks: path in a result → its rows.

    Args:
        rungs: name → curvature, with ``block_ggn`` among them.
        leading: k; a smaller block has all its eigenvectors compared.

    Returns:
        value(metric, rung), and leading, the k of the group; NaN where a rung's blocks, or those of
        the block GGN, do not tell.
    """
    blocks = {name: blocks_of(name, rungs) for name in rungs}
    found, weights = {}, {}
    for layer, exact in blocks[REFERENCE].items():
        k = min(leading, exact.size)
        parts = [blocks[name].get(layer) for name in rungs]
        table = np.full((len(BLOCK_OVERLAPS), len(rungs)), np.nan)
        for column, part in enumerate(parts):
            if part is not None and part.size == exact.size:
                table[:, column] = _overlaps(part, exact, k)
        found[f"/spectral_error/{layer}"] = _rows(table, rungs, k)
        weights[layer] = exact.size
    tables = [rows["value"].values for rows in found.values()]
    missing = np.full((len(BLOCK_OVERLAPS), len(rungs)), np.nan)
    mean = np.average(tables, 0, list(weights.values())) if tables else missing
    return {"/spectral_error": _rows(mean, rungs, leading), **found}


def _rows(
    table: Float[np.ndarray, "metrics rungs"], rungs: Mapping[str, Curvature], leading: int
) -> xr.Dataset:
    return xr.Dataset(
        {"value": (("metric", "rung"), table), "leading": ((), leading)},
        {"metric": list(BLOCK_OVERLAPS), "rung": list(rungs)},
    )


def _overlaps(part: Curvature, exact: Curvature, k: int) -> tuple[float, float]:
    if part is exact:
        return 1.0, 1.0
    mu, nu = (_known(block.eigenvalues) for block in (part, exact))
    v, u = (_known(lambda block=block: block.leading_vectors(k)) for block in (part, exact))
    values = np.nan if mu is None or nu is None else block_eigenvalue_overlap(mu, nu)
    vectors = np.nan if v is None or u is None else float((v.T @ u).square().sum()) / k
    return values, vectors


def _known(tell: Callable[[], Tensor]) -> Tensor | None:
    try:
        return tell()
    except NotAvailableError:  # known by its products or by its solver alone
        return None


def block_eigenvalue_overlap(mu: Float[Tensor, " P"], nu: Float[Tensor, " P"]) -> float:
    """1 − ‖μ − ν‖₂ / ‖ν‖₂ of the sorted spectra; NaN if ν alone is zero, 1 if both are."""
    gap = float(torch.linalg.vector_norm(mu.sort().values - nu.sort().values))
    scale = float(torch.linalg.vector_norm(nu))
    if not scale:
        return np.nan if gap else 1.0
    return 1.0 - gap / scale
