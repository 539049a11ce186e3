"""A layer's curvature in a Kronecker eigenbasis, and that basis itself.

With A = E[a aᵀ] = Q_A diag(α) Q_Aᵀ (width × width) and S = E[Σ_c s_c s_cᵀ] = Q_S diag(σ) Q_Sᵀ
(d_out × d_out), the basis matrix of index (i, j) is Q_S[:, i] Q_A[:, j]ᵀ in [W | b] form. K-FAC
gives it the eigenvalue σ_i α_j (Martens & Grosse 2015, arXiv 1503.05671), EK-FAC the exact
curvature along it (George et al. 2018, arXiv 1806.03884).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.assembly import add_term
from decomposition.curvature.base import Diagonalised
from decomposition.curvature.damped import FactoredDamping, factor_ratio
from decomposition.layers import LinearBlock
from decomposition.linalg import eigh, matmul

DEGENERACY_TOLERANCE = 1e-9
"""Neighbouring eigenvalues closer than this fraction of the largest count as repeated."""
NULL_TOLERANCE = 1e-12
"""Eigenvalues below this fraction of the largest count as zero."""


@dataclass(frozen=True)
class FactorBasis:
    """Canonical eigendecomposition of one Kronecker factor."""

    values: Float[Tensor, " d"]
    """Ascending; negative rounding errors are set to 0."""
    vectors: Float[Tensor, "d d"]
    """Orthonormal columns; the entry of largest magnitude in each is positive."""
    degenerate: tuple[tuple[int, int], ...]
    """[start, stop) of each cluster of repeated non-zero eigenvalues."""
    null: int = 0
    """Number of zero eigenvalues, which come first, if there are several."""


def factor_basis(factor: Float[Tensor, "d d"]) -> FactorBasis:
    """Eigendecomposition of a factor, made unique.

    Within a cluster of repeated eigenvalues any rotation is an eigenbasis, and EK-FAC depends on
    which one is taken. The cluster's basis is fixed by its projector Π alone: Gram–Schmidt on
    the columns of Π, each time the one with most left. Signs make the largest entry positive.
    """
    values, vectors = eigh(factor)
    values = values.clamp_min(0.0)
    largest = float(values[-1])
    degenerate: list[tuple[int, int]] = []
    start = null = 0
    gaps = (values.diff() > DEGENERACY_TOLERANCE * largest).tolist()
    for stop in [i + 1 for i, gap in enumerate(gaps) if gap] + [len(values)]:
        if stop - start > 1:
            vectors[:, start:stop] = _canonical(vectors[:, start:stop])
            if float(values[stop - 1]) > NULL_TOLERANCE * largest:
                degenerate.append((start, stop))
            else:
                null = stop
        start = stop
    pivot = vectors.abs().argmax(0)
    signs = vectors.gather(0, pivot[None]).sign()
    return FactorBasis(
        values, vectors * torch.where(signs == 0, 1.0, signs), tuple(degenerate), null
    )


def _canonical(basis: Tensor) -> Tensor:
    projector = basis @ basis.T
    columns: list[Tensor] = []
    for _ in range(basis.shape[1]):
        left = projector.diagonal()
        # The first index within rounding of the maximum, so that ties do not depend on noise.
        pivot = int((left >= left.max() * (1 - 1e-9)).nonzero()[0])
        column = projector[:, pivot] / left[pivot].sqrt()
        projector = projector - torch.outer(column, column)
        columns.append(column)
    orthonormal, r = torch.linalg.qr(torch.stack(columns, 1))  # removes accumulated rounding
    return orthonormal * r.diagonal().sign()


Part = Literal["layer", "weight", "bias"]


@dataclass(frozen=True)
class KroneckerBasis:
    """Eigenbases of both factors of one layer, or of its weight or bias alone."""

    block: LinearBlock
    """Where its parameters lie; a bias counts as a layer whose only input is the constant 1."""
    inputs: FactorBasis
    """Of A (width × width)."""
    outputs: FactorBasis
    """Of S (d_out × d_out)."""
    part: Part = "layer"
    """What of the layer it covers."""
    weight_inputs: FactorBasis | None = None
    """Of the weight's A, for a bias: both share one damping of S."""

    @property
    def columns(self) -> slice:
        """Columns of [W | b], that is, of the layer input with 1 appended."""
        width = self.block.d_in
        return {"layer": slice(None), "weight": slice(0, width), "bias": slice(-1, None)}[self.part]

    @property
    def name(self) -> str:
        """The layer, and which part of it."""
        where = "" if self.part == "layer" else f" ({self.part})"
        return f"layer {self.block.name}{where}"

    def products(self) -> Float[Tensor, "d_out width"]:
        """K-FAC's eigenvalues σ_i α_j."""
        return torch.outer(self.outputs.values, self.inputs.values)

    def factored_damping(self) -> FactoredDamping:
        """Of (A + π√λ I) ⊗ (S + (√λ/π) I), in the order of the basis.

        The A = 1 of a bias of its own is no factor to damp: S + (√λ/π) I with the π of the
        layer's weight, as curvlinops 3.0.1 has it.
        """
        of_weight = self.weight_inputs or self.inputs
        pi = factor_ratio(of_weight.values, self.outputs.values)
        alpha, sigma = self.inputs.values, self.outputs.values[:, None]
        if pi is None:
            return FactoredDamping.none(self.block.size, alpha.device)
        if self.part == "bias":
            root, whole = alpha / pi + 0 * sigma, -1.0
        else:
            root, whole = pi * sigma + alpha / pi, 0.0
        return FactoredDamping(root.flatten(), torch.full_like(root, whole).flatten())

    def notes(self) -> tuple[str, ...]:
        """A sentence for each factor with repeated eigenvalues."""
        return tuple(
            f"{self.name}: the {factor} factor has repeated eigenvalues at "
            f"{', '.join(f'{a}–{b - 1}' for a, b in basis.degenerate)} (ascending), so EK-FAC is "
            "not unique there; the canonical basis is used"
            for factor, basis in (("input", self.inputs), ("output", self.outputs))
            if basis.degenerate
        )

    def null_space_notes(self, values: Float[Tensor, "d_out width"]) -> tuple[str, ...]:
        """A sentence for each factor along whose null space there is curvature all the same.

        There is none in factors of the rows that make up the curvature. K-FAC *reduce* has the
        factors of their means over positions, and H is no second moment of rows.
        """
        floor = NULL_TOLERANCE * float(values.abs().max())
        return tuple(
            f"{self.name}: the {factor} factor is zero in {basis.null} directions in which there "
            "is curvature all the same, so EK-FAC is not unique there; the canonical basis is used"
            for factor, basis, along in (
                ("input", self.inputs, values),
                ("output", self.outputs, values.T),
            )
            if basis.null and float(along[:, : basis.null].abs().max()) > floor
        )


