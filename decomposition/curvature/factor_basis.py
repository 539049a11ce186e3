"""The eigenbasis of a Kronecker factor, made unique where eigenvalues are repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.linalg import eigh

DEGENERACY_TOLERANCE = 1e-9
"""Neighbouring eigenvalues closer than this fraction of the largest count as repeated."""
NULL_TOLERANCE = 1e-12
"""Eigenvalues below this fraction of the largest count as zero."""


@dataclass(frozen=True)
class FactorBasis:
    """Canonical eigendecomposition of one Kronecker factor, or of those of all groups."""

    values: Float[Tensor, "*G d"]
    """Ascending; negative rounding errors are set to 0."""
    vectors: Float[Tensor, "*G d d"]
    """Orthonormal columns; the entry of largest magnitude in each is positive."""
    degenerate: tuple[tuple[int, int], ...]
    """[start, stop) of each cluster of repeated non-zero eigenvalues, counted through groups."""
    null: tuple[int, ...] = (0,)
    """Of each group, the number of zero eigenvalues, which come first, if there are several."""

    @staticmethod
    def of_vectors(vectors: Float[Tensor, "*G d d"]) -> FactorBasis:
        """Orthonormal columns that are not those of any factor: without eigenvalues."""
        groups = vectors.shape[0] if vectors.ndim == 3 else 1
        return FactorBasis(torch.zeros_like(vectors[..., 0]), vectors, (), (0,) * groups)

    @staticmethod
    def stacked(groups: Sequence[FactorBasis]) -> FactorBasis:
        """The bases of all groups as one."""
        values = torch.stack([basis.values for basis in groups])
        return FactorBasis(
            values,
            torch.stack([basis.vectors for basis in groups]),
            tuple(
                (g * values.shape[1] + start, g * values.shape[1] + stop)
                for g, basis in enumerate(groups)
                for start, stop in basis.degenerate
            ),
            tuple(count for basis in groups for count in basis.null),
        )


def factor_basis(factor: Float[Tensor, "*G d d"]) -> FactorBasis:
    """Eigendecomposition of a factor, made unique.

    Within a cluster of repeated eigenvalues any rotation is an eigenbasis, and EK-FAC depends on
    which one is taken. The cluster's basis is fixed by its projector Π alone: Gram–Schmidt on
    the columns of Π, each time the one with most left. Signs make the largest entry positive.
    """
    if factor.ndim > 2:
        return FactorBasis.stacked([factor_basis(one) for one in factor])
    values, vectors = _decomposed(factor)
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
        values, vectors * torch.where(signs == 0, 1.0, signs), tuple(degenerate), (null,)
    )


def _decomposed(factor: Tensor) -> tuple[Tensor, Tensor]:
    """A diagonal factor, such as the frequencies of tokens, needs to be sorted alone."""
    diagonal = factor.diagonal()
    if bool(factor.count_nonzero() > diagonal.count_nonzero()):
        return eigh(factor)
    values, order = diagonal.sort(stable=True)
    return values, torch.eye(len(factor), dtype=factor.dtype, device=factor.device)[:, order]


def _canonical(basis: Tensor) -> Tensor:
    support = basis.any(1).nonzero()[:, 0]
    if len(support) == basis.shape[1]:  # the span of these coordinates
        unit = torch.zeros_like(basis)
        unit[support, torch.arange(len(support), device=unit.device)] = 1.0
        return unit
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
