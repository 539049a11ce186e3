"""The Kronecker product next to every layer's block: argmin over A, S of ‖G_ll − A ⊗ S‖_F.

Rearranged so that A ⊗ S becomes a matrix of rank one, the best product is the leading singular
pair (Van Loan & Pitsianis 1993, *Approximation with Kronecker products*), found by power
iteration on the layer's terms, G_ll = (1/N) Σ_n Σ_c g gᵀ with g_n,c = Σ_t s_n,c,t ⊗ a_n,t:

    S ← (1/N) Σ_n Σ_c Σ_t,u (a_tᵀ A a_u) s_t s_uᵀ / ‖A‖²_F,    the best S for this A,
    A ← (1/N) Σ_n Σ_c Σ_t,u (s_tᵀ S s_u) a_t a_uᵀ / ‖S‖²_F,    the best A for this S,

from K-FAC's A. The error never grows, so it is at most K-FAC's, and A and S stay positive
semi-definite. Each group of a grouped convolution has its own. What is left, ‖G_ll − A ⊗ S‖, no
Kronecker product could avoid; the rest of K-FAC's error is that of the product which it takes.

Where the GGN is a matrix, its blocks are rearranged and multiplied as they are, R_(ij),(kl) =
G_(ik),(jl): w² d² numbers an iteration, whatever the examples and positions. Elsewhere the block is
never formed, and an iteration costs a few factors' worth of multiplications; the terms are kept
where they are few, and made again in every pass where they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.method import Method
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.eigenvalues import kfac
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import BlockDiagonal, KroneckerBasis
from decomposition.curvature.factor_basis import FactorBasis, factor_basis
from decomposition.curvature.fisher import fisher_terms
from decomposition.curvature.terms import GaussNewtonTerms, LayerTerms
from decomposition.device import chunk_bytes
from decomposition.layers import LinearBlock
from decomposition.memory import shrinking
from decomposition.problem import Problem

ITERATIONS = 100
HALF_STEPS = 40
"""Of most problems, counted as a cost: two for each of twenty iterations."""
TOLERANCE = 1e-10
"""Relative growth of ‖A‖‖S‖ in an iteration at which it ends."""
KEPT_BYTES = 2**30
"""Terms up to this size are kept between passes."""
PAIR_NUMBERS = 2**22
"""Numbers of the products of positions that are made at once."""


@dataclass(frozen=True)
class KPSVD(Method):
    """The nearest Kronecker product of every layer's block."""

    name = "kpsvd"
    summary = "the Kronecker product nearest to each layer's block of the GGN (power iteration)"
    form = "structured"

    def cost(self, costs: Costs) -> Cost:
        """Two half-steps an iteration, most layers settling within twenty, each as many
        multiplications as the factors; terms that are not kept are made again for each."""
        factors = costs.factors(costs.problem.num_outputs)
        if costs.plan.way("ggn") == "dense":
            entries = sum(b.size**2 // b.groups for b in costs.layers)
            steps = Work(multiplications=entries * HALF_STEPS)
            return costs.in_bases(factors + costs.block_ggn().build + steps)
        made = 1 if _kept(costs.problem) else HALF_STEPS
        passes = replace(factors, multiplications=0.0) * made
        steps = Work(multiplications=factors.multiplications) * HALF_STEPS
        return costs.in_bases(factors + passes + steps)

    def made(self, parts: Parts) -> BlockDiagonal:
        """In its own eigenbasis, which is not that of K-FAC."""
        start = parts.bases()
        inputs, outputs, settled = nearest_factors(parts, start)
        bases = {
            name: KroneckerBasis(
                basis.block, factor_basis(inputs[name]), factor_basis(outputs[name])
            )
            for name, basis in start.items()
        }
        decay = parts.problem.curvature_decay
        found = kfac(bases, stand_ins=parts.stand_ins(), decay=decay)
        if not settled:
            found.notes = (
                *found.notes,
                f"kpsvd: the power iteration still grew by more than {TOLERANCE:g} after "
                f"{ITERATIONS} iterations",
            )
        return found


Factors = dict[str, Float[Tensor, "*G d d"]]
Half = Callable[[Tensor, Tensor, Tensor], Tensor]
Halves = Callable[[Factors, Sequence[str], bool], Factors]
"""(one factor of every layer, layers, whether it is A) → Σ in the other's formula, over N."""


def nearest_factors(
    parts: Parts, start: dict[str, KroneckerBasis]
) -> tuple[Factors, Factors, bool]:
    """A and S of every layer, and whether all of them have settled."""
    inputs = {name: _matrix(basis.inputs) for name, basis in start.items()}
    if parts.plan.way("ggn") != "dense":
        return _iterated(_by_terms(parts.problem), inputs)
    outputs: Factors = {}
    settled, blocks = True, parts.block_ggn().diagonal_blocks()
    for name, basis in start.items():  # one rearranged block at a time
        matrix = blocks[name].dense().clone()
        matrix.diagonal().sub_(parts.problem.curvature_decay)  # which no factor has to fit
        halves = _by_matrix(matrix, basis.block)
        mine, theirs, done = _iterated(halves, {name: inputs[name]})
        inputs, outputs, settled = inputs | mine, outputs | theirs, settled and done
    return inputs, outputs, settled


def _iterated(halves: Halves, inputs: Factors) -> tuple[Factors, Factors, bool]:
    """The best S for A, and the best A for S, until ‖A‖‖S‖ grows no more."""
    outputs: Factors = {}
    sizes = {name: torch.zeros_like(_norm(a)) for name, a in inputs.items()}
    moving = list(inputs)
    for _ in range(ITERATIONS):
        outputs |= _best(halves(inputs, moving, True), inputs)
        inputs |= _best(halves(outputs, moving, False), outputs)
        grown = {name: _norm(inputs[name]) * _norm(outputs[name]) for name in moving}
        moving = [n for n in moving if bool((grown[n] > sizes[n] * (1.0 + TOLERANCE)).any())]
        sizes |= grown
        if not moving:
            break
    return inputs, outputs, not moving


def _best(sums: Factors, known: Factors) -> Factors:
    """The other factor of every layer, given this one."""
    norms = {name: _norm(known[name]).square()[..., None, None] for name in sums}
    return {name: sum_ / norms[name].where(norms[name] > 0, 1.0) for name, sum_ in sums.items()}


def _by_matrix(matrix: Float[Tensor, "P P"], block: LinearBlock) -> Halves:
    """Of one layer's block of G."""
    d, w = block.d_out // block.groups, block.width
    order = block.to_matrix(torch.arange(block.size, device=matrix.device)[:, None])[:, :, 0]
    own = order.view(block.groups, d * w)
    part = matrix[own[:, :, None], own[:, None, :]].view(-1, d, w, d, w)
    rearranged = part.transpose(2, 3).reshape(-1, d * d, w * w)

    def halves(known: Factors, names: Sequence[str], of_inputs: bool) -> Factors:
        (name,) = names
        column = known[name].reshape(block.groups, -1, 1)
        product = (rearranged if of_inputs else rearranged.mT) @ column
        side = d if of_inputs else w
        return {name: product.view(*known[name].shape[:-2], side, side)}

    return halves


def _by_terms(problem: Problem) -> Halves:
    """Of all layers, batch by batch."""
    batches = _passes(problem)

    def halves(known: Factors, names: Sequence[str], of_inputs: bool) -> Factors:
        half = _towards_outputs if of_inputs else _towards_inputs
        found: Factors = {}
        for terms in batches():
            for name in names:
                new = half(terms.inputs[name], terms.roots[name], known[name])
                found[name] = found[name] + new if name in found else new
        return {name: sum_ / problem.num_examples for name, sum_ in found.items()}

    return halves


def _passes(problem: Problem) -> Callable[[], Iterable[GaussNewtonTerms]]:
    """The layers' terms, batch by batch, as often as they are asked for."""
    if not _kept(problem):
        return lambda: fisher_terms(problem)
    kept = list(fisher_terms(problem))
    return lambda: kept


def _kept(problem: Problem) -> bool:
    """Whether the terms of all examples are few enough."""
    one = LayerTerms(problem).numbers_per_example(problem.num_outputs)
    return 8 * one * problem.num_examples <= chunk_bytes(problem.device, KEPT_BYTES)


def _towards_outputs(
    a: Float[Tensor, "*G n T w"], s: Float[Tensor, "*G n K T d"], factor: Float[Tensor, "*G w w"]
) -> Float[Tensor, "*G d d"]:
    """Σ_n Σ_c s_cᵀ (a A aᵀ) s_c."""

    def some(part: slice) -> Tensor:
        x, y = a[..., part, :, :], s[..., part, :, :, :]
        weights = torch.matmul(x, _over_examples(factor)) @ x.mT  # (*G, n, T, T)
        return _rows(y, 4).mT @ _rows(weights.unsqueeze(-3) @ y, 4)

    return _summed(some, a, s)


def _towards_inputs(
    a: Float[Tensor, "*G n T w"], s: Float[Tensor, "*G n K T d"], factor: Float[Tensor, "*G d d"]
) -> Float[Tensor, "*G w w"]:
    """Σ_n aᵀ (Σ_c s_c S s_cᵀ) a."""

    def some(part: slice) -> Tensor:
        x, y = a[..., part, :, :], s[..., part, :, :, :]
        moved = torch.matmul(y, _over_examples(_over_examples(factor)))
        columns = (y.movedim(-3, -1).flatten(-2), moved.movedim(-3, -1).flatten(-2))
        weights = columns[1] @ columns[0].mT  # (*G, n, T, T)
        return _rows(x, 3).mT @ _rows(weights @ x, 3)

    return _summed(some, a, s)


def _summed(some: Callable[[slice], Tensor], a: Tensor, s: Tensor) -> Tensor:
    """Of a few examples at a time, whose positions make T² products each."""
    (n, t), k = a.shape[-3:-1], s.shape[-3]
    one = 8 * max(1, a.numel() // (n * t * a.shape[-1])) * t * max(t, k * s.shape[-1], a.shape[-1])
    parts = shrinking(some, n, chunk_bytes(a.device, 8 * PAIR_NUMBERS) // one)
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _rows(x: Tensor, own: int) -> Float[Tensor, "*G rows d"]:
    """All but the groups and the last of an example's ``own`` dimensions as rows."""
    return x.flatten(x.ndim - own, -2)


def _over_examples(factor: Tensor) -> Tensor:
    """A factor against rows of examples; two-dimensional ones are multiplied in one product."""
    return factor if factor.ndim == 2 else factor.unsqueeze(-3)


def _matrix(basis: FactorBasis) -> Float[Tensor, "*G d d"]:
    return (basis.vectors * basis.values.unsqueeze(-2)) @ basis.vectors.mT


def _norm(factor: Float[Tensor, "*G d d"]) -> Float[Tensor, "*G"]:
    return torch.linalg.matrix_norm(factor)
