"""Step `eigenbasis`: force the Kronecker eigenbasis, keep the best eigenvalues in it, B → E.

A layer's basis has as many Kronecker products as the layer has linear maps. The groups of a grouped
convolution are one block in B, and what couples them is lost at this step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from decomposition.chain.cross_layer import in_parts
from decomposition.curvature import BlockDiagonal, Curvature, KroneckerBasis, KroneckerCurvature
from decomposition.layers import ExactBlock

StandIns = Sequence[tuple[ExactBlock, Curvature]]
"""Blocks without a Kronecker form, each with its exact curvature."""


def in_kronecker_basis(
    bases: Mapping[str, KroneckerBasis],
    diagonals: Mapping[str, Tensor],
    factored_damping: bool = False,
    stand_ins: StandIns = (),
    decay: float = 0.0,
) -> BlockDiagonal:
    """⊕_l Q_l diag(d_l) Q_lᵀ with d_l = diag(Q_lᵀ C_ll Q_l): Frobenius-optimal in its basis.

    Args:
        bases: of layers, or of weights and biases, in parameter order.
        diagonals: d of every basis.
        factored_damping: whether λ damps the factors, not their product.
        stand_ins: exact blocks, which take their place in parameter order, as they are.
        decay: added to every d, in whose eigenbasis it is as in any other.

    Returns:
        A block for every layer; a separated layer's is ``weight`` ⊕ ``bias``.
    """
    layers: dict[str, dict[str, KroneckerCurvature]] = {}
    starts: dict[str, int] = {}
    for key, basis in bases.items():
        part = KroneckerCurvature(basis, diagonals[key], factored_damping, decay)
        layers.setdefault(basis.block.name, {})[basis.part] = part
        starts.setdefault(basis.block.name, basis.block.start)
    found: dict[str, Mapping[str, Curvature]] = {**layers}
    for block, exact in stand_ins:
        found[block.name], starts[block.name] = {"layer": exact}, block.start
    curvature = in_parts({name: found[name] for name in sorted(found, key=starts.__getitem__)})
    curvature.notes = (*curvature.notes, *(block.note for block, _ in stand_ins))
    return curvature
