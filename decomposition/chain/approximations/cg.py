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

from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.iterated import Iterated, IteratedMethod
from decomposition.curvature import Curvature
from decomposition.curvature.cg import cg as conjugate_gradients
from decomposition.curvature.krylov import Function
from decomposition.curvature.operator import Solutions
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.damping import NegativeCurvature
from decomposition.problem import Problem

ENOUGH = 1e-14
"""Relative residual at which there is nothing left to iterate for."""


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
        name = f"cg on {of}, preconditioned by EK-FAC"
        super().__init__(rung, steps, name, signed=of == "hessian")
        self._ekfac = ekfac

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


@dataclass(frozen=True)
class ConjugateGradients(IteratedMethod):
    """k steps of conjugate gradients on G or H."""

    name = "cg"
    summary = "K steps of conjugate gradients (20) on the GGN, :hessian, preconditioned :ekfac"
    plain = PlainCG
    with_ekfac = PreconditionedCG

    k: int = 20

    def memory(self, problem: Problem) -> int:
        """The Krylov space of one vector."""
        return 8 * problem.num_parameters * (min(self.k, problem.num_parameters) + 6)
