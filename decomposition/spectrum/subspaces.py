"""How two curvatures' eigenvalues and eigenvectors overlap.

For C = V diag(μ) Vᵀ and R = U diag(ν) Uᵀ everything about pairs of functions of C and R lies in
the squared cosines W_ij = (v_i · u_j)²: ⟨f(C), g(R)⟩ = f(μ)ᵀ W g(ν). W is made panel by panel and
never held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature import BlockDiagonal, DenseCurvature
from decomposition.curvature.operator import Diagonalised
from decomposition.errors import DecompositionError
from decomposition.linalg import matmul, to_numpy

PANEL = 1024
Order = Literal["magnitude", "value"]
"""Leading by |μ| (what the inverse sees), or by μ (what the perturbation bounds speak of)."""


def squared_cosines(
    curvature: Diagonalised, reference: Diagonalised, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[slice, Float[Tensor, "P panel"]]]:
    """Panels of W: all eigenvectors of ``curvature`` against some of ``reference``.

    In float32 an entry is off by about 10⁻⁷, at half the time and memory.
    """
    project = in_basis(curvature, dtype)
    for start in range(0, reference.size, PANEL):
        panel = slice(start, min(start + PANEL, reference.size))
        yield panel, project(reference.basis_columns(panel)).square_()


def in_basis(
    curvature: Diagonalised, dtype: torch.dtype, back: bool = False
) -> Callable[[Tensor], Tensor]:
    """v ↦ Vᵀ v in this precision, or ``back``: c ↦ V c.

    Eigenvectors that are held as a matrix are converted once, when this is called.
    """
    if isinstance(curvature, BlockDiagonal):
        blocks = [block.eigenbasis for block in curvature.diagonal_blocks().values()]
        parts = [in_basis(block, dtype, back) for block in blocks if block is not None]
        sizes = [block.size for block in curvature.diagonal_blocks().values()]
        return lambda v: torch.cat(
            [apply(some) for apply, some in zip(parts, v.split(sizes), strict=True)]
        )
    if isinstance(curvature, DenseCurvature):
        vectors = curvature.decomposition()[1].to(dtype)
        matrix = vectors if back else vectors.T
        return lambda v: matmul(matrix, v.to(dtype))
    apply = curvature.from_basis if back else curvature.to_basis
    return lambda v: apply(v.double()).to(dtype)


def eigenvalue_overlap(mu: Float[Tensor, " P"], nu: Float[Tensor, " P"]) -> float:
    """1 − ‖μ − ν‖₁ / (‖μ‖₁ + ‖ν‖₁) of the sorted spectra: 1 if equal, 0 if nothing is shared."""
    mu, nu = mu.sort().values, nu.sort().values
    total = float(mu.abs().sum() + nu.abs().sum())
    if not total:
        return 1.0
    return max(1.0 - float((mu - nu).abs().sum()) / total, 0.0)  # rounding may reach below 0


def descending(mu: Float[Tensor, " P"], order: Order = "magnitude") -> Tensor:
    """Indices of the eigenvalues, leading first."""
    key = mu.abs() if order == "magnitude" else mu
    return key.argsort(descending=True, stable=True)


def subspace_overlap(
    curvature: Diagonalised, reference: Diagonalised, order: Order = "magnitude"
) -> xr.DataArray:
    """‖V_kᵀ U_k‖²_F / k for k = 1 … P in one pass over the squared cosines.

    1 where both leading subspaces are the same, k / P for a random one. Among repeated
    eigenvalues (the null spaces) the basis, and so the value inside the cluster, is arbitrary.
    """
    _same_size(curvature, reference)
    mu_place = _places(curvature.basis_values(), order)
    nu_place = _places(reference.basis_values(), order)
    gained = torch.zeros(curvature.size, dtype=torch.float64, device=reference.device)
    # W_ij joins the overlap at k = max(place of i, place of j)
    for panel, w in squared_cosines(curvature, reference):
        columns = nu_place[panel]
        before = w * (mu_place[:, None] <= columns)
        gained[columns] += before.sum(0)
        gained[mu_place] += (w - before).sum(1)
    k = np.arange(1, curvature.size + 1)
    return xr.DataArray(to_numpy(gained.cumsum(0)) / k, dims="k", coords={"k": k}, name="overlap")


def cosine_matrix(
    curvature: Diagonalised, reference: Diagonalised, count: int, order: Order = "magnitude"
) -> xr.DataArray:
    """(v_i · u_j)² of the ``count`` leading eigenvectors: (vector, reference_vector), from 1.

    Raises:
        DecompositionError: count outside 1 … P.
    """
    _same_size(curvature, reference)
    if not 1 <= count <= curvature.size:
        raise DecompositionError(f"the number of vectors lies in 1 … {curvature.size}, got {count}")
    v, u = (
        c.basis_columns(descending(c.basis_values(), order)[:count]) for c in (curvature, reference)
    )
    rank = np.arange(1, count + 1)
    return xr.DataArray(
        to_numpy((v.T @ u).square()),
        dims=("vector", "reference_vector"),
        coords={"vector": rank, "reference_vector": rank},
        name="squared_cosine",
    )


def _places(mu: Tensor, order: Order) -> Tensor:
    places = torch.empty(len(mu), dtype=torch.long, device=mu.device)
    places[descending(mu, order)] = torch.arange(len(mu), device=mu.device)
    return places


def _same_size(curvature: Diagonalised, reference: Diagonalised) -> None:
    if curvature.size != reference.size:
        raise DecompositionError(
            f"the curvatures have sizes {curvature.size} and {reference.size}: eigenvectors can "
            "only be compared at one size"
        )
