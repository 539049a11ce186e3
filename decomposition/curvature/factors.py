"""Kronecker factors and the exact curvature along their eigenbasis.

A_l = (1/N) Σ_n a_n a_nᵀ and S_l = (1/N) Σ_n Σ_c s_n,c s_n,cᵀ are exact expectations unless
another Fisher is asked for: the sum over the C columns of the square root of Λ takes the place of
Monte-Carlo labels (the *type-2* factors of Eschenhagen et al. 2023, arXiv 2311.00636). Sampled
and empirical factors (decomposition.curvature.fisher) have the same A.

Where T positions share a weight (sequences, convolutions), K-FAC *expand* counts every position
as an example of its own, A = (1/NT) Σ_n Σ_t a aᵀ and S = (1/N) Σ_n Σ_c Σ_t s sᵀ; *reduce* takes
positions together first, ā_n = (1/T) Σ_t a_n,t and s̄_n,c = Σ_t s_n,c,t (Eschenhagen et al. 2023,
sections 3.2 and 3.3). Both are exact for a deep linear network with the squared error: expand
when an output depends on one position, reduce when the outputs pool them.

A layer is one block [W | b] unless weight and bias are separated: then the weight has A without
the 1 and the bias has A = 1, and the curvature between them is dropped. Each group of a grouped
convolution has factors of its own, from its channels and its outputs; they are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.factor_basis import FactorBasis, factor_basis
from decomposition.curvature.fisher import EXACT, Fisher, on_fisher_passes
from decomposition.curvature.kronecker import KroneckerBasis, KroneckerCurvature
from decomposition.curvature.operator import Curvature
from decomposition.curvature.terms import LayerPasses, LayerTerms, on_hessian_batches
from decomposition.device import chunk_bytes
from decomposition.errors import DecompositionError
from decomposition.layers import ExactBlock, LinearBlock
from decomposition.linalg import matmul
from decomposition.memory import shrinking
from decomposition.problem import Problem

Factors = dict[str, tuple[Float[Tensor, "*G width width"], Float[Tensor, "*G d d"]]]
"""Layer → (A_l, S_l), one of each for every group of a grouped convolution."""
Sharing = Literal["expand", "reduce"]
"""How positions that share a weight count."""
COLUMN_NUMBERS = 2**24
"""Numbers in the columns of a basis that are made at once: 128 MB."""
PRODUCT_NUMBERS = 2**18
"""Numbers of rotated gradients that are squared at once: more leaves the cache."""


def kronecker_factors(
    problem: Problem, fisher: Fisher = EXACT, sharing: Sharing = "expand"
) -> Factors:
    """(A_l, S_l) of every linear block.

    Raises:
        DecompositionError: ``sharing`` is neither expand nor reduce.
    """
    if sharing not in ("expand", "reduce"):
        raise DecompositionError(f"sharing must be expand or reduce, got {sharing!r}")
    factors: Factors = {}
    for found in on_fisher_passes(problem, fisher, partial(_moments, sharing=sharing)):
        for name, (a, s) in found.items():
            old = factors.get(name)
            factors[name] = (a, s) if old is None else (old[0] + a, old[1] + s)
    n = problem.num_examples
    return {name: (a / n, s / n) for name, (a, s) in factors.items()}


def _moments(passes: LayerPasses, sharing: Sharing) -> Factors:
    """N A and N S of some examples."""
    reduce, inputs = sharing == "reduce", {}
    for name, a in passes.inputs.items():
        rows = a.mean(-2) if reduce else a.flatten(-3, -2) / a.shape[-2] ** 0.5
        inputs[name] = matmul(rows.mT, rows)  # of a matrix with itself: half the work
    outputs: dict[str, Tensor] = {}
    for roots in passes.roots():
        for name, s in roots.items():
            rows = s.sum(-2).flatten(-3, -2) if reduce else s.flatten(-4, -2)
            new = matmul(rows.mT, rows)
            outputs[name] = outputs[name] + new if name in outputs else new
    return {name: (a, outputs[name]) for name, a in inputs.items()}


def kronecker_bases(
    problem: Problem, factors: Factors | None = None, separate_bias: bool = False
) -> dict[str, KroneckerBasis]:
    """Canonical Kronecker eigenbases.

    Args:
        problem: where the factors come from if they are not given.
        factors: of any Fisher; default the exact ones.
        separate_bias: a basis for every weight and every bias, not for every layer.

    Returns:
        In parameter order: layer → basis, or ``layer.weight`` and ``layer.bias`` → basis. Exact
        blocks have none.
    """
    bases: dict[str, KroneckerBasis] = {}
    factors = kronecker_factors(problem) if factors is None else factors
    for block in problem.blocks:
        if isinstance(block, ExactBlock):
            continue
        a, s = factors[block.name]
        outputs = factor_basis(s)
        if separate_bias:
            bases |= _separated(block, a, outputs)
        else:
            bases[block.name] = KroneckerBasis(block, factor_basis(a), outputs)
    return bases


def _separated(block: LinearBlock, a: Tensor, outputs: FactorBasis) -> dict[str, KroneckerBasis]:
    """Weight: A without the 1. Bias: the constant input's A = 1. Both with the layer's S."""
    weight = replace(block, bias=False)
    inputs = factor_basis(a[..., : block.d_in, : block.d_in])
    bases = {f"{block.name}.weight": KroneckerBasis(weight, inputs, outputs, "weight")}
    if block.bias:
        bias = replace(weight, start=block.start + weight.size, d_in=1)
        one = factor_basis(a[..., block.d_in :, block.d_in :])
        bases[f"{block.name}.bias"] = KroneckerBasis(bias, one, outputs, "bias", inputs)
    return bases


def ggn_diagonals(
    problem: Problem, bases: Mapping[str, KroneckerBasis], fisher: Fisher = EXACT
) -> dict[str, Float[Tensor, "d_out width"]]:
    """EK-FAC eigenvalues, the diagonal of G_ll in the basis:

        diag(Qᵀ G_ll Q)_ij = (1/N) Σ_n Σ_c (Σ_t (s_n,c,t · Q_S,i) (a_n,t · Q_A,j))²

    For sampled and empirical Fishers s a are per-example gradients, and this is the correction of
    George et al. (2018, arXiv 1806.03884, equation 11).
    """
    diagonals = {key: torch.zeros_like(basis.products()) for key, basis in bases.items()}
    for found in on_fisher_passes(problem, fisher, partial(_diagonals, bases=bases)):
        for key, new in found.items():
            diagonals[key] += new.flatten(0, -2)
    return {key: value / problem.num_examples for key, value in diagonals.items()}


def _diagonals(
    passes: LayerPasses, bases: Mapping[str, KroneckerBasis]
) -> dict[str, Float[Tensor, "*G d width"]]:
    """N times the eigenvalues, of some examples."""
    inputs = {
        key: _along(passes.inputs[basis.block.name][..., basis.columns], basis.inputs.vectors)
        for key, basis in bases.items()
    }
    found: dict[str, Tensor] = {}
    for roots in passes.roots():
        for key, basis in bases.items():
            s, a = _along(roots[basis.block.name], basis.outputs.vectors), inputs[key]
            # At one position the square of a product is the product of squares: of one sum.
            new = s[..., 0, :].square().sum(-3) if a.shape[-2] == 1 else _squared_products(s, a)
            found[key] = found[key] + new if key in found else new
    for key, a in inputs.items():
        if a.shape[-2] == 1:
            found[key] = found[key].mT @ a[..., 0, :].square()
    return found


def _along(rows: Float[Tensor, "*G ... d"], vectors: Float[Tensor, "*G d d"]) -> Tensor:
    """Rows times the vectors of their group, in one product."""
    return (rows.flatten(vectors.ndim - 2, -2) @ vectors).view(rows.shape)


def _squared_products(
    s: Float[Tensor, "*G K n T d"], a: Float[Tensor, "*G n T width"]
) -> Float[Tensor, "*G d width"]:
    """Σ_k Σ_n (Σ_t s_k,n,t a_n,tᵀ)², elementwise squares."""
    total = a.new_zeros(*a.shape[:-3], s.shape[-1], a.shape[-1])
    at_once = chunk_bytes(a.device, 8 * PRODUCT_NUMBERS) // (8 * total.numel())
    for column in s.unbind(-4):

        def of(part: slice, column: Tensor = column) -> Tensor:
            products = column[..., part, :, :].mT @ a[..., part, :, :]
            return products.square_().sum(-3)

        for found in shrinking(of, a.shape[-3], at_once):
            total += found
    return total


def hessian_diagonals(
    problem: Problem, bases: Mapping[str, KroneckerBasis], blocks: Mapping[str, Curvature]
) -> dict[str, Float[Tensor, "d_out width"]]:
    """diag(Qᵀ H_ll Q)_ij = (1/N) Σ_n (Q_S,iᵀ M_n Q_S,i) (a_n · Q_A,j)²: H's own diagonal.

    From the terms M_n of a plain problem, from its diagonal blocks otherwise. It is that of
    the loss: a weight decay that the blocks contain is taken off.

    Args:
        problem: at its model's present parameters.
        bases: of layers, or of weights and biases.
        blocks: layer → H_ll, of a problem that is not plain.
    """
    if not problem.plain:
        return {
            key: _in_basis(blocks[basis.block.name], basis) - problem.curvature_decay
            for key, basis in bases.items()
        }

    of = LayerTerms(problem).hessian
    diagonals = {key: torch.zeros_like(basis.products()) for key, basis in bases.items()}
    for terms in on_hessian_batches(problem, lambda x, y, first: of(x, y)):
        for key, basis in bases.items():
            layer, q = basis.block.name, basis.outputs.vectors
            a = (terms.inputs[layer][:, basis.columns] @ basis.inputs.vectors).square()
            s = (torch.matmul(terms.hessians[layer, layer], q) * q).sum(1)
            diagonals[key] += s.T @ a / problem.num_examples
    return diagonals


def _in_basis(layer: Curvature, basis: KroneckerBasis) -> Float[Tensor, "d_out width"]:
    """diag(Qᵀ C Q) of a layer's curvature, or of the part of it that the basis covers.

    What is known by its products is multiplied with a few columns of Q at a time.
    """
    block = basis.block
    first = layer.size - block.size if basis.part == "bias" else 0
    part = slice(first, first + block.size)
    rotation = KroneckerCurvature(basis, basis.products())
    if not layer.matrix_free:
        half = rotation.to_basis(layer.dense()[part, part])  # Qᵀ C
        found = rotation.to_basis(half.T).diagonal()
        return found.reshape(block.d_out, block.width).clone()

    def along(columns: slice) -> Float[Tensor, " k"]:
        q = rotation.basis_columns(columns)
        whole = q.new_zeros(layer.size, q.shape[1])
        whole[part] = q
        return (layer.matvec(whole)[part] * q).sum(0)

    step = max(1, COLUMN_NUMBERS // layer.size)
    found = torch.cat(list(shrinking(along, block.size, step)))
    return found.view(block.d_out, block.width)
