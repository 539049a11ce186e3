"""A layer's curvature in a Kronecker eigenbasis, and that basis itself.

With A = E[a aᵀ] = Q_A diag(α) Q_Aᵀ (width × width) and S = E[Σ_c s_c s_cᵀ] = Q_S diag(σ) Q_Sᵀ
(d_out × d_out), the basis matrix of index (i, j) is Q_S[:, i] Q_A[:, j]ᵀ in [W | b] form. K-FAC
gives it the eigenvalue σ_i α_j (Martens & Grosse 2015, arXiv 1503.05671), EK-FAC the exact
curvature along it (George et al. 2018, arXiv 1806.03884).

A grouped convolution is G linear maps side by side. Each group g has factors A_g and S_g of its
own, and the layer's basis is the union of their bases: coupling between groups, which the layer's
exact block has, lies outside of it. Factors of groups are stacked in a leading dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.damped import FactoredDamping, factor_ratio
from decomposition.curvature.factor_basis import NULL_TOLERANCE, FactorBasis
from decomposition.curvature.operator import Diagonalised
from decomposition.layers import LinearBlock
from decomposition.linalg import matmul

FEW_COLUMNS = 32
"""Columns up to which a rotation moves them aside: 18 times as fast for one, the same for 64."""
CLUSTERS = 5
"""Places of repeated eigenvalues that a note names."""

Part = Literal["layer", "weight", "bias"]


@dataclass(frozen=True)
class KroneckerBasis:
    """Eigenbases of both factors of one layer, or of its weight or bias alone."""

    block: LinearBlock
    """Where its parameters lie; a bias counts as a layer whose only input is the constant 1."""
    inputs: FactorBasis
    """Of A (width × width), or of those of G groups."""
    outputs: FactorBasis
    """Of S (d_out × d_out, or G matrices of d_out / G)."""
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
        return torch.einsum("...i,...j->...ij", self.outputs.values, self.inputs.values).flatten(
            0, -2
        )

    def factored_damping(self) -> FactoredDamping:
        """Of (A + π√λ I) ⊗ (S + (√λ/π) I), in the order of the basis.

        The A = 1 of a bias of its own is no factor to damp: S + (√λ/π) I with the π of the
        layer's weight, as curvlinops 3.0.1 has it.
        """
        of_weight = self.weight_inputs or self.inputs
        groups = (b.values.view(-1, b.values.shape[-1]) for b in (of_weight, self.inputs))
        sigmas = self.outputs.values.view(self.block.groups, -1)
        return FactoredDamping.joined(
            [self._damped(*values) for values in zip(*groups, sigmas, strict=True)]
        )

    def _damped(self, of_weight: Tensor, alpha: Tensor, sigma: Tensor) -> FactoredDamping:
        pi, sigma = factor_ratio(of_weight, sigma), sigma[:, None]
        if pi is None:
            return FactoredDamping.none(len(sigma) * len(alpha), alpha.device)
        if self.part == "bias":
            root, whole = alpha / pi + 0 * sigma, -1.0
        else:
            root, whole = pi * sigma + alpha / pi, 0.0
        return FactoredDamping(root.flatten(), torch.full_like(root, whole).flatten())

    def notes(self) -> tuple[str, ...]:
        """A sentence for each factor with repeated eigenvalues."""
        order = "ascending" if self.block.groups == 1 else "ascending, group after group"
        return tuple(
            f"{self.name}: the {factor} factor has repeated eigenvalues at "
            f"{_clusters(basis.degenerate)} ({order}), so EK-FAC is not unique there; the "
            "canonical basis is used"
            for factor, basis in (("input", self.inputs), ("output", self.outputs))
            if basis.degenerate
        )

    def null_space_notes(self, values: Float[Tensor, "d_out width"]) -> tuple[str, ...]:
        """A sentence for each factor along whose null space there is curvature all the same.

        There is none in factors of the rows that make up the curvature. K-FAC *reduce* has the
        factors of their means over positions, and H is no second moment of rows.
        """
        floor = NULL_TOLERANCE * float(values.abs().max())
        groups = values.view(self.block.groups, -1, values.shape[1])
        counts = {
            factor: sum(
                null
                for null, of_group in zip(basis.null, along, strict=True)
                if null and float(of_group[:, :null].abs().max()) > floor
            )
            for factor, basis, along in (
                ("input", self.inputs, groups),
                ("output", self.outputs, groups.mT),
            )
        }
        return tuple(
            f"{self.name}: the {factor} factor is zero in {count} directions in which there "
            "is curvature all the same, so EK-FAC is not unique there; the canonical basis is used"
            for factor, count in counts.items()
            if count
        )


def _clusters(degenerate: tuple[tuple[int, int], ...]) -> str:
    said = ", ".join(f"{start}–{stop - 1}" for start, stop in degenerate[:CLUSTERS])
    more = len(degenerate) - CLUSTERS
    return said + (f" and {more} more places" if more > 0 else "")


class KroneckerCurvature(Diagonalised):
    """One layer's curvature (Q_S ⊗ Q_A) diag(values) (Q_S ⊗ Q_A)ᵀ, never formed unless asked."""

    def __init__(
        self,
        basis: KroneckerBasis,
        values: Float[Tensor, "d_out width"],
        factored_damping: bool = False,
        decay: float = 0.0,
    ) -> None:
        """Give the basis its eigenvalues, and say whether λ damps the factors one by one.

        A weight ``decay`` is added to the eigenvalues.
        """
        self.basis = basis
        self.values = values + decay if decay else values
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

    def by_factors(self) -> KroneckerCurvature:
        """The same eigenvalues in the same basis, with both factors damped."""
        return KroneckerCurvature(self.basis, self.values, factored_damping=True)

    def to_basis(self, v: Tensor) -> Tensor:
        """Q_Sᵀ [W | b] Q_A for every column."""
        return self._rotate(self.basis.block.to_matrix(v), transpose=True).flatten(0, 1)

    def from_basis(self, c: Tensor) -> Tensor:
        """Q_S C Q_Aᵀ for every column."""
        coordinates = c.reshape(*self.values.shape, c.shape[1])
        return self.basis.block.from_matrix(self._rotate(coordinates, transpose=False))

    def dense(self) -> Tensor:
        """Σ_ab v_ab (Q_S,a Q_S,aᵀ) ⊗ (Q_A,b Q_A,bᵀ), from parameter order on both sides."""
        block = self.basis.block
        matrices = self._products().reshape(block.groups, *2 * [self.size // block.groups])
        matrix = matrices[0] if block.groups == 1 else torch.block_diag(*matrices)
        for _ in range(2):  # rows, then columns
            matrix = block.from_matrix(matrix.view(block.d_out, block.width, self.size)).T
        return matrix

    def _products(self) -> Float[Tensor, "*G d width d width"]:
        """The same for each group, indices in the order of [W | b]: the larger side comes first."""
        q_s, q_a = self.basis.outputs.vectors, self.basis.inputs.vectors
        values = self.values.view(*q_s.shape[:-1], q_a.shape[-1])
        if q_s.shape[-1] <= q_a.shape[-1]:
            term = _summed(q_s, q_a, values)  # (*G, d, d, width, width)
        else:
            term = _summed(q_a, q_s, values.mT).movedim((-2, -1), (-4, -3))
        return term.transpose(-3, -2)

    def _rotate(self, m: Float[Tensor, "d_out width k"], transpose: bool) -> Tensor:
        q_s, q_a = self.basis.outputs.vectors, self.basis.inputs.vectors
        q_s, q_a = (q_s.mT, q_a.mT) if transpose else (q_s, q_a)
        _, width, k = m.shape
        rows = q_s @ m.reshape(*q_s.shape[:-1], width * k)
        rows = rows.view(*q_s.shape[:-1], width, k)
        if k <= FEW_COLUMNS:
            found = rows.mT @ (q_a.mT if q_a.ndim == 2 else q_a.mT.unsqueeze(-3))
            return found.mT.reshape(m.shape)
        return torch.matmul(q_a if q_a.ndim == 2 else q_a.unsqueeze(-3), rows).view(m.shape)


def _summed(
    small: Float[Tensor, "*G p p"], large: Float[Tensor, "*G q q"], values: Float[Tensor, "*G p q"]
) -> Float[Tensor, "*G p p q q"]:
    """Σ_ab v_ab (s_a s_aᵀ) ⊗ (l_b l_bᵀ): p products of the large side, then one of all pairs."""
    p, q = values.shape[-2:]
    scaled = large.unsqueeze(-3) * values.unsqueeze(-2)  # (*G, p, q, q)
    inner = (scaled.flatten(-3, -2) @ large.mT).unflatten(-2, (p, q)).flatten(-2)
    pairs = (small.unsqueeze(-2) * small.unsqueeze(-3)).flatten(-3, -2)
    return matmul(pairs, inner).unflatten(-1, (q, q)).unflatten(-3, (p, p))