class KroneckerCurvature(Diagonalised):
    """One layer's curvature (Q_S ⊗ Q_A) diag(values) (Q_S ⊗ Q_A)ᵀ, never formed unless asked."""

    def __init__(
        self,
        basis: KroneckerBasis,
        values: Float[Tensor, "d_out width"],
        factored_damping: bool = False,
    ) -> None:
        """Give the basis its eigenvalues, and say whether λ damps the factors one by one."""
        self.basis = basis
        self.values = values
        self._factored = basis.factored_damping() if factored_damping else None
        self.size, self.device = basis.block.size, values.device
        self.notes = (*basis.notes(), *basis.null_space_notes(values))

    def basis_values(self) -> Tensor:
        """values, row-major: index i·width + j belongs to Q_S[:, i] Q_A[:, j]ᵀ."""
        return self.values.flatten()

    def basis_key(self) -> object:
        """The Kronecker basis: EK-FAC and K-FAC have the same."""
        return id(self.basis)

    def factored_damping(self) -> FactoredDamping | None:
        """That of the basis, row-major; None where λI is added to the product."""
        return self._factored

    def to_basis(self, v: Tensor) -> Tensor:
        """Q_Sᵀ [W | b] Q_A for every column."""
        return self._rotate(self.basis.block.to_matrix(v), transpose=True).flatten(0, 1)

    def from_basis(self, c: Tensor) -> Tensor:
        """Q_S C Q_Aᵀ for every column."""
        coordinates = c.reshape(*self.values.shape, c.shape[1])
        return self.basis.block.from_matrix(self._rotate(coordinates, transpose=False))

    def dense(self) -> Tensor:
        """Σ_ab v_ab (Q_S,a Q_S,aᵀ) ⊗ (Q_A,b Q_A,bᵀ), by one product over the widths."""
        q_s, q_a = self.basis.outputs.vectors, self.basis.inputs.vectors
        d_out, width = self.values.shape
        rows = (q_s[:, None, :] * q_s[None, :, :]).reshape(d_out**2, d_out) @ self.values
        columns = (q_a[:, None, :] * q_a[None, :, :]).reshape(width**2, width)
        term = matmul(rows, columns.T).view(d_out, d_out, width, width).permute(0, 2, 1, 3)
        block = replace(self.basis.block, start=0)
        out = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.device)
        add_term(out, (block, block), term)
        return out

    def _rotate(self, m: Float[Tensor, "d_out width k"], transpose: bool) -> Tensor:
        q_s, q_a = self.basis.outputs.vectors, self.basis.inputs.vectors
        q_s, q_a = (q_s.T, q_a.T) if transpose else (q_s, q_a)
        d_out, width, k = m.shape
        rows = (q_s @ m.reshape(d_out, width * k)).view(d_out, width, k)
        return torch.matmul(q_a, rows)
