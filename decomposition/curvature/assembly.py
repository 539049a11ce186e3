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
from torch.nn.functional import one_hot
from tqdm import tqdm

from decomposition.curvature.fisher import EXACT, Fisher, jacobian_rows, root_of
from decomposition.curvature.graphs import Graph, Graphs
from decomposition.curvature.terms import (
    GaussNewtonTerms,
    HessianTerms,
    LayerTerms,
    on_hessian_batches,
    plain_blocks,
)
from decomposition.errors import UnsupportedModelError
from decomposition.inputs import Inputs, device_of
from decomposition.layers import LinearBlock
from decomposition.linalg import matmul
from decomposition.problem import Problem

Pair = tuple[LinearBlock, LinearBlock]
DIRECTIONS = 256
"""Columns of H between two steps of the progress bar."""
BAR_DELAY = 5.0
"""Seconds before a progress bar appears."""
SYMMETRY = 1e-8
"""Largest difference of the triangles, relative to the largest entry."""


def assemble_ggn(problem: Problem, fisher: Fisher = EXACT) -> Float[Tensor, "P P"]:
    """G = (1/N) Σ J_nᵀ Λ_n J_n, dense, float64, in parameter order.

    With another ``fisher`` its R Rᵀ takes the place of Λ.
    """
    if problem.plain:
        of = LayerTerms(problem)

        def terms(x: Inputs, y: Tensor, first: int) -> GaussNewtonTerms:
            return of.gauss_newton(x, y, root_of(problem, fisher, first))

        return _assemble(problem, on_hessian_batches(problem, terms, fisher.columns), _add_ggn)
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
    of = LayerTerms(problem).hessian
    terms = on_hessian_batches(problem, lambda x, y, first: of(x, y))
    return _assemble(problem, terms, _add_hessian)


def assemble_by_products(problem: Problem) -> Float[Tensor, "P P"]:
    """H = (1/N) Σ ∇²_θ ℓ_n of any model, column by column: H e_i.

    The two triangles agree to rounding and are averaged.

    Raises:
        UnsupportedModelError: they do not, or the model cannot be differentiated.
        OutOfMemoryError: the second derivatives of a single example do not fit.
    """
    graphs, size = Graphs(problem), problem.num_parameters
    out = torch.zeros(size, size, dtype=torch.float64, device=problem.device)
    with tqdm(
        total=problem.num_examples * size,
        desc="Hessian",
        unit="product",
        unit_scale=True,
        delay=BAR_DELAY,
        disable=None,
    ) as bar:

        def batch(graph: Graph, examples: slice) -> None:
            found = torch.empty_like(out)
            for first in range(0, size, DIRECTIONS):
                rows = torch.arange(first, min(first + DIRECTIONS, size), device=out.device)
                found[first : first + DIRECTIONS] = graph.hessian(one_hot(rows, size).double())
                bar.update(len(rows) * (examples.stop - examples.start))
            out.add_(found)

        for _ in graphs.over(batch):
            pass
    out.div_(problem.num_examples)
    transposed = out.T.clone()
    gap, scale = float((out - transposed).abs().max()), float(out.abs().max())
    if gap > SYMMETRY * scale:
        raise UnsupportedModelError(
            f"the second derivatives of {type(graphs.model).__name__} are not symmetric: the two "
            f"triangles of H differ by {gap:.3g} where its largest entry is {scale:.3g}, so the "
            "derivative of some operation is wrong (a custom autograd function, or a fused "
            "operation of PyTorch); write that operation out in elementary ones"
        )
    return out.add_(transposed).div_(2.0)


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
    """Of one position."""
    roots = {name: s.squeeze(2) for name, s in terms.roots.items()}
    inputs = {name: a.squeeze(1) for name, a in terms.inputs.items()}
    for i, l in enumerate(blocks):
        left = roots[l.name].contiguous().mul(scale)
        for m in blocks[i:]:
            k = torch.bmm(left.transpose(1, 2), roots[m.name])
            _add_products((l, m), k, inputs, out)


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
