"""k steps of a Neumann series for (C + λI)⁻¹, plain (LiSSA) or preconditioned by EK-FAC (ASTRA).

    x_0 = η M⁻¹ v,    x_j = x_(j−1) + η M⁻¹ (v − (C + λI) x_(j−1)),

with M = I (Agarwal et al. 2017, arXiv 1602.03943; Koh & Liang 2017, arXiv 1703.04730), or
M = E + λI of EK-FAC's E (Wang et al. 2025, *Better Training Data Attribution via Better Inverse
Hessian-Vector Products*). η is one over the largest eigenvalue of M⁻¹ (C + λI), the largest that
is safe for every vector, where LiSSA and ASTRA have it tuned; batches are all examples, so that
nothing is random but the start of the Lanczos steps that find η.

Plain, x_k = f(C) v with f(μ) = (1 − (1 − η (μ + λ))^(k+1)) / (μ + λ): a polynomial of degree k,
taken in one Krylov space that all λ share. Where H + λI is indefinite the series grows with k;
negative eigenvalues count as signed, whatever policy is asked for.

Cost: k products of every vector at most, times the number of dampings if preconditioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.iterated import Iterated, IteratedMethod
from decomposition.curvature import Curvature, Diagonalised
from decomposition.curvature.krylov import Function, Matvec, krylov_spaces
from decomposition.curvature.operator import Solutions
from decomposition.damping import NegativeCurvature
from decomposition.problem import Problem

LARGEST_STEPS = 30
"""Lanczos steps towards the largest eigenvalue."""
MOST_STEPS = 300
"""Krylov steps of a long series; those beyond change little."""
FOLLOWED = 1e-6
"""Relative change over the last fifth of them at which they are taken for all."""


class PlainNeumann(Iterated):
    """f(C) v of the series."""

    def __init__(self, rung: Curvature, steps: int, of: str) -> None:
        """Nothing is computed yet."""
        super().__init__(rung, steps, f"neumann on {of}", signed=of == "hessian")

    @cached_property
    def _largest(self) -> float:
        """The largest |μ|."""
        return largest_eigenvalue(self._rung.matvec, self._rung)

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        functions = [series(self._steps, d, 1.0 / (self._largest + d)) for d in dampings]
        most = min(self._steps + 1, MOST_STEPS, self.size)
        x, change = self._in_spaces(v, functions, most)
        exact = most == min(self._steps + 1, self.size)  # a polynomial of lower degree
        failures = {
            i: f"{self._name} at damping {damping:.3g}: {self._steps} steps are not followed to "
            f"the end, and still change by {float(change[i].max()):.2g} after {most}; take fewer"
            for i, damping in enumerate(dampings)
            if not (exact or bool((change[i] <= FOLLOWED).all()))
        }
        return self._checked_solutions(x, dampings, failures)


class PreconditionedNeumann(Iterated):
    """The recurrence with M = E + λI, anew at every λ."""

    def __init__(self, rung: Curvature, ekfac: Diagonalised, steps: int, of: str) -> None:
        """Nothing is computed yet."""
        name = f"neumann on {of}, preconditioned by EK-FAC"
        super().__init__(rung, steps, name, signed=of == "hessian")
        self._ekfac = ekfac
        self._rates: dict[float, float] = {}

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        x, failures = v.new_empty(len(dampings), *v.shape), {}
        for i, damping in enumerate(dampings):
            inverse = self._ekfac.spectrum().inverse(damping)[:, None]
            rate = self._rate(damping, inverse.sqrt())
            found = torch.zeros_like(v)
            for step in range(self._steps + 1):
                rest = v - self._rung.matvec(found) - damping * found if step else v
                found = found + rate * self._scaled(inverse, rest)
                if not bool(found.isfinite().all()):
                    break
            x[i] = found
        return self._checked_solutions(x, dampings, failures)

    def _rate(self, damping: float, root: Float[Tensor, "P 1"]) -> float:
        """η: one over the largest eigenvalue of M^(−1/2) (C + λI) M^(−1/2)."""
        if damping not in self._rates:

            def whitened(u: Tensor) -> Tensor:
                inner = self._scaled(root, u)
                return self._scaled(root, self._rung.matvec(inner) + damping * inner)

            self._rates[damping] = 1.0 / largest_eigenvalue(whitened, self._rung)
        return self._rates[damping]

    def _scaled(self, values: Float[Tensor, "P 1"], v: Float[Tensor, "P k"]) -> Tensor:
        return self._ekfac.from_basis(values * self._ekfac.to_basis(v))


@dataclass(frozen=True)
class Neumann(IteratedMethod):
    """k steps of the Neumann series on G or H."""

    name = "neumann"
    summary = "K steps of the Neumann series (100; LiSSA) on the GGN, :hessian, with :ekfac ASTRA"
    plain = PlainNeumann
    with_ekfac = PreconditionedNeumann

    k: int = 100

    def memory(self, problem: Problem) -> int:
        """The Krylov space of one vector, or that which finds η."""
        steps = LARGEST_STEPS if self.preconditioned else min(self.k + 1, MOST_STEPS)
        return 8 * problem.num_parameters * (min(steps, problem.num_parameters) + 6)


def series(steps: int, damping: float, rate: float) -> Function:
    """f(θ) = (1 − (1 − η t)^(k+1)) / t with t = θ + λ, and η (k + 1) at t = 0."""

    def function(theta: Tensor) -> Tensor:
        t = theta + damping
        share, power = rate * t, steps + 1
        near = share < 0.5  # where 1 − (1 − η t)^(k+1) would cancel
        taken = -torch.expm1(power * torch.log1p(-share.where(near, 0.0)))
        rest = torch.where(near, taken, 1.0 - (1.0 - share) ** power)
        return torch.where(t == 0, rate * power, rest / t.where(t != 0, 1.0))

    return function


def largest_eigenvalue(matvec: Matvec, rung: Curvature) -> float:
    """Largest |μ| by Lanczos steps from one seeded vector: the Ritz value and its residual."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rung.size, 1, generator=generator, dtype=torch.float64).to(rung.device)
    found = krylov_spaces(matvec, start, LARGEST_STEPS).ritz()
    bound = float((found.values.abs() + found.residuals).max())
    return max(bound, torch.finfo(torch.float64).tiny)
