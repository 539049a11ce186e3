"""Products with H and G of a problem, for models whose matrices are too large to form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.preactivation import (
    GaussNewtonTerms,
    Preactivation,
    on_plain_batches,
    plain_blocks,
)
from decomposition.curvature.products import Product, ggn_product, hessian_product
from decomposition.device import CPU
from decomposition.errors import DecompositionError
from decomposition.memory import OutOfMemoryError, shrinking
from decomposition.problem import Problem


@dataclass(frozen=True)
class Operator:
    """A symmetric P × P matrix known by its products alone."""

    size: int
    """P."""
    matvec: Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
    """v (P, k) → C v."""
    device: torch.device = CPU
    """Where v lies."""


def ggn_operator(problem: Problem, block: str | None = None) -> Operator:
    """G v = (1/N) Σ_n Σ_c (J̃_n,c · v) J̃_n,c with rows J̃_n,c = (s_l,n,c ⊗ a_l,n)_l, or a block of G.

    The layer terms s and a are kept, N (C Σ d_out + Σ width) numbers; the P × P matrix and the
    NC × P matrix of the rows never exist. Where the terms do not fit, and for models that are no
    stacks of once-used linear layers, every product sweeps forwards and backwards.

    Raises:
        DecompositionError: no block of that name.
    """
    terms = _kept_terms(problem) if problem.plain else None
    if terms is None:
        return _restricted(problem, ggn_product(problem), block)
    chosen, size = _selection(problem, block)
    blocks = [one for one in plain_blocks(problem) if one in chosen]
    offset = blocks[0].start if block else 0

    def product(v: Tensor) -> Tensor:
        out = torch.zeros_like(v)
        matrices = {b.name: b.to_matrix(_part(v, b.slice, offset)) for b in blocks}
        for batch in terms:
            shape = (len(next(iter(batch.inputs.values()))), v.shape[1])
            rows = sum(  # J̃ v: (n, C, k)
                torch.bmm(
                    batch.roots[b.name], _apply(batch.inputs[b.name], matrices[b.name], shape)
                )
                for b in blocks
            )
            assert isinstance(rows, Tensor)
            for b in blocks:
                pulled = torch.bmm(batch.roots[b.name].transpose(1, 2), rows)  # (n, d_out, k)
                product = batch.inputs[b.name].T @ pulled.flatten(1)  # (width, d_out · k)
                matrix = product.view(b.width, b.d_out, -1).transpose(0, 1)
                part = _part(out, b.slice, offset)
                part += b.from_matrix(matrix) / problem.num_examples
        return out

    def matvec(v: Tensor) -> Tensor:
        columns = v.shape[1]
        return torch.cat(
            [*shrinking(lambda some: product(v[:, some]), columns, columns)] or [product(v)], 1
        )

    return Operator(size, matvec, problem.device)


def _kept_terms(problem: Problem) -> list[GaussNewtonTerms] | None:
    """Of all batches, if they fit."""
    preactivation = Preactivation(problem)
    terms_of = preactivation.gauss_newton_terms
    try:
        return list(on_plain_batches(problem, lambda x, y, first: terms_of(x, y)))
    except OutOfMemoryError:
        return None


def hessian_operator(problem: Problem, block: str | None = None) -> Operator:
    """H v by forward-over-reverse differentiation, or a block of H; of any model.

    Raises:
        DecompositionError: no block of that name.
    """
    return _restricted(problem, hessian_product(problem), block)


def _restricted(problem: Problem, product: Product, block: str | None) -> Operator:
    """A product, or its diagonal block: C v of v outside which there are zeros."""
    blocks, size = _selection(problem, block)
    if block is None:
        return Operator(size, product.matvec, problem.device)
    part = blocks[0].slice

    def matvec(v: Tensor) -> Tensor:
        whole = v.new_zeros(problem.num_parameters, v.shape[1])
        whole[part] = v
        return product.matvec(whole)[part]

    return Operator(size, matvec, problem.device)


def _selection(problem: Problem, block: str | None):
    if block is None:
        return problem.blocks, problem.num_parameters
    chosen = tuple(b for b in problem.blocks if b.name == block)
    if not chosen:
        names = ", ".join(b.name for b in problem.blocks)
        raise DecompositionError(f"no block {block!r}: the blocks are {names}")
    return chosen, chosen[0].size


def _part(v: Tensor, place: slice, offset: int) -> Tensor:
    return v[place.start - offset : place.stop - offset]


def _apply(a: Tensor, matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """[W | b] a for every example and column: (n, d_out, k)."""
    d_out, width, _ = matrix.shape
    flat = a @ matrix.transpose(0, 1).reshape(width, -1)
    return flat.view(shape[0], d_out, shape[1])
