"""K-FAC with the trace of every layer matched to that of the layer's exact block.

K_l · tr G_ll / tr(A_l ⊗ S_l): the right size in the mean, the eigenbasis and the relative
eigenvalues of K-FAC. Between the two rungs lies what the step `eigenvalues` owes to scale alone.

Cost: that of EK-FAC, whose eigenvalues have the trace tr E_l = tr G_ll.
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.chain.approximations.method import Method
from decomposition.chain.cost import Cost, Costs
from decomposition.chain.eigenbasis import in_kronecker_basis
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import BlockDiagonal


@dataclass(frozen=True)
class KFACTrace(Method):
    """c_l A_l ⊗ S_l with c_l = tr G_ll / tr(A_l ⊗ S_l)."""

    name = "kfac_trace"
    summary = "K-FAC with every layer's trace matched to its exact block's"
    form = "structured"

    def cost(self, costs: Costs) -> Cost:
        """That of EK-FAC."""
        return costs.ekfac()

    def made(self, parts: Parts) -> BlockDiagonal:
        """In the same eigenbasis as K-FAC and EK-FAC."""
        bases, exact = parts.bases(), parts.diagonals()
        values = {}
        for name, basis in bases.items():
            products = basis.products()
            trace = float(products.sum())
            values[name] = products * (float(exact[name].sum()) / trace if trace else 1.0)
        decay = parts.problem.curvature_decay
        return in_kronecker_basis(bases, values, stand_ins=parts.stand_ins(), decay=decay)
