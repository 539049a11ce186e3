"""Products with the diagonal blocks of G from one sweep over the network for all of them.

A pass for every block would pass a network of L layers L times. With the rows of the generalised
Jacobian in the terms of its layers (``terms``: inputs a, and s = Rᵀ ∂f/∂z pulled back to the output
z of every layer), a block [W | b] meets a direction V in matrix products alone, where the positions
t that share the weight and the groups of a convolution are summed over:

    z_n = Σ_t s_n,t · (V a_n,t)         (K,): Rᵀ J_l vec V of an example
    out = Σ_n Σ_t (s_n,tᵀ z_n) a_n,tᵀ

All columns share the s, which take K backward passes through the whole network. Of a small module
without terms the block itself is made, once; for a large one, and for fewer columns than the s are
worth, passes are made for every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.fisher import EXACT, Fisher, jacobian_rows, on_fisher_terms
from decomposition.curvature.gram import block_ggns
from decomposition.curvature.graphs import Graph, Graphs, check_columns
from decomposition.curvature.products import MADE, Product, block_hessian_product, by_blocks
from decomposition.curvature.terms import BATCH_BYTES, GaussNewtonTerms, LayerTerms
from decomposition.device import full_precision
from decomposition.layers import ExactBlock, LinearBlock
from decomposition.linalg import matmul
from decomposition.problem import Problem

SAME = 1e-12
"""Relative difference of products with diagonal blocks of H and G at which they are one matrix."""


@dataclass(frozen=True)
class Piece:
    """Parameters that are a part of a layer's [W | b]: all of it, its weight, or its bias."""

    slice: slice
    layer: str
    block: LinearBlock
    """Of these parameters alone."""
    columns: slice
    """Of [W | b]."""

    def directions(self, v: Float[Tensor, "k P"]) -> Float[Tensor, "*G w d k"]:
        """V of every group, the columns of v as matrices."""
        matrix = self.block.to_matrix(v[:, self.slice].T)
        if self.block.groups > 1:
            matrix = matrix.unflatten(0, (self.block.groups, -1))
        return matrix.transpose(-3, -2).contiguous()  # once, not for every batch

    def along(self, terms: GaussNewtonTerms, v: Tensor) -> Float[Tensor, "n K k"]:
        """R_nᵀ J_n v of these parameters, of some examples."""
        a, s = self._terms(terms)
        positions, rows, columns = a.shape[-2], s.shape[-2], v.shape[-1]
        if positions * columns > rows * (positions + columns):  # rows take less than images
            made = a.mT.unsqueeze(-3) @ s.unflatten(-1, (positions, -1))  # *G n K w d
            along = made.flatten(-2).flatten(-3, -2) @ v.flatten(-3, -2)  # *G n·K k
            along = along.unflatten(-2, s.shape[-3:-1])
        else:
            moved = a.flatten(-3, -2) @ v.flatten(-2)  # *G n·T d·k
            moved = moved.view(*s.shape[:-2], s.shape[-1], columns)  # *G n T·d k
            along = s @ moved
        return along.sum(0) if a.ndim == 4 else along

    def image(self, terms: GaussNewtonTerms, v: Tensor) -> Float[Tensor, "k size"]:
        """Σ_n J_nᵀ R_n R_nᵀ J_n v of these parameters, of some examples."""
        a, s = self._terms(terms)
        back = (s.mT @ self.along(terms, v)).view(*a.shape[:-1], -1).flatten(-3, -2)  # *G n·T d·k
        found = (back.mT @ a.flatten(-3, -2)).view(*v.shape[:-3], *v.shape[-2:], -1)
        if a.ndim == 4:
            found = found.flatten(0, 1)  # d k w, rows of all groups
        return self.block.from_matrix(found.transpose(1, 2)).T

    def _terms(
        self, terms: GaussNewtonTerms
    ) -> tuple[Float[Tensor, "*G n T w"], Float[Tensor, "*G n K Td"]]:
        return terms.inputs[self.layer][..., self.columns], terms.roots[self.layer].flatten(-2)


def block_ggn_product(
    problem: Problem,
    dtype: torch.dtype = torch.float64,
    parts: Sequence[slice] | None = None,
    fisher: Fisher = EXACT,
) -> BlockProduct:
    """⊕_l G_ll v: many columns at once take about as long as with G itself.

    Args:
        problem: at its model's present parameters.
        dtype: precision of the products.
        parts: the blocks, one after the other, whole tensors each; default those of the layers.
        fisher: whose R Rᵀ takes the place of Λ.

    Raises:
        UnsupportedModelError: the model cannot be differentiated.
        DecompositionError: a precision other than float64 and float32, or a part that cuts
            through a tensor.
    """
    given = [block.slice for block in problem.blocks] if parts is None else list(parts)
    return BlockProduct(problem, dtype, given, fisher)


