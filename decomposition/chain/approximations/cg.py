"""k steps of conjugate gradients on (C + λI) x = v, plain or preconditioned by EK-FAC.

Hestenes & Stiefel 1952 (doi 10.6028/jres.049.044); for influence functions Martens 2010 and Koh &
Liang 2017 (arXiv 1703.04730). Plain steps are taken as Lanczos steps, V (T + λI)⁻¹ Vᵀ v, the same
vector in exact arithmetic: the products serve every λ, and a policy for negative eigenvalues acts
on those of T, which makes k steps on H what they are meant to be where H + λI is indefinite.
Preconditioned ones start anew at every λ, with (E + λI)⁻¹ of EK-FAC's E; on H they need H + λI to
be definite, and where it is not there is no solution.

Cost: k products of every vector, times the number of dampings if preconditioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.method import Method, SolverAlone, Work
from decomposition.chain.shared_factors import Parts
from decomposition.checks import check_fields, flag, one_of, whole
from decomposition.curvature import Curvature, Diagonalised
from decomposition.curvature.cg import cg as conjugate_gradients
from decomposition.curvature.krylov import Function, krylov_spaces
from decomposition.curvature.matrix_free import KRYLOV_NUMBERS
from decomposition.curvature.operator import Solutions
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.damping import NegativeCurvature
from decomposition.device import chunk_bytes
from decomposition.errors import DecompositionError
from decomposition.memory import shrinking
from decomposition.problem import Problem

ENOUGH = 1e-14
"""Relative residual at which there is nothing left to iterate for."""
WORDS: dict[str, dict[str, object]] = {
    "ggn": {"of": "ggn"},
    "hessian": {"of": "hessian"},
    "ekfac": {"preconditioned": True},
}
RULES = {"k": whole(1), "of": one_of("ggn", "hessian"), "preconditioned": flag}


@dataclass(frozen=True)
class ConjugateGradients(Method):
    """k steps on G or H.

    Raises:
        DecompositionError: a field outside its range.
    """

    summary = "K steps of conjugate gradients (20) on the GGN, :hessian, preconditioned :ekfac"
    form = "solver"
    words = WORDS

    k: int = 20
    """Steps, and products with every vector."""
    of: Literal["ggn", "hessian"] = "ggn"
    """The rung that is solved."""
    preconditioned: bool = False
    """Whether by EK-FAC."""

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self, RULES, DecompositionError, "the {} of cg")

    def memory(self, problem: Problem) -> int:
        """The Krylov space of one vector."""
        return 8 * problem.num_parameters * (min(self.k, problem.num_parameters) + 6)

    def work(self, problem: Problem, dampings: int) -> Work:
        """Steps of every query; preconditioned ones start anew at every damping."""
        anew = dampings if self.preconditioned else 1
        return Work(products=self.k * problem.num_queries * anew, of=self.of)

    def made(self, parts: Parts) -> Curvature:
        """Nothing is solved yet."""
        rung = parts.reference(self.of)
        if self.preconditioned:
            return PreconditionedCG(rung, preconditioner(parts), self.k, self.of)
        return PlainCG(rung, self.k, self.of)


def preconditioner(parts: Parts) -> Diagonalised:
    """EK-FAC."""
    ekfac = parts.ekfac().eigenbasis
    assert ekfac is not None
    return ekfac


class Iterated(SolverAlone):
    """C⁻¹ by a fixed number of steps.

    Args:
        rung: C.
        steps: k.
        name: of method and rung, for messages.
    """

    def __init__(self, rung: Curvature, steps: int, name: str) -> None:
        """Nothing is computed yet."""
        self.size, self.device = rung.size, rung.device
        self._rung, self._steps, self._name = rung, steps, name
        self.kind = f"{name} is a solver"
        self.notes = (f"{name}: a solver, {steps} steps whatever is left; it has no spectrum",)

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

        chunk = chunk_bytes(self.device, 8 * KRYLOV_NUMBERS) // (8 * self.size * most)
        for _ in shrinking(some, v.shape[1], chunk):
            pass
        return out, change


class PlainCG(Iterated):
    """V (T + λI)⁻¹ Vᵀ v of k Lanczos steps."""

    def __init__(self, rung: Curvature, steps: int, of: str) -> None:
        """Nothing is computed yet."""
        super().__init__(rung, steps, f"cg on {of}")

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        def inverse(damping: float) -> Function:
            return lambda theta: negative.denominators(theta, damping).reciprocal()

        functions = [inverse(damping) for damping in dampings]
        x, _ = self._in_spaces(v, functions, min(self._steps, self.size))
        return self._checked_solutions(x, dampings, {})


class PreconditionedCG(Iterated):
    """k steps with M = E + λI."""

    def __init__(self, rung: Curvature, ekfac: Curvature, steps: int, of: str) -> None:
        """Nothing is computed yet."""
        super().__init__(rung, steps, f"cg on {of}, preconditioned by EK-FAC")
        self._ekfac = ekfac
        if of == "hessian":
            self.notes = (*self.notes, f"{self._name}: negative eigenvalues count as signed")

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        x, failures = v.new_empty(len(dampings), *v.shape), {}
        stopping = Stopping(ENOUGH, self._steps, required=False)
        for i, damping in enumerate(dampings):
            try:
                x[i] = conjugate_gradients(
                    lambda u, damping=damping: self._rung.matvec(u) + damping * u,
                    v,
                    lambda u, damping=damping: self._ekfac.solve(u, damping),
                    stopping,
                ).x
            except SolverError as error:
                failures[i] = f"at damping {damping:.3g}: {error}"
        return self._checked_solutions(x, dampings, failures)
