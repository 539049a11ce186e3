"""Kronecker factors and the exact curvature along their eigenbasis.

A_l = (1/N) Σ_n a_n a_nᵀ and S_l = (1/N) Σ_n Σ_c s_n,c s_n,cᵀ are exact expectations unless
another Fisher is asked for: the sum over the C columns of the square root of Λ takes the place of
Monte-Carlo labels (the *type-2* factors of Eschenhagen et al. 2023, arXiv 2311.00636). Sampled
and empirical factors (decomposition.curvature.fisher) have the same A.

A layer is one block [W | b] unless weight and bias are separated: then the weight has A without
the 1 and the bias has A = 1, and the curvature between them is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.fisher import EXACT, Fisher, fisher_terms
from decomposition.curvature.kronecker import FactorBasis, KroneckerBasis, factor_basis
from decomposition.curvature.preactivation import (
    GaussNewtonTerms,
    HessianTerms,
    Preactivation,
    batches,
)
from decomposition.layers import LinearBlock
from decomposition.problem import Problem

Terms = TypeVar("Terms", GaussNewtonTerms, HessianTerms)
Factors = dict[str, tuple[Float[Tensor, "width width"], Float[Tensor, "d_out d_out"]]]
"""Layer → (A_l, S_l)."""


def kronecker_factors(problem: Problem, fisher: Fisher = EXACT) -> Factors:
    """(A_l, S_l) of every layer."""
    factors: Factors = {}
    for terms in fisher_terms(problem, fisher):
        for block in problem.blocks:
            a, s = terms.inputs[block.name], terms.roots[block.name].flatten(0, 1)
            new = (a.T @ a / problem.examples, s.T @ s / problem.examples)
            old = factors.get(block.name)
            factors[block.name] = new if old is None else (old[0] + new[0], old[1] + new[1])
    return factors


def kronecker_bases(
    problem: Problem, factors: Factors | None = None, separate_bias: bool = False
) -> dict[str, KroneckerBasis]:
    """Canonical Kronecker eigenbases.

    Args:
        problem: where the factors come from if they are not given.
        factors: of any Fisher; default the exact ones.
        separate_bias: a basis for every weight and every bias, not for every layer.

    Returns:
        In parameter order: layer → basis, or ``layer.weight`` and ``layer.bias`` → basis.
    """
    bases: dict[str, KroneckerBasis] = {}
    factors = kronecker_factors(problem) if factors is None else factors
    for block in problem.blocks:
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
    inputs = factor_basis(a[: block.d_in, : block.d_in])
    bases = {f"{block.name}.weight": KroneckerBasis(weight, inputs, outputs, "weight")}
    if block.bias:
        bias = LinearBlock(block.name, block.start + weight.size, 1, block.d_out, bias=False)
        one = factor_basis(a[block.d_in :, block.d_in :])
        bases[f"{block.name}.bias"] = KroneckerBasis(bias, one, outputs, "bias", inputs)
    return bases


def ggn_diagonals(
    problem: Problem, bases: Mapping[str, KroneckerBasis], fisher: Fisher = EXACT
) -> dict[str, Float[Tensor, "d_out width"]]:
    """EK-FAC eigenvalues: diag(Qᵀ G_ll Q)_ij = (1/N) Σ_n (Σ_c (s_n,c · Q_S,i)²) (a_n · Q_A,j)².

    For sampled and empirical Fishers s a are per-example gradients, and this is the correction of
    George et al. (2018, arXiv 1806.03884, equation 11).
    """

    def along(terms: GaussNewtonTerms, name: str, q: Tensor) -> Tensor:
        return (terms.roots[name] @ q).square().sum(1)

    return _diagonals(problem, bases, fisher_terms(problem, fisher), along)


def hessian_diagonals(
    problem: Problem, bases: Mapping[str, KroneckerBasis]
) -> dict[str, Float[Tensor, "d_out width"]]:
    """diag(Qᵀ H_ll Q)_ij = (1/N) Σ_n (Q_S,iᵀ M_n Q_S,i) (a_n · Q_A,j)²: H's own diagonal."""

    def along(terms: HessianTerms, name: str, q: Tensor) -> Tensor:
        return (torch.matmul(terms.hessians[name, name], q) * q).sum(1)

    terms_of = Preactivation(problem).hessian_terms
    return _diagonals(problem, bases, (terms_of(x, y) for x, y in batches(problem)), along)


def _diagonals(
    problem: Problem,
    bases: Mapping[str, KroneckerBasis],
    batches_of_terms: Iterable[Terms],
    along: Callable[[Terms, str, Tensor], Float[Tensor, "n d_out"]],
) -> dict[str, Float[Tensor, "d_out width"]]:
    """(1/N) Σ_n along_n,i (a_n · Q_A,j)², where ``along`` is the curvature along each Q_S,i."""
    diagonals = {key: torch.zeros_like(basis.products()) for key, basis in bases.items()}
    for terms in batches_of_terms:
        for key, basis in bases.items():
            layer = basis.block.name
            a = (terms.inputs[layer][:, basis.columns] @ basis.inputs.vectors).square()
            s = along(terms, layer, basis.outputs.vectors)
            diagonals[key] += s.T @ a / problem.examples
    return diagonals
