"""The exact additive split of the squared Frobenius error along the chain (identity 1).

‖H − K‖² = ‖H − G‖² + 2⟨H − G, G − K⟩ + ‖G − B‖² + ‖B − E‖² + ‖E − K‖²

The last three are orthogonal by construction: G − B is zero on the blocks, and E is the
orthogonal projection of B onto the matrices diagonal in its basis, to which K belongs too. The
cross term of the first step has either sign and is reported as its own item.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from decomposition.curvature.operator import Curvature

ROUNDING = 1e-24
"""Squared relative error below which two matrices are equal in float64."""


def frobenius_split(chain: Mapping[str, Curvature]) -> dict[str, float]:
    """Squared Frobenius error of each step, and the cross term, keyed by step name."""
    hessian, ggn = chain["hessian"].dense(), chain["ggn"].dense()
    residual = hessian - ggn
    split = {"linearisation": float(torch.linalg.norm(residual)) ** 2, "cross_term": 0.0}
    basis = values = inner_blocks = 0.0
    start = 0
    blocks = {name: chain[name].diagonal_blocks() for name in ("block_ggn", "ekfac", "kfac")}
    for name, exact in blocks["block_ggn"].items():
        ekfac, kfac = blocks["ekfac"][name].eigenbasis, blocks["kfac"][name].eigenbasis
        assert ekfac is not None
        assert kfac is not None
        part = slice(start, start + exact.size)
        start = part.stop
        matrix = exact.dense()
        basis += float(torch.linalg.norm(matrix - ekfac.dense())) ** 2
        # In the common eigenbasis: exact even where E and K nearly agree.
        values += float((ekfac.basis_values() - kfac.basis_values()).square().sum())
        inner_blocks += float((residual[part, part] * kfac.dense()).sum())
    # ‖G − B‖² summed over the off-diagonal panels only, so that no digits cancel.
    across = 0.0
    start = 0
    for exact in blocks["block_ggn"].values():
        stop = start + exact.size
        across += 2.0 * float(torch.linalg.norm(ggn[start:stop, stop:])) ** 2
        start = stop
    split["cross_term"] = 2.0 * (float((residual * ggn).sum()) - inner_blocks)
    split |= {"cross_layer": across, "eigenbasis": basis, "eigenvalues": values}
    # Where all rungs agree, what is left is rounding, of which nobody's share is worth knowing.
    floor = ROUNDING * float(torch.linalg.norm(hessian)) ** 2
    return {step: value if abs(value) > floor else 0.0 for step, value in split.items()}
