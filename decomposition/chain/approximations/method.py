"""What every approximation beside the chain has: a line about itself, a need of memory, a build."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from decomposition.chain.cost import Cost, Costs
from decomposition.chain.plan import Plan
from decomposition.chain.rungs import Rung
from decomposition.chain.shared_factors import Parts
from decomposition.checks import Rule, check_fields
from decomposition.curvature import Curvature, NotAvailableError
from decomposition.damping import NegativeCurvature
from decomposition.errors import DampingError, DecompositionError
from decomposition.memory import OutOfMemoryError
from decomposition.problem import Problem
from decomposition.resources import size_text


@dataclass(frozen=True)
class Method(Rung):
    """An approximation of G or H, built from the rungs of the chain as the plan has them.

    Its fields are its arguments: whole numbers in their order, and words (see ``words``).

    Raises:
        DecompositionError: a field outside its range.
    """

    name: ClassVar[str]
    """As it is specified."""
    summary: ClassVar[str]
    """One line for ``--help``."""
    form: ClassVar[str]
    """What kind of curvature it is, for ``decompose plan``."""
    words: ClassVar[dict[str, dict[str, object]]] = {}
    """Word of a specification (``cg:20:hessian``) → fields that it sets."""
    rules: ClassVar[dict[str, Rule]] = {}
    """What each field may be."""

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self, self.rules, DecompositionError, f"the {{}} of {self.name}")

    def memory(self, problem: Problem) -> int:
        """Bytes at its peak, beyond what the chain takes; 0 where that is little."""
        return 0

    @abstractmethod
    def cost(self, costs: Costs) -> Cost:
        """What it takes by itself, whatever the run has anyway."""

    def build(self, parts: Parts) -> Curvature:
        """The curvature.

        Raises:
            OutOfMemoryError: it needs more than the plan's budget, and than the chain takes anyway.
        """
        most, needed = most_memory(parts.plan), self.memory(parts.problem)
        size = parts.problem.num_parameters
        if needed > most:
            raise OutOfMemoryError(
                f"approximation {self} needs {size_text(needed)} for P = {size:,}, more than the "
                f"{size_text(most)} of the plan: take a smaller number of directions or steps, "
                "raise --memory, or leave it out"
            )
        return self.made(parts)

    @abstractmethod
    def made(self, parts: Parts) -> Curvature:
        """The curvature, where there is memory for it."""


class SolverAlone(Curvature):
    """A curvature that is known by its solutions at several λ: it has no spectrum of its own."""

    solver_alone = True
    kind: str
    """What it is, for messages, such as ``cg on ggn is a solver``."""

    def eigenvalues(self) -> Tensor:
        """None.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(f"{self.kind}: it has no eigenvalues of its own")

    def _matvec(self, v: Tensor) -> Tensor:
        raise NotAvailableError(f"{self.kind}: it has no products of its own")

    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: NegativeCurvature
    ) -> Float[Tensor, "P k"]:
        found = self._solutions(v, [damping], negative)
        if found.failures:
            raise DampingError(found.failures[0])
        return found.x[0]


def most_memory(plan: Plan) -> int:
    """Bytes that an approximation may take: the budget, or what the chain takes anyway."""
    return max(plan.budget, *(choice.memory for choice in plan.choices.values()))
