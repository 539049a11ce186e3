"""The dual Gram matrix R Rᵀ of every block, from whatever is smaller: its terms or its rows.

A linear block whose weight serves T positions has the rows Σ_t s_n,c,t ⊗ a_n,t / √N, so that

    K_(n,c),(m,d) = (1/N) Σ_t Σ_u (s_n,c,t · s_m,d,u) (a_n,t · a_m,u),

which for T² below the block's width costs less than the product of its rows with themselves and
needs none of them. The whole model's K is the sum over blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.fisher import EXACT, Fisher, fisher_terms, jacobian_rows
from decomposition.device import chunk_bytes
from decomposition.layers import Block, LinearBlock
from decomposition.linalg import eigh, matmul
from decomposition.memory import OutOfMemoryError, out_of_memory, shrinking
from decomposition.problem import Problem

PAIR_NUMBERS = 2**24
"""Numbers of the products of one panel of examples with all: 128 MB."""
PANEL_NUMBERS = 2**40
"""Numbers in the rows of one panel of examples: all of them on the CPU, unless they do not fit."""


@dataclass(frozen=True, eq=False)
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


def block_grams(
    problem: Problem, names: Collection[str] | None = None, fisher: Fisher = EXACT
) -> Iterator[tuple[Block, Float[Tensor, "NC NC"]]]:
    """K of every block, or of those named, in parameter order, one at a time.

    With another ``fisher`` its rows take the place of S_nᵀ J_n.

    Raises:
        OutOfMemoryError: K fits, but not the rows of one example beside it.
    """
    blocks = [b for b in problem.blocks if names is None or b.name in names]
    by_terms = _by_terms(problem, {b.name for b in blocks}, fisher)
    for block in blocks:
        if block.name in by_terms:
            yield block, _position_gram(*by_terms.pop(block.name)).div_(problem.num_examples)
        else:
            yield block, _row_gram(problem, block, fisher)


def block_ggn(problem: Problem, block: Block, fisher: Fisher = EXACT) -> Float[Tensor, "size size"]:
    """RᵀR of one block, made batch by batch."""
    return block_ggns(problem, [block], fisher)[0]


def block_ggns(
    problem: Problem, blocks: Sequence[Block], fisher: Fisher = EXACT
) -> list[Float[Tensor, "size size"]]:
    """The same of several blocks, in one sweep over the examples."""
    found = [
        torch.zeros(b.size, b.size, dtype=torch.float64, device=problem.device) for b in blocks
    ]
    for part in jacobian_rows(problem, fisher, blocks) if blocks else ():
        pieces = part.flatten(0, 1).split([block.size for block in blocks], 1)
        for matrix, rows in zip(found, pieces, strict=True):
            matrix += matmul(rows.T.contiguous(), rows.contiguous())
    return [matrix.div_(problem.num_examples) for matrix in found]


def block_rows(problem: Problem, block: Block, fisher: Fisher = EXACT) -> Float[Tensor, "NC size"]:
    """R of one block."""
    return _jacobian(problem, block, fisher).div_(problem.num_examples**0.5)


def _jacobian(problem: Problem, block: Block, fisher: Fisher) -> Float[Tensor, "NC size"]:
    """√N R."""
    count = problem.num_examples * fisher.rows(problem.num_outputs)
    rows = torch.empty(count, block.size, dtype=torch.float64, device=problem.device)
    first = 0
    for part in jacobian_rows(problem, fisher, [block]):
        flat = part.flatten(0, 1)
        rows[first : first + len(flat)] = flat
        first += len(flat)
    return rows


def _row_gram(problem: Problem, block: Block, fisher: Fisher) -> Float[Tensor, "NC NC"]:
    """K from the rows of a panel of examples at a time: of all of them if they fit."""
    n, c = problem.num_examples, fisher.rows(problem.num_outputs)
    out = torch.empty(n * c, n * c, dtype=torch.float64, device=problem.device)

    def panel(examples: slice) -> None:
        mine = _jacobian(_some(problem, examples), block, fisher.beginning_at(examples.start))
        place, stop = slice(examples.start * c, examples.stop * c), 0
        matmul(mine, mine.T, out=out[place, place])
        if not examples.start:
            return
        for part in jacobian_rows(_some(problem, slice(0, examples.start)), fisher, [block]):
            other = slice(stop, stop := stop + len(part) * c)
            out[other, place] = matmul(part.flatten(0, 1), mine.T)
            out[place, other] = out[other, place].T

    one = 8 * c * block.size
    for _ in shrinking(panel, n, chunk_bytes(problem.device, 8 * PANEL_NUMBERS) // one):
        pass
    return out.div_(n)


def _some(problem: Problem, examples: slice) -> Problem:
    """A problem of these training examples."""
    everything = examples == slice(0, problem.num_examples)
    return problem if everything else problem.of_examples(examples)


def _by_terms(
    problem: Problem, names: Collection[str], fisher: Fisher
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of the blocks for which terms are the cheaper way; of none if they do not fit."""
    try:
        return _terms(problem, names, fisher)
    except (MemoryError, RuntimeError, OutOfMemoryError) as error:
        if not out_of_memory(error):
            raise
    return {}


def _terms(
    problem: Problem, names: Collection[str], fisher: Fisher
) -> dict[str, tuple[Tensor, Tensor]]:
    """a (N, T, width) and s (N, C, T, d_out)."""
    linear = {b.name: b for b in problem.blocks if isinstance(b, LinearBlock) and b.name in names}
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for terms in fisher_terms(problem, fisher) if linear else ():
        for name, block in linear.items():
            a = terms.inputs[name]
            if a.shape[1] ** 2 <= block.width:
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

    def panel(some: slice) -> None:
        m = some.stop - some.start
        products = matmul(roots[some.start * c * t : some.stop * c * t], roots.T)
        products = products.view(m, c, t, n, c, t)
        pairs = matmul(inputs[some.start * t : some.stop * t], inputs.T)
        products.mul_(pairs.view(m, 1, t, n, 1, t))
        out[some.start * c : some.stop * c] = products.sum((2, 5)).view(m * c, n * c)

    one = 8 * n * c * c * t * t
    for _ in shrinking(panel, n, chunk_bytes(a.device, 8 * PAIR_NUMBERS) // one):
        pass
    return out
