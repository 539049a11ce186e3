"""What methods of k steps share: their arguments, their cost, and solutions that are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.method import Method, SolverAlone
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.shared_factors import Parts
from decomposition.checks import flag, one_of, whole
from decomposition.curvature import Curvature, Diagonalised
from decomposition.curvature.krylov import BASIS_NUMBERS, Function, krylov_spaces
from decomposition.curvature.operator import Solutions
from decomposition.device import chunk_bytes
from decomposition.memory import shrinking


class Plain(Protocol):
    """A solver of k steps with a rung: rung, k, and the rung's name."""

    def __call__(self, rung: Curvature, steps: int, of: str) -> Curvature:
        """The solver."""
        ...


class Preconditioned(Protocol):
    """The same, preconditioned by EK-FAC."""

    def __call__(self, rung: Curvature, ekfac: Diagonalised, steps: int, of: str) -> Curvature:
        """The solver."""
        ...


@dataclass(frozen=True)
class IteratedMethod(Method):
    """k steps on G or H, plain or preconditioned by EK-FAC."""

    form = "solver"
    words: ClassVar[dict[str, dict[str, object]]] = {
        "ggn": {"of": "ggn"},
        "hessian": {"of": "hessian"},
        "ekfac": {"preconditioned": True},
    }
    rules: ClassVar = {"k": whole(1), "of": one_of("ggn", "hessian"), "preconditioned": flag}
    plain: ClassVar[Plain]
    with_ekfac: ClassVar[Preconditioned]

    k: int
    """Steps, and products with every vector."""
    of: Literal["ggn", "hessian"] = "ggn"
    """The rung that is solved."""
    preconditioned: bool = False
    """Whether by EK-FAC."""

    def cost(self, costs: Costs) -> Cost:
        """Steps of every query; preconditioned ones start anew at every damping."""
        build, product = costs.product(self.of)
        held = self.memory(costs.problem) + costs.held(self.of)
        if not self.preconditioned:
            again = Work(multiplications=costs.size * (self.k + costs.examples))
            return Cost(build, Work(), costs.query + product * self.k, again, held)
        ekfac = costs.ekfac()
        step = product + ekfac.again
        solve = costs.query + step * self.k
        return Cost(build + ekfac.build, ekfac.decompose, solve, solve, held + ekfac.memory)

    def made(self, parts: Parts) -> Curvature:
        """Nothing is solved yet."""
        rung = parts.reference(self.of)
        if not self.preconditioned:
            return type(self).plain(rung, self.k, self.of)
        ekfac = parts.ekfac().eigenbasis
        assert ekfac is not None
        return type(self).with_ekfac(rung, ekfac, self.k, self.of)


class Iterated(SolverAlone):
    """C⁻¹ by a fixed number of steps.

    Args:
        rung: C.
        steps: k.
        name: of method and rung, for messages.
        signed: whether it knows no other policy for negative eigenvalues, which is said of H.
    """

    def __init__(self, rung: Curvature, steps: int, name: str, signed: bool = False) -> None:
        """Nothing is computed yet."""
        self.size, self.device = rung.size, rung.device
        self._rung, self._steps, self._name = rung, steps, name
        self.kind = f"{name} is a solver"
        self.notes = (f"{name}: a solver, {steps} steps whatever is left; it has no spectrum",)
        if signed:
            self.notes = (*self.notes, f"{name}: negative eigenvalues count as signed")

    def _checked_solutions(
        self, x: Float[Tensor, "D P k"], dampings: list[float], failures: dict[int, str]
    ) -> Solutions:
        """Where a number is not finite, there is no solution."""
        change = x.new_zeros(len(dampings), x.shape[2])
        for i, damping in enumerate(dampings):
            if i not in failures and not bool(x[i].isfinite().all()):
                failures[i] = (
                    f"{self._name} at damping {damping:.3g}: {self._steps} steps have left the "
                    "range of numbers, for λ leaves an eigenvalue at zero or below; raise it"
                )
            if i in failures:
                x[i], change[i] = torch.nan, torch.inf
        return Solutions(x, change, tuple(failures[i] for i in sorted(failures)))

    def _in_spaces(
        self, v: Float[Tensor, "P k"], functions: list[Function], most: int
    ) -> tuple[Float[Tensor, "D P k"], Float[Tensor, "D k"]]:
        """f(C) v of every function with its change, from Krylov spaces that all of them share."""
        out, change = v.new_empty(len(functions), *v.shape), v.new_empty(len(functions), v.shape[1])

        def some(columns: slice) -> None:
            spaces = krylov_spaces(self._rung.matvec, v[:, columns], most)
            for i, function in enumerate(functions):
                out[i, :, columns], change[i, columns] = spaces.apply(function)

        chunk = chunk_bytes(self.device, 8 * BASIS_NUMBERS) // (8 * self.size * most)
        for _ in shrinking(some, v.shape[1], chunk):
            pass
        return out, change