class BlockProduct(Product):
    """⊕_l G_ll v in one sweep for many columns, by passes for few (``block_ggn_product``)."""

    def __init__(
        self, problem: Problem, dtype: torch.dtype, parts: list[slice], fisher: Fisher
    ) -> None:
        """Tell which parts have terms."""
        graphs = Graphs(problem, dtype, None if fisher == EXACT else fisher)
        super().__init__(graphs, by_blocks(graphs, Graph.ggn, parts))
        known = {(piece.slice.start, piece.slice.stop): piece for piece in _pieces(problem)}
        found = {(part.start, part.stop): known.get((part.start, part.stop)) for part in parts}
        self._pieces = [piece for piece in found.values() if piece is not None]
        small = {
            (block.start, block.slice.stop): block
            for block in problem.blocks
            if isinstance(block, ExactBlock) and block.size <= MADE
        }
        others = [part for part, piece in found.items() if piece is None]
        self._small = [small[part] for part in others if part in small]
        self._large = [slice(*part) for part in others if part not in small]
        self._rest = Product(graphs, by_blocks(graphs, Graph.ggn, self._large))
        self._terms, self._fisher = LayerTerms(problem, dtype), fisher

    @full_precision()
    def matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """⊕_l G_ll v in float64; raises as ``Product.matvec``."""
        check_columns(v, self.size)
        graphs = self._graphs
        if not self.sweeps(v.shape[1]):
            return super().matvec(v)
        out = torch.zeros_like(v, dtype=torch.float64)

        def some(columns: slice) -> None:
            along = v[:, columns].T.to(graphs.dtype)
            directions = [piece.directions(along) for piece in self._pieces]
            totals = [
                torch.zeros_like(along[:, p.slice], dtype=torch.float64) for p in self._pieces
            ]

            def work(terms: GaussNewtonTerms) -> list[Tensor]:
                pairs = zip(self._pieces, directions, strict=True)
                return [piece.image(terms, each) for piece, each in pairs]

            for images in on_fisher_terms(self._terms, self._fisher, work, len(along)):
                for total, image in zip(totals, images, strict=True):
                    total += image
            for piece, total in zip(self._pieces, totals, strict=True):
                out[piece.slice, columns] = total.T

        for _ in graphs.by_columns(v.shape[1], some):
            pass
        out /= graphs.problem.num_examples
        for block, matrix in zip(self._small, self._made, strict=True):
            out[block.slice] = matrix @ v[block.slice].double()
        if self._large:
            rest = self._rest.matvec(v)
            for part in self._large:
                out[part] = rest[part]
        self.count += v.shape[1]
        return out

    @cached_property
    def _made(self) -> list[Tensor]:
        return block_ggns(self._graphs.problem, self._small, self._fisher)

    def sweeps(self, columns: int) -> bool:
        """Whether all blocks are multiplied in one sweep."""
        return worth_sweeping(self._graphs.columns, columns, len(self._pieces))


@full_precision()
def row_images(
    problem: Problem, parts: Sequence[slice], v: Float[Tensor, "P k"], fisher: Fisher = EXACT
) -> list[Float[Tensor, "NK k"]] | None:
    """R v through each of some parts of the parameters alone, in one sweep for all of them.

    Args:
        problem: at its model's present parameters.
        parts: layers, or their weights or biases.
        v: float64.
        fisher: whose R Rᵀ takes the place of Λ.

    Returns:
        Rows Rᵀ_n J_n v / √N, in the order of the Gram matrix; None if a part is none of these.
    """
    known = {(piece.slice.start, piece.slice.stop): piece for piece in _pieces(problem)}
    exact = {(b.start, b.slice.stop): b for b in problem.blocks if isinstance(b, ExactBlock)}
    keys = [(part.start, part.stop) for part in parts]
    if any(key not in known and key not in exact for key in keys):
        return None
    pieces = {key: known[key] for key in keys if key in known}
    blocks = {key: exact[key] for key in keys if key in exact}
    along = v.T
    directions = {key: piece.directions(along) for key, piece in pieces.items()}

    def work(terms: GaussNewtonTerms) -> list[Tensor]:
        return [p.along(terms, directions[key]).flatten(0, 1) for key, p in pieces.items()]

    found: dict[tuple[int, int], list[Tensor]] = {key: [] for key in keys}
    terms = LayerTerms(problem)
    for images in on_fisher_terms(terms, fisher, work, len(along), BATCH_BYTES) if pieces else ():
        for key, image in zip(pieces, images, strict=True):
            found[key].append(image)
    for rows in jacobian_rows(problem, fisher, list(blocks.values())) if blocks else ():
        widths = [block.size for block in blocks.values()]
        for key, part in zip(blocks, rows.flatten(0, 1).split(widths, 1), strict=True):
            found[key].append(matmul(part, v[slice(*key)]))
    return [torch.cat(found[key]) / problem.num_examples**0.5 for key in keys]


def blocks_agree(problem: Problem) -> bool:
    """Whether H_ll = G_ll for every layer, as in a ReLU network: what a random vector says.

    Layers then enter the outputs linearly, each by itself, away from kinks.
    """
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.num_parameters, 1, dtype=torch.float64, generator=generator)
    v = v.to(problem.device)
    hessian, ggn = (of(problem).matvec(v) for of in (block_hessian_product, block_ggn_product))
    places = [block.slice for block in problem.blocks]
    return all(bool((hessian[p] - ggn[p]).norm() <= SAME * ggn[p].norm()) for p in places)


def worth_sweeping(rows: int, columns: int, blocks: int) -> bool:
    """Whether K backward passes cost less than half a network for every block and column."""
    return rows <= columns * blocks


def _pieces(problem: Problem) -> list[Piece]:
    """Every layer that is a linear map, and its weight and its bias alone."""
    found = []
    for block in problem.blocks:
        if not isinstance(block, LinearBlock):
            continue
        found.append(Piece(block.slice, block.name, block, slice(0, block.width)))
        if block.bias:
            weight = replace(block, bias=False)
            bias = replace(weight, start=block.start + weight.size, d_in=1)
            found.append(Piece(weight.slice, block.name, weight, slice(0, block.d_in)))
            found.append(Piece(bias.slice, block.name, bias, slice(block.d_in, None)))
    return found
