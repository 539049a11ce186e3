"""Build the chain, or the whole lattice, at a model's present parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from decomposition.chain.plan import Plan
from decomposition.chain.rungs import EKFAC, KFAC, BlockGGN, FullGGN, Rung
from decomposition.chain.shared_factors import Parts
from decomposition.checks import printable
from decomposition.curvature import Curvature
from decomposition.errors import DecompositionError
from decomposition.ledger import spending
from decomposition.names import BASELINES, CHAIN, LATTICE, STEPS
from decomposition.problem import Problem

Approximation = Callable[[Problem], Curvature]

__all__ = ["CHAIN", "LATTICE", "STEPS", "Approximation", "build_chain", "build_lattice"]

NODES: dict[str, Callable[[Parts], Curvature]] = {
    "hessian": lambda parts: parts.hessian,
    "ggn": FullGGN().build,
    "block_hessian": Parts.block_hessian,
    "block_ggn": BlockGGN().build,
    "ekfac_hessian": Parts.ekfac_hessian,
    "ekfac": EKFAC().build,
    "kfac": KFAC().build,
}
"""Every node of the lattice, from what rungs share."""


def build_chain(
    problem: Problem,
    extra: Mapping[str, Approximation] | None = None,
    plan: Plan | None = None,
    progress: bool = False,
) -> dict[str, Curvature]:
    """The five rungs, in chain order, then the user's own.

    Args:
        problem: its model's present parameters are where the curvature is taken.
        extra: name → function from the problem to a Curvature, scored beside the chain; those of
            decomposition.chain.rungs share matrices and bases with it, and its plan.
        plan: which form each rung takes; default ``plan_chain(problem)``, which forms dense
            matrices wherever they fit into memory.
        progress: show a bar over the dual Gram matrices.

    Raises:
        DecompositionError: an extra rung has a reserved name, the wrong size, or is no Curvature.
    """
    return _built(CHAIN, Parts(problem, plan, progress), extra)


def build_lattice(
    problem: Problem,
    extra: Mapping[str, Approximation] | None = None,
    plan: Plan | None = None,
    progress: bool = False,
) -> dict[str, Curvature]:
    """The seven nodes of the lattice, then the user's own rungs.

    Beside the chain: block-diagonal H, and H's own diagonal in the K-FAC eigenbasis. Nodes share
    matrices and decompositions: the blocks of a dense H are views of it. Arguments as of
    ``build_chain``.

    Raises:
        DecompositionError: as ``build_chain``, or the plan has no place for a node of the lattice.
    """
    return _built(LATTICE, Parts(problem, plan, progress), extra)


def _built(
    names: tuple[str, ...], parts: Parts, extra: Mapping[str, Approximation] | None
) -> dict[str, Curvature]:
    check_extra(extra)
    chain: dict[str, Curvature] = {}
    for name in names:
        with spending(account_of(name)):
            chain[name] = NODES[name](parts)
    return add_extra(chain, parts, extra)


SAME_BLOCKS = {"block_hessian": "block_ggn", "ekfac_hessian": "ekfac"}
"""What nodes of the lattice are where the diagonal blocks of H and G agree."""


def same_as(rungs: Mapping[str, Curvature], name: str) -> str:
    """The chain's rung that a node of the lattice is one with; itself if with none."""
    agree = "block_hessian" in rungs and rungs["block_hessian"] is rungs["block_ggn"]
    return SAME_BLOCKS.get(name, name) if agree else name


def account_of(rung: str) -> tuple[str, str]:
    """Under which name a rung's cost is kept in a ledger."""
    return ("rung", rung)


RESERVED = frozenset((*LATTICE, *BASELINES))


def check_extra(extra: Mapping[str, Approximation] | None) -> None:
    """Nothing, if rungs of one's own have names that a result can hold, and can be made.

    Raises:
        DecompositionError: a name of the chain's, or one that is no printable text, or a value
            that is no function.
    """
    for name, approximation in (extra or {}).items():
        if name in RESERVED:
            raise DecompositionError(
                f"extra rung {name!r} has a name that the chain uses itself: choose another"
            )
        if not isinstance(name, str) or not name.strip() or printable(name) != name:
            raise DecompositionError(
                f"extra rung {name!r} needs a name of printable characters, which tables and "
                "figures show"
            )
        if not (isinstance(approximation, Rung) or callable(approximation)):
            raise DecompositionError(
                f"extra rung {name!r} must be a function from a problem to a Curvature, got "
                f"{type(approximation).__name__}"
            )


def add_extra(
    chain: dict[str, Curvature], parts: Parts, extra: Mapping[str, Approximation] | None
) -> dict[str, Curvature]:
    """Append the user's rungs, checked."""
    for name, approximation in (extra or {}).items():
        own = isinstance(approximation, Rung)
        with spending(account_of(name)):
            curvature = approximation.build(parts) if own else approximation(parts.problem)
        if not isinstance(curvature, Curvature):
            raise DecompositionError(
                f"extra rung {name!r} must be a decomposition.curvature.Curvature, got "
                f"{type(curvature).__name__}"
            )
        if curvature.size != parts.problem.num_parameters:
            raise DecompositionError(
                f"extra rung {name!r} has size {curvature.size}, the model has "
                f"{parts.problem.num_parameters} parameters"
            )
        there = parts.problem.device
        if curvature.eigenbasis is not None and curvature.device != there:
            raise DecompositionError(
                f"extra rung {name!r} lies on {curvature.device}, the problem on {there}: make its "
                "tensors with device=problem.device"
            )
        chain[name] = curvature if parts.plan.dense else curvature.by_products()
    return chain
