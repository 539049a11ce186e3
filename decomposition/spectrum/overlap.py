"""How two curvatures' eigenvalues and eigenvectors overlap.

For C = V diag(μ) Vᵀ and R = U diag(ν) Uᵀ everything about pairs of functions of C and R lies in
the squared cosines W_ij = (v_i · u_j)²: ⟨f(C), g(R)⟩ = f(μ)ᵀ W g(ν). W is made panel by panel and
never held whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.operator import Diagonalised

PANEL = 1024


def squared_cosines(
    curvature: Diagonalised, reference: Diagonalised
) -> Iterator[tuple[slice, Float[Tensor, "P panel"]]]:
    """Panels of W: all eigenvectors of ``curvature`` against some of ``reference``."""
    for start in range(0, reference.size, PANEL):
        panel = slice(start, min(start + PANEL, reference.size))
        yield panel, curvature.to_basis(reference.basis_columns(panel)).square_()


def eigenvalue_overlap(mu: Float[Tensor, " P"], nu: Float[Tensor, " P"]) -> float:
    """1 − ‖μ − ν‖₁ / (‖μ‖₁ + ‖ν‖₁) of the sorted spectra: 1 if equal, 0 if nothing is shared."""
    mu, nu = mu.sort().values, nu.sort().values
    total = float(mu.abs().sum() + nu.abs().sum())
    if not total:
        return 1.0
    return max(1.0 - float((mu - nu).abs().sum()) / total, 0.0)  # rounding may reach below 0


def leading(mu: Float[Tensor, " P"], k: int) -> Tensor:
    """Indices of the k eigenvalues of largest magnitude, largest first."""
    return mu.abs().argsort(descending=True, stable=True)[:k]
