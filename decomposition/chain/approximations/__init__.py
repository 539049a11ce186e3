"""Other approximations of the field, beside the chain: one file each, named after its method.

Each is made from a Problem, or beside a chain from what that is made of, for ``extra=`` of
``build_chain`` and ``run``; ``--also`` and ``Settings(also=…)`` name them by a specification such
as ``kpsvd,low_rank:100,cg:20:hessian``: the method, then its numbers in their order and its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

from decomposition.chain.approximations.cg import ConjugateGradients as cg
from decomposition.chain.approximations.datainf import DataInf as datainf
from decomposition.chain.approximations.diagonal import Diagonal as diagonal
from decomposition.chain.approximations.exchanged import (
    BlockBasisKFACValues as block_basis_kfac_values,
)
from decomposition.chain.approximations.exchanged import (
    KFACBasisBlockValues as kfac_basis_block_values,
)
from decomposition.chain.approximations.kfac_trace import KFACTrace as kfac_trace
from decomposition.chain.approximations.kpsvd import KPSVD as kpsvd
from decomposition.chain.approximations.low_rank import LowRank as low_rank
from decomposition.chain.approximations.method import Method
from decomposition.chain.approximations.neumann import Neumann as neumann
from decomposition.chain.approximations.projected import Projected as projected
from decomposition.chain.approximations.projected import ProjectedLayers as projected_layers
from decomposition.checks import specifications
from decomposition.curvature import Curvature
from decomposition.errors import DecompositionError
from decomposition.problem import Problem

Extra = Callable[[Problem], Curvature]
"""An approximation of the user's own."""

__all__ = [
    "METHODS",
    "Method",
    "approximations",
    "beside",
    "block_basis_kfac_values",
    "cg",
    "datainf",
    "diagonal",
    "kfac_basis_block_values",
    "kfac_trace",
    "kpsvd",
    "low_rank",
    "neumann",
    "projected",
    "projected_layers",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        diagonal,
        kfac_trace,
        block_basis_kfac_values,
        kfac_basis_block_values,
        kpsvd,
        low_rank,
        projected,
        projected_layers,
        datainf,
        neumann,
        cg,
    )
}
"""Name → method."""


def approximations(specification: str) -> dict[str, Method]:
    """Rung → approximation, for ``extra=``; a rung is called as it is specified.

    Args:
        specification: methods with their arguments, ``kpsvd,low_rank:100,cg:20:hessian``; none if
            empty.

    Raises:
        DecompositionError: an unknown method, an argument that it does not take, or one twice.
    """
    parts = specifications(specification, "approximation")
    return {written: _method(written, name, arguments) for written, name, arguments in parts}


def beside(also: str, extra: Mapping[str, Extra] | None) -> dict[str, Method | Extra]:
    """The approximations of a specification, then the user's own rungs.

    Raises:
        DecompositionError: as ``approximations``, or a name that both have.
    """
    named, own = approximations(also), dict(extra or {})
    for name in named.keys() & own.keys():
        raise DecompositionError(f"the rung {name!r} is named both in also and in extra: drop one")
    return {**named, **own}


def _method(written: str, name: str, arguments: list[str]) -> Method:
    if name not in METHODS:
        raise DecompositionError(
            f"unknown approximation {name!r}: use {', '.join(METHODS)}, separated by commas, with "
            "arguments after colons (low_rank:100)"
        )
    kind = METHODS[name]
    numbers = [field.name for field in fields(kind) if field.type == "int"]
    given: dict[str, object] = {}
    for argument in arguments:
        if argument.isdecimal() and numbers:
            given[numbers.pop(0)] = int(argument)
        elif argument in kind.words:
            given |= kind.words[argument]
        else:
            takes = [f"{field}=whole number" for field in numbers] + list(kind.words)
            raise DecompositionError(
                f"{name} does not take {argument!r} in {written}; it takes "
                f"{', '.join(takes) or 'no arguments'}, after colons"
            )
    return kind(**given)
