"""The dual Gram matrix R Rᵀ of every block, from whatever is smaller: its terms or its rows.

A linear block whose weight serves T positions has the rows Σ_t s_n,c,t ⊗ a_n,t / √N, so that

    K_(n,c),(m,d) = (1/N) Σ_t Σ_u (s_n,c,t · s_m,d,u) (a_n,t · a_m,u),

which for T² below the block's width costs less than the product of its rows with themselves and
needs none of them. The whole model's K is the sum over blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.fisher import fisher_terms, jacobian_rows, position_terms
from decomposition.layers import Block, LinearBlock
from decomposition.linalg import eigh, matmul
from decomposition.problem import Problem

PAIR_NUMBERS = 2**24
"""Numbers of the products of one panel of examples with all: 128 MB."""


@dataclass(frozen=True)
class Gram:
    """Eigendecomposition of K."""

    values: Float[Tensor, " NC"]
    """Ascending, not negative."""
    vectors: Float[Tensor, "NC NC"]

    @staticmethod
    def of(matrix: Float[Tensor, "NC NC"]) -> Gram:
        """Decompose a Gram matrix."""
        values, vectors = eigh(matrix)
        return Gram(values.clamp_min(0.0), vectors)


def block_grams(problem: Problem) -> Iterator[tuple[Block, Float[Tensor, "NC NC"]]]:
    """K of every block in parameter order, one at a time."""
    by_terms = _by_terms(problem)
    for block in problem.blocks:
        if block.name in by_terms:
            yield block, _position_gram(*by_terms.pop(block.name)) / problem.examples
        else:
            rows = block_rows(problem, block)
            yield block, matmul(rows, rows.T)


def block_rows(problem: Problem, block: Block) -> Float[Tensor, "NC size"]:
    """R of one block."""
    count = problem.examples * problem.outputs
    rows = torch.empty(count, block.size, dtype=torch.float64, device=problem.device)
    first = 0
    for part in jacobian_rows(problem, blocks=[block]):
        flat = part.flatten(0, 1)
        rows[first : first + len(flat)] = flat
        first += len(flat)
    return rows.div_(problem.examples**0.5)


def _by_terms(problem: Problem) -> dict[str, tuple[Tensor, Tensor]]:
    """a (N, T, width) and s (N, C, T, d_out) of the blocks for which they are the cheaper way."""
    linear = {b.name: b for b in problem.blocks if isinstance(b, LinearBlock)}
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    if problem.plain:
        for terms in fisher_terms(problem):
            for name, a in terms.inputs.items():
                s = terms.roots[name]
                parts.setdefault(name, []).append((a[:, None], s[:, :, None]))
    elif linear:
        for terms in position_terms(problem):
            for name, a in terms.inputs.items():
                if a.shape[1] ** 2 <= linear[name].width:
                    parts.setdefault(name, []).append((a.clone(), terms.roots[name].clone()))
    return {
        name: (torch.cat([a for a, _ in found]), torch.cat([s for _, s in found]))
        for name, found in parts.items()
    }


def _position_gram(
    a: Float[Tensor, "N T width"], s: Float[Tensor, "N C T d_out"]
) -> Float[Tensor, "NC NC"]:
    n, c, t, _ = s.shape
    inputs, roots = a.flatten(0, 1), s.flatten(0, 2)
    out = s.new_empty(n * c, n * c)
    step = max(1, PAIR_NUMBERS // (n * c * c * t * t))
    for first in range(0, n, step):
        some = slice(first, min(first + step, n))
        m = some.stop - first
        products = matmul(roots[first * c * t : some.stop * c * t], roots.T)
        products = products.view(m, c, t, n, c, t)
        products.mul_(matmul(inputs[first * t : some.stop * t], inputs.T).view(m, 1, t, n, 1, t))
        out[first * c : some.stop * c] = products.sum((2, 5)).view(m * c, n * c)
    return out
