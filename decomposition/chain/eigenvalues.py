"""Step `eigenvalues`: products of the factors' eigenvalues instead of exact ones, E → K."""

from __future__ import annotations

from collections.abc import Mapping

from decomposition.chain.eigenbasis import StandIns, in_kronecker_basis
from decomposition.curvature import BlockDiagonal, KroneckerBasis
from decomposition.errors import DecompositionError


def kfac(
    bases: Mapping[str, KroneckerBasis],
    factored_damping: bool = False,
    stand_ins: StandIns = (),
    decay: float = 0.0,
) -> BlockDiagonal:
    """⊕_l A_l ⊗ S_l, in the same eigenbasis as EK-FAC.

    With ``factored_damping`` its inverse is that of (A + π√λ I) ⊗ (S + (√λ/π) I), not of
    A ⊗ S + λI (see decomposition.curvature.damped); the matrix itself is the same. Exact blocks
    are damped by λI.
    """
    products = {key: basis.products() for key, basis in bases.items()}
    if not factored_damping:
        return in_kronecker_basis(bases, products, stand_ins=stand_ins, decay=decay)
    if decay:
        raise DecompositionError(
            "factored damping acts on A and S, and a K-FAC with the weight decay in it is no "
            "product of two factors: leave out weight_decay_in_curvature, or factored_damping"
        )
    curvature = in_kronecker_basis(bases, products, True, stand_ins)
    note = "factored damping: λ stands for (A + π√λ I) ⊗ (S + (√λ/π) I), not for A ⊗ S + λI"
    curvature.notes = (*curvature.notes, note)
    return curvature
