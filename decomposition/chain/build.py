"""Build the chain, or the whole lattice, at a model's present parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from decomposition.chain import reference
from decomposition.chain.cross_layer import block_diagonal
from decomposition.chain.eigenbasis import in_kronecker_basis
from decomposition.chain.eigenvalues import kfac
from decomposition.chain.linearisation import ggn
from decomposition.curvature import Curvature
from decomposition.curvature.factors import ggn_diagonals, hessian_diagonals, kronecker_bases
from decomposition.errors import DecompositionError
from decomposition.problem import Problem

CHAIN = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
"""Rungs in chain order."""
STEPS = ("linearisation", "cross_layer", "eigenbasis", "eigenvalues")
"""Step i leads from rung i to rung i + 1."""
LATTICE = ("hessian", "ggn", "block_hessian", "block_ggn", "ekfac_hessian", "ekfac", "kfac")
"""All feasible nodes of source × coupling × structure."""

Approximation = Callable[[Problem], Curvature]


def build_chain(
    problem: Problem, extra: Mapping[str, Approximation] | None = None
) -> dict[str, Curvature]:
    """The five rungs, in chain order, then the user's own.

    Args:
        problem: its model's present parameters are where the curvature is taken.
        extra: name → function from the problem to a Curvature, scored beside the chain.

    Raises:
        DecompositionError: an extra rung has a reserved name, the wrong size, or is no Curvature.
    """
    hessian, gauss_newton = reference.hessian(problem), ggn(problem)
    bases = kronecker_bases(problem)
    chain: dict[str, Curvature] = {
        "hessian": hessian,
        "ggn": gauss_newton,
        "block_ggn": block_diagonal(gauss_newton),
        "ekfac": in_kronecker_basis(bases, ggn_diagonals(problem, bases)),
        "kfac": kfac(bases),
    }
    return add_extra(chain, problem, extra)


def build_lattice(
    problem: Problem, extra: Mapping[str, Approximation] | None = None
) -> dict[str, Curvature]:
    """The seven nodes of the lattice, then the user's own rungs.

    Beside the chain: block-diagonal H, and H's own diagonal in the K-FAC eigenbasis. Nodes share
    matrices and decompositions: H's blocks are views of H.
    """
    hessian, gauss_newton = reference.hessian(problem), ggn(problem)
    bases = kronecker_bases(problem)
    lattice: dict[str, Curvature] = {
        "hessian": hessian,
        "ggn": gauss_newton,
        "block_hessian": block_diagonal(hessian),
        "block_ggn": block_diagonal(gauss_newton),
        "ekfac_hessian": in_kronecker_basis(bases, hessian_diagonals(problem, bases)),
        "ekfac": in_kronecker_basis(bases, ggn_diagonals(problem, bases)),
        "kfac": kfac(bases),
    }
    return add_extra(lattice, problem, extra)


RESERVED = frozenset((*LATTICE, "identity", "random"))


def add_extra(
    chain: dict[str, Curvature], problem: Problem, extra: Mapping[str, Approximation] | None
) -> dict[str, Curvature]:
    """Append the user's rungs, checked."""
    for name, approximation in (extra or {}).items():
        if name in RESERVED:
            raise DecompositionError(f"extra rung {name!r} has a name that the chain uses itself")
        curvature = approximation(problem)
        if not isinstance(curvature, Curvature):
            raise DecompositionError(
                f"extra rung {name!r} must be a decomposition.curvature.Curvature, got "
                f"{type(curvature).__name__}"
            )
        if curvature.size != problem.parameters:
            raise DecompositionError(
                f"extra rung {name!r} has size {curvature.size}, the model has "
                f"{problem.parameters} parameters"
            )
        chain[name] = curvature
    return chain
