"""How far the eigenvectors of two rungs agree: subspace overlap for every k, squared cosines."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.operator import Diagonalised
from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy
from decomposition.spectrum.overlap import squared_cosines

Order = Literal["magnitude", "value"]
"""Leading by |μ| (what the inverse sees), or by μ (what the perturbation bounds speak of)."""


def descending(mu: Float[Tensor, " P"], order: Order = "magnitude") -> Tensor:
    """Indices of the eigenvalues, leading first."""
    key = mu.abs() if order == "magnitude" else mu
    return key.argsort(descending=True, stable=True)


def eigenvectors(curvature: Diagonalised, indices: Tensor) -> Float[Tensor, "P k"]:
    """The eigenvectors at these places of the basis, in this order."""
    device = curvature.device
    unit = torch.zeros(curvature.size, len(indices), dtype=torch.float64, device=device)
    unit[indices, torch.arange(len(indices), device=device)] = 1.0
    return curvature.from_basis(unit)


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
    v = eigenvectors(curvature, descending(curvature.basis_values(), order)[:count])
    u = eigenvectors(reference, descending(reference.basis_values(), order)[:count])
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
