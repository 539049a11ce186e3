"""The exact non-zero spectrum of G from its dual Gram matrix, when N·C is the smaller side.

With the NC × P matrix R of rows (s_l,n,c ⊗ a_l,n)_l / √N, G = RᵀR and its dual is

    (R Rᵀ)_(n,c),(m,d) = (1/N) Σ_l (s_l,n,c · s_l,m,d) (a_l,n · a_l,m),

made of small products alone where that is cheaper (``curvature.gram``). Both have the same
non-zero eigenvalues.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.gram import block_grams
from decomposition.errors import DecompositionError
from decomposition.linalg import eigvalsh
from decomposition.problem import Problem


def dual_gram(problem: Problem, blocks: Sequence[str] | None = None) -> Float[Tensor, "NC NC"]:
    """R Rᵀ of G, or of its block-diagonal part for the named ``blocks`` alone.

    Raises:
        DecompositionError: no block of that name.
    """
    known = [block.name for block in problem.blocks]
    names = known if blocks is None else list(blocks)
    for name in names:
        if name not in known:
            raise DecompositionError(f"no block {name!r}: the blocks are {', '.join(known)}")
    rows = problem.num_examples * problem.num_outputs
    total = torch.zeros(rows, rows, dtype=torch.float64, device=problem.device)
    for _, gram in block_grams(problem, names):
        total += gram
    return total


def dual_eigenvalues(problem: Problem, blocks: Sequence[str] | None = None) -> Float[Tensor, " P"]:
    """All eigenvalues of G (or of the part of G that belongs to ``blocks``), ascending.

    The dual's eigenvalues, with zeros for the directions that no example moves.

    Raises:
        DecompositionError: P is the smaller side, so that the dual costs more than G itself.
    """
    size = sum(b.size for b in problem.blocks if blocks is None or b.name in blocks)
    gram = dual_gram(problem, blocks)
    if len(gram) > size:
        raise DecompositionError(
            f"the dual Gram matrix has side N·C = {len(gram)}, more than P = {size}: decompose "
            "the GGN itself"
        )
    values = eigvalsh(gram).clamp_min(0.0)
    return torch.cat([values.new_zeros(size - len(values)), values])
