"""Eigenvectors of one approximation of a layer's block with the eigenvalues of another.

Between the block G_l = V diag(ν) Vᵀ and K-FAC A ⊗ S = Q diag(p) Qᵀ lie two rungs, with both spectra
sorted:

    block_basis_kfac_values   V diag(p) Vᵀ    the values alone are K-FAC's
    kfac_basis_block_values   Q diag(ν) Qᵀ    the vectors alone are

Over eigenvectors of one repeated eigenvalue, as of zero, the other's values are averaged: any other
choice would be arbitrary.

EK-FAC's step `eigenvalues` corrects values along K-FAC's vectors; these take the exact spectrum, or
the exact vectors, as they are: another reading of what a mismatch of eigenvalues costs.

Cost: that of the block GGN and of K-FAC together. Layers' eigenvectors, or eigenvalues, must be
had: a block GGN that is known by its products is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition.chain.approximations.method import Method
from decomposition.chain.cost import Cost, Costs
from decomposition.chain.rungs import KFAC, BlockGGN
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import BlockDiagonal, Curvature, Diagonalised, NotAvailableError
from decomposition.curvature.revalued import Revalued
from decomposition.memory import OutOfMemoryError
from decomposition.problem import Problem


@dataclass(frozen=True)
class BlockBasisKFACValues(Method):
    """⊕_l V_l diag(p_l) V_lᵀ."""

    name = "block_basis_kfac_values"
    summary = "the block GGN's eigenvectors with K-FAC's sorted eigenvalues"
    form = "blocks"

    def memory(self, problem: Problem) -> int:
        """The blocks and their eigenvectors."""
        return _memory(problem)

    def cost(self, costs: Costs) -> Cost:
        """The block GGN, and K-FAC's eigenvalues."""
        return _both(costs.block_ggn(), costs.kfac())

    def made(self, parts: Parts) -> BlockDiagonal:
        """The block GGN's decomposition serves both."""
        return _exchanged(self.name, *reversed(_layers(parts)))


@dataclass(frozen=True)
class KFACBasisBlockValues(Method):
    """⊕_l Q_l diag(ν_l) Q_lᵀ."""

    name = "kfac_basis_block_values"
    summary = "K-FAC's eigenvectors with the block GGN's sorted eigenvalues"
    form = "structured"

    def memory(self, problem: Problem) -> int:
        """The blocks and their eigenvectors."""
        return _memory(problem)

    def cost(self, costs: Costs) -> Cost:
        """K-FAC, and the block GGN's eigenvalues."""
        return _both(costs.kfac(), costs.block_ggn())

    def made(self, parts: Parts) -> BlockDiagonal:
        """In the same eigenbasis as K-FAC and EK-FAC."""
        return _exchanged(self.name, *_layers(parts))


def _memory(problem: Problem) -> int:
    return 16 * sum(block.size**2 for block in problem.blocks)


def _both(solved: Cost, other: Cost) -> Cost:
    return replace(
        solved,
        build=solved.build + other.build,
        decompose=solved.decompose + other.decompose,
        memory=solved.memory + other.memory,
    )


def _layers(parts: Parts) -> tuple[Curvature, Curvature]:
    """K-FAC and the block GGN."""
    return KFAC().build(parts), BlockGGN().build(parts)


def _exchanged(name: str, basis: Curvature, values: Curvature) -> BlockDiagonal:
    found: dict[str, Curvature] = {}
    others = values.diagonal_blocks()
    for layer, block in basis.diagonal_blocks().items():
        try:
            found[layer] = Revalued(_diagonalised(block), others[layer].eigenvalues())
        except (KeyError, NotAvailableError):
            found.clear()
            break
    if not found:
        raise OutOfMemoryError(
            f"approximation {name} needs the eigendecomposition of every layer's block of the GGN, "
            "which does not fit into the memory given: raise --memory, or leave it out"
        )
    return BlockDiagonal(found)


def _diagonalised(block: Curvature) -> Diagonalised:
    if block.eigenbasis is None:
        raise NotAvailableError("its eigenvectors are not held")
    return block.eigenbasis
