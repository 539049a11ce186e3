"""Dense GGN and Hessian by matrix products over per-example layer-output terms.

With K_n = J_lᵀ Λ J_m of example n, the GGN's pair of layers (l, m) is
G_lm = (1/N) Σ_n K_n ⊗ (a_l a_mᵀ), which is one product of the (d_l d_m) × N matrix of the K's
with the N × (w_l w_m) matrix of the a_l a_mᵀ: 2 N P² flops for the whole matrix, instead of the
2 N C P² of JᵀJ. On the diagonal both factors are symmetric and only their triangles are
multiplied: a quarter of the work. The Hessian has M_lm in place of K, and, because the weights of
a later layer l act on inputs that an earlier layer m changes, the additional term
(1/N) Σ_n δ_l[i] D_lm[p, j] a_m[q] at ((l; i, p), (m; j, q)) and its transpose.

That is for models made of linear layers, each used once. Of any other, G is the product of its
generalised Jacobian with itself, and H is made of Hessian-vector products, P of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.dense_hessian import assemble_by_products
from decomposition.curvature.fisher import EXACT, Fisher, fisher_terms, jacobian_rows
from decomposition.curvature.preactivation import (
    GaussNewtonTerms,
    HessianTerms,
    Preactivation,
    on_plain_batches,
    plain_blocks,
)
from decomposition.inputs import device_of
from decomposition.layers import LinearBlock
from decomposition.linalg import matmul
from decomposition.problem import Problem

Pair = tuple[LinearBlock, LinearBlock]


def assemble_ggn(problem: Problem, fisher: Fisher = EXACT) -> Float[Tensor, "P P"]:
    """G = (1/N) Σ J_nᵀ Λ_n J_n, dense, float64, in parameter order.

    With another ``fisher`` its R Rᵀ takes the place of Λ.
    """
    if problem.plain:
        return _assemble(problem, fisher_terms(problem, fisher), _add_ggn)
    size = problem.num_parameters
    out = torch.zeros(size, size, dtype=torch.float64, device=device_of(problem.train[0]))
    for rows in jacobian_rows(problem, fisher):
        flat = rows.flatten(0, 1)
        out += matmul(flat.T, flat)  # of a matrix with itself: half the work
    return out.div_(problem.num_examples)


def assemble_hessian(problem: Problem) -> Float[Tensor, "P P"]:
    """H = (1/N) Σ ∇²_θ ℓ_n, dense, float64, in parameter order."""
    if not problem.plain:
        return assemble_by_products(problem)
    terms_of = Preactivation(problem).hessian_terms
    terms = on_plain_batches(problem, lambda x, y, first: terms_of(x, y))
    return _assemble(problem, terms, _add_hessian)


def _assemble(problem: Problem, terms: Iterable, add: Callable) -> Tensor:
    size = problem.num_parameters
    blocks = plain_blocks(problem)
    out = torch.zeros(size, size, dtype=torch.float64, device=device_of(problem.train[0]))
    for batch in terms:
        add(blocks, batch, 1.0 / problem.num_examples, out)
    _mirror(blocks, out)
    return out


def _add_ggn(
    blocks: tuple[LinearBlock, ...], terms: GaussNewtonTerms, scale: float, out: Tensor
) -> None:
    for i, l in enumerate(blocks):
        left = terms.roots[l.name].contiguous().mul(scale)
        for m in blocks[i:]:
            k = torch.bmm(left.transpose(1, 2), terms.roots[m.name])
            _add_products((l, m), k, terms.inputs, out)


def _add_hessian(
    blocks: tuple[LinearBlock, ...], terms: HessianTerms, scale: float, out: Tensor
) -> None:
    place = {block.name: i for i, block in enumerate(blocks)}
    for i, l in enumerate(blocks):
        for m in blocks[i:]:
            _add_products((l, m), terms.hessians[l.name, m.name] * scale, terms.inputs, out)
    for (later, earlier), jacobian in terms.input_jacobians.items():
        l, m = blocks[place[later]], blocks[place[earlier]]
        outer = terms.deltas[later][:, :, None] * terms.inputs[earlier][:, None, :]
        n = len(outer)
        term = matmul(outer.reshape(n, -1).T, jacobian.mul(scale).reshape(n, -1))
        term = term.view(l.d_out, m.width, l.d_in, m.d_out)
        if place[earlier] < place[later]:  # only the upper triangle of blocks is filled
            add_term(out, (m, l), term.permute(3, 1, 0, 2))
        else:
            add_term(out, (l, m), term.permute(0, 2, 3, 1))


def _add_products(pair: Pair, k: Tensor, inputs: Mapping[str, Tensor], out: Tensor) -> None:
    """out[l, m] += Σ_n K_n ⊗ a_l a_mᵀ."""
    l, m = pair
    n = len(k)
    if l is m:
        rows, columns = _Triangle(l.d_out, k.device), _Triangle(l.width, k.device)
        a = inputs[l.name]
        products = a[:, columns.first] * a[:, columns.second]
        packed = matmul(k.reshape(n, -1)[:, rows.flat].T, products)
        full = packed[rows.unpack][:, columns.unpack]
        term = full.view(l.d_out, l.d_out, l.width, l.width)
    else:
        products = (inputs[l.name][:, :, None] * inputs[m.name][:, None, :]).reshape(n, -1)
        term = matmul(k.reshape(n, -1).T, products).view(l.d_out, m.d_out, l.width, m.width)
    add_term(out, pair, term.permute(0, 2, 1, 3))


class _Triangle:
    """Index maps between a symmetric d × d matrix and its packed upper triangle."""

    def __init__(self, d: int, device: torch.device) -> None:
        self.first, self.second = torch.triu_indices(d, d, device=device)
        self.flat = self.first * d + self.second
        position = torch.zeros(d, d, dtype=torch.long, device=device)
        position[self.first, self.second] = torch.arange(len(self.flat), device=device)
        position[self.second, self.first] = position[self.first, self.second]
        self.unpack = position.flatten()


def add_term(out: Tensor, pair: Pair, term: Tensor) -> None:
    """Add ``term`` (d_l, w_l, d_m, w_m) at the pair's place, [W | b] mapped to parameter order.

    A term may lack the bias columns (w = d_in): they are left as they are.
    """
    l, m = pair
    for row_slice, row_shape, rows in _parts(l, term.shape[1]):
        for column_slice, column_shape, columns in _parts(m, term.shape[3]):
            target = out[row_slice, column_slice]
            target = target.unflatten(0, row_shape).unflatten(2, column_shape)
            target += term[:, rows, :, columns]


def _parts(block: LinearBlock, width: int) -> list[tuple[slice, tuple[int, int], slice]]:
    """Where the weight and the bias of a block lie, their matrix shape, and their columns."""
    split = block.start + block.d_out * block.d_in
    parts = [(slice(block.start, split), (block.d_out, block.d_in), slice(0, block.d_in))]
    if width > block.d_in:
        bias = (slice(split, split + block.d_out), (block.d_out, 1), slice(block.d_in, width))
        parts.append(bias)
    return parts


def _mirror(blocks: tuple[LinearBlock, ...], out: Tensor) -> None:
    for i, l in enumerate(blocks):
        for m in blocks[i + 1 :]:
            out[m.slice, l.slice] = out[l.slice, m.slice].T
