"""A curvature's eigenvectors with another one's eigenvalues, the largest to the largest."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.operator import Diagonalised
from decomposition.linalg import matmul

REPEATED = 1e-12
"""Neighbouring eigenvalues closer than this fraction of the largest count as one, repeated."""


class Revalued(Diagonalised):
    """V diag(values) Vᵀ, with V of ``basis`` and both spectra sorted.

    Eigenvectors of one repeated eigenvalue, such as zero, may be rotated at will: all of them have
    the mean of their values, that of all rotations.

    Args:
        basis: whose eigenvectors are taken.
        values: eigenvalues in any order.
    """

    def __init__(self, basis: Diagonalised, values: Float[Tensor, " P"]) -> None:
        """Give every eigenvector the value of its own rank."""
        mu, order = basis.basis_values().sort(stable=True)
        self.size, self.device, self._basis = basis.size, basis.device, basis
        self.definite = bool((values >= 0).all())
        starts = mu.diff(prepend=mu[:1]) > REPEATED * mu.abs().max()
        cluster = starts.cumsum(0)
        sizes = cluster.bincount().to(mu.dtype)
        means = torch.zeros_like(sizes).index_add_(0, cluster, values.sort().values) / sizes
        self._values = torch.empty_like(mu)
        self._values[order] = means[cluster]

    def basis_values(self) -> Tensor:
        """The values, in the order of the basis."""
        return self._values

    def basis_key(self) -> object:
        """That of the basis: gradients are rotated once for both."""
        return self._basis.basis_key()

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v."""
        return self._basis.to_basis(v)

    def from_basis(self, c: Tensor) -> Tensor:
        """V c."""
        return self._basis.from_basis(c)

    def basis_columns(self, places: slice | Tensor) -> Tensor:
        """V[:, places]."""
        return self._basis.basis_columns(places)

    def dense(self) -> Tensor:
        """V diag(values) Vᵀ, symmetric to the last digit."""
        vectors = self._basis.basis_columns(slice(None))
        matrix = matmul(vectors * self._values, vectors.T)
        return 0.5 * (matrix + matrix.T)
