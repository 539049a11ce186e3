"""The mean of every example's own damped inverse, layer by layer (Kwon et al. 2024, DataInf).

With the gradients g_n,l of a layer (arXiv 2310.00902, equation 5), the order of mean and inverse
is exchanged,

    C_l⁻¹ = (1/N) Σ_n (g_n,l g_n,lᵀ + λI)⁻¹ = (1/λ) (I − (1/N) Σ_n g_n,l g_n,lᵀ / (λ + ‖g_n,l‖²)),

the second by Sherman & Morrison. It is no inverse of any matrix that λ is added to, so that it
has neither products nor eigenvalues. Its gradients are those of the training labels.

Cost: one pass over the gradients for all vectors and dampings, 4 N P multiplications a vector; the
gradients are kept where they fit, and made again where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.approximations.method import Method, SolverAlone
from decomposition.chain.cost import Cost, Costs, Work
from decomposition.chain.shared_factors import Parts
from decomposition.curvature import Empirical
from decomposition.curvature.fisher import jacobian_rows
from decomposition.curvature.operator import Solutions
from decomposition.damping import NegativeCurvature
from decomposition.device import chunk_bytes
from decomposition.problem import Problem

KEPT_BYTES = 2**30
"""Gradients up to this size are kept."""


@dataclass(frozen=True)
class DataInf(Method):
    """(1/N) Σ_n (g_n g_nᵀ + λI)⁻¹ of every layer."""

    name = "datainf"
    summary = "the mean of per-example damped inverses, layer by layer (DataInf)"
    form = "solver"

    def cost(self, costs: Costs) -> Cost:
        """A pass for the gradients, and a pass over them for every vector and λ."""
        passed = Work(multiplications=costs.examples * costs.size)
        kept = min(8 * costs.examples * costs.size, KEPT_BYTES)
        return Cost(costs.score, Work(), costs.query + passed * 2, passed * 2, kept)

    def made(self, parts: Parts) -> DataInfCurvature:
        """From the gradients of the training examples."""
        return DataInfCurvature(parts.problem)


class DataInfCurvature(SolverAlone):
    """Known by its solver alone.

    Args:
        problem: at whose present parameters.
    """

    kind = "datainf is a mean of inverses"

    def __init__(self, problem: Problem) -> None:
        """Keep the gradients where they fit."""
        self.size, self.device = problem.num_parameters, problem.device
        self.notes = ("datainf: a mean of inverses, which has no matrix and no spectrum",)
        self._examples, self._decay = problem.num_examples, problem.curvature_decay
        self._slices = [block.slice for block in problem.blocks]
        self._batches = _passes(problem)

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        """At all λ in one pass; no eigenvalue is negative, so that all policies agree."""
        totals = [damping + self._decay for damping in dampings]
        x = v.new_zeros(len(dampings), *v.shape)
        for rows in self._batches():
            for part in self._slices:
                g = rows[:, part]
                along, norms = g @ v[part], g.square().sum(1, keepdim=True)
                for i, total in enumerate(totals):
                    if total > 0:
                        x[i, part] += g.T @ (along / (total + norms))
        change, failures = x.new_zeros(len(dampings), v.shape[1]), []
        for i, total in enumerate(totals):
            if total > 0:
                x[i] = (v - x[i] / self._examples) / total
            else:
                x[i], change[i] = torch.nan, torch.inf
                failures.append("datainf at damping=0: no example's matrix is invertible; raise it")
        return Solutions(x, change, tuple(failures))


def _passes(problem: Problem) -> Callable[[], Iterable[Float[Tensor, "n P"]]]:
    """Gradients of the training examples, batch by batch, as often as they are asked for."""
    fisher = Empirical()
    size = 8 * problem.num_examples * problem.num_parameters
    if size > chunk_bytes(problem.device, KEPT_BYTES):
        return lambda: (rows[:, 0] for rows in jacobian_rows(problem, fisher))
    kept = [rows[:, 0] for rows in jacobian_rows(problem, fisher)]
    return lambda: kept
