"""What an iterative solver is given and gives back, whichever method it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.checks import check_fields, flag, number, whole
from decomposition.errors import DecompositionError

Apply = Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
"""v (P, k) → A v."""


class SolverError(DecompositionError, ValueError):
    """An iterative solve has not reached its tolerance, or its matrix is not what it must be."""


@dataclass(frozen=True)
class Stopping:
    """When an iterative solve ends.

    Raises:
        DecompositionError: a number outside its range.
    """

    tolerance: float = 1e-8
    """Relative residual ‖b − A x‖ / ‖b‖ of every column."""
    iterations: int = 1000
    """Most iterations."""
    required: bool = True
    """Whether missing the tolerance is an error; if not, the solution says ``converged=False``."""

    def __post_init__(self) -> None:
        """Check the tolerance, the number of steps and the flag."""
        rules = {"tolerance": number(0, 1, above=True), "iterations": whole(1), "required": flag}
        check_fields(self, rules, DecompositionError, "the {} of a solver")


@dataclass(frozen=True)
class Solution:
    """x with A x ≈ b for k columns, and how it was found."""

    x: Float[Tensor, "P k"]
    """One solution per column."""
    method: str
    """minres or cg."""
    iterations: int
    """Steps of the column that took most of them."""
    products: int
    """Columns multiplied by A, the last check included."""
    residuals: Float[Tensor, " k"]
    """‖b − A x‖ / ‖b‖, computed with one more product at the end; 0 where b = 0."""
    history: Float[Tensor, "iterations k"]
    """The same after every iteration, by recurrence; a finished column keeps its last."""
    tolerance: float
    """What was asked for."""

    @property
    def converged(self) -> bool:
        """Whether every column has reached the tolerance."""
        return bool((self.residuals <= self.tolerance).all())


def finished(
    solution: Solution, stopping: Stopping, out_of_reach: str = "use more iterations"
) -> Solution:
    """The solution, if it is as asked for.

    Raises:
        SolverError: it is not, and ``stopping.required``.
    """
    if solution.converged or not stopping.required:
        return solution
    worst = int(solution.residuals.argmax())
    raise SolverError(
        f"{solution.method} has reached a relative residual of "
        f"{float(solution.residuals[worst]):.3g} in column {worst} after {solution.iterations} "
        f"iterations ({solution.products} products), not {stopping.tolerance:g}: use a larger "
        f"damping, a better preconditioner, or a larger tolerance, or {out_of_reach}"
    )


def relative(residual: Float[Tensor, "P k"], norms: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """‖r‖ / ‖b‖ per column, 0 where b = 0."""
    found = torch.linalg.vector_norm(residual, dim=0)
    return torch.where(norms > 0, found / norms.clamp_min(torch.finfo(norms.dtype).tiny), found)


def dots(a: Float[Tensor, "P k"], b: Float[Tensor, "P k"]) -> Float[Tensor, " k"]:
    """aᵀ b per column."""
    return torch.einsum("pk,pk->k", a, b)


def check_system(b: Tensor) -> None:
    """Raise SolverError unless the right-hand sides are finite columns."""
    if b.ndim != 2 or not torch.isfinite(b).all():
        raise SolverError(f"right-hand sides are finite columns (P, k), got {tuple(b.shape)}")
