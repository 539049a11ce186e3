"""Kronecker factors and the exact curvature along their eigenbasis, without sampling.

A_l = (1/N) Σ_n a_n a_nᵀ and S_l = (1/N) Σ_n Σ_c s_n,c s_n,cᵀ are exact expectations: the sum
over the C columns of the square root of Λ takes the place of Monte-Carlo labels (the *type-2*
factors of Eschenhagen et al. 2023, arXiv 2311.00636).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.kronecker import FactorBasis, KroneckerBasis, factor_basis
from decomposition.curvature.preactivation import (
    GaussNewtonTerms,
    HessianTerms,
    Preactivation,
    batches,
)
from decomposition.problem import Problem

Terms = TypeVar("Terms", GaussNewtonTerms, HessianTerms)


def kronecker_factors(
    problem: Problem,
) -> dict[str, tuple[Float[Tensor, "width width"], Float[Tensor, "d_out d_out"]]]:
    """(A_l, S_l) of every layer."""
    preactivation = Preactivation(problem)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for x, y in batches(problem):
        terms = preactivation.gauss_newton_terms(x, y)
        for block in problem.blocks:
            a, s = terms.inputs[block.name], terms.roots[block.name].flatten(0, 1)
            new = (a.T @ a / problem.examples, s.T @ s / problem.examples)
            old = factors.get(block.name)
            factors[block.name] = new if old is None else (old[0] + new[0], old[1] + new[1])
    return factors


def kronecker_bases(problem: Problem) -> dict[str, KroneckerBasis]:
    """Canonical Kronecker eigenbasis of every layer."""
    bases: dict[str, KroneckerBasis] = {}
    factors = kronecker_factors(problem)
    for block in problem.blocks:
        inputs: FactorBasis = factor_basis(factors[block.name][0])
        bases[block.name] = KroneckerBasis(block, inputs, factor_basis(factors[block.name][1]))
    return bases


def ggn_diagonals(
    problem: Problem, bases: Mapping[str, KroneckerBasis]
) -> dict[str, Float[Tensor, "d_out width"]]:
    """EK-FAC eigenvalues: diag(Qᵀ G_ll Q)_ij = (1/N) Σ_n (Σ_c (s_n,c · Q_S,i)²) (a_n · Q_A,j)²."""

    def along(terms: GaussNewtonTerms, name: str, q: Tensor) -> Tensor:
        return (terms.roots[name] @ q).square().sum(1)

    return _diagonals(problem, bases, Preactivation(problem).gauss_newton_terms, along)


def hessian_diagonals(
    problem: Problem, bases: Mapping[str, KroneckerBasis]
) -> dict[str, Float[Tensor, "d_out width"]]:
    """diag(Qᵀ H_ll Q)_ij = (1/N) Σ_n (Q_S,iᵀ M_n Q_S,i) (a_n · Q_A,j)²: H's own diagonal."""

    def along(terms: HessianTerms, name: str, q: Tensor) -> Tensor:
        return (torch.matmul(terms.hessians[name, name], q) * q).sum(1)

    return _diagonals(problem, bases, Preactivation(problem).hessian_terms, along)


def _diagonals(
    problem: Problem,
    bases: Mapping[str, KroneckerBasis],
    terms_of: Callable[[Tensor, Tensor], Terms],
    along: Callable[[Terms, str, Tensor], Float[Tensor, "n d_out"]],
) -> dict[str, Float[Tensor, "d_out width"]]:
    """(1/N) Σ_n along_n,i (a_n · Q_A,j)², where ``along`` is the curvature along each Q_S,i."""
    diagonals = {name: torch.zeros_like(basis.products()) for name, basis in bases.items()}
    for x, y in batches(problem):
        terms = terms_of(x, y)
        for name, basis in bases.items():
            a = (terms.inputs[name] @ basis.inputs.vectors).square()
            s = along(terms, name, basis.outputs.vectors)
            diagonals[name] += s.T @ a / problem.examples
    return diagonals
