"""A curvature known by its products: damped systems are solved by iteration.

One λ with negative eigenvalues as they are: MINRES (conjugate gradients if C is definite), with a
preconditioner. Any other policy for them, and many λ at once: functions of C in one Krylov space
of each vector (``krylov``), which all λ share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.cg import cg
from decomposition.curvature.estimate import Estimate, Symmetric, squared_norm, xtrace
from decomposition.curvature.krylov import Function, KrylovSpaces, krylov_spaces
from decomposition.curvature.minres import minres
from decomposition.curvature.operator import (
    PROBES,
    Curvature,
    NotAvailableError,
    Solutions,
    Solve,
)
from decomposition.curvature.solution import SolverError, Stopping
from decomposition.damping import NegativeCurvature
from decomposition.device import chunk_bytes
from decomposition.memory import shrinking

TOLERANCE = 1e-6
"""Relative residual of a solve: scores are then exact to about as many digits."""
MOST_STEPS = 500
CHANGE = 1e-2
"""Relative change of a function of C over the last fifth of its Krylov steps: what is left moves
the ranks of scores by about a tenth of it."""
KRYLOV_STEPS = 100
"""Products of a vector, which all its dampings share."""
KRYLOV_NUMBERS = 2**27
"""Numbers in the Krylov bases that are held at once: 1 GB."""
SOLVE_NUMBERS = 2**24
"""Numbers in the right-hand sides that are solved at once: 128 MB."""
WORK_VECTORS = 14
"""Of MINRES, for every right-hand side that is solved at once."""
Result = TypeVar("Result")


def estimated_norm(operator: Symmetric, probes: int, seed: int) -> Estimate:
    """‖C‖_F from its products, with the error that goes with its square's."""
    square = squared_norm(operator, probes, seed)
    norm = max(square, 0.0) ** 0.5
    return Estimate(norm, square.error / (2.0 * norm) if norm else square.error**0.5)


class Products(Symmetric, Protocol):
    """What is needed of an operator."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a result must know about them."""
        ...


class MatrixFreeCurvature(Curvature):
    """C by its products; trace and norm are estimates, with their errors.

    Args:
        product: C v.
        preconditioner: a curvature whose damped inverse is close to that of C, at the same λ,
            and positive definite; default none.
        definite: whether C has no negative eigenvalues, so that all policies agree.
        tolerance: relative residual of every column of a solve at one λ.
        most: its steps.
        change: relative change at which a solution in a Krylov space is taken.
        krylov_steps: most steps of each.
        trace: tr C where it is known; default it is estimated.
        name: for notes.
    """

    matrix_free = True

    def __init__(
        self,
        product: Products,
        preconditioner: Curvature | None = None,
        *,
        definite: bool = False,
        tolerance: float = TOLERANCE,
        most: int = MOST_STEPS,
        change: float = CHANGE,
        krylov_steps: int = KRYLOV_STEPS,
        trace: float | None = None,
        name: str = "curvature",
    ) -> None:
        """Nothing is computed yet."""
        self.size, self.device = product.size, product.device
        self.definite = definite
        self.most_products = min(krylov_steps, self.size)
        self._record: list[Solve] = []
        self._told: Callable[[int], object] | None = None
        self._product, self._preconditioner = product, preconditioner
        self._tolerance, self._most, self._trace = tolerance, most, trace
        self._change, self._krylov_steps = change, krylov_steps
        solver = "conjugate gradients" if definite else "MINRES where negative ones count as signed"
        self.notes = (
            f"{name}: known by its products, not by its eigenvalues; damped solves to a relative "
            f"residual of {tolerance:g} by {solver}, for other policies and many dampings at once "
            f"in Krylov spaces of at most {krylov_steps} steps, to a relative change of {change:g}",
            *product.notes,
        )

    @property
    def record(self) -> list[Solve]:
        """Every solve so far."""
        return self._record

    @contextmanager
    def watched(self, told: Callable[[int], object]) -> Iterator[None]:
        """Tell the products of the solves in here that are made in Krylov spaces."""
        self._told = told
        try:
            yield
        finally:
            self._told = None

    def eigenvalues(self) -> Tensor:
        """Not known.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            "the eigenvalues of a matrix-free curvature are not known: estimate its spectrum with "
            "decomposition.spectrum.quadrature.estimated_spectrum, or raise --memory"
        )

    def dense(self) -> Tensor:
        """Not formed.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            f"a matrix-free curvature is never formed: it has {self.size:,}² entries; its "
            "distances to others are estimated by decomposition.curvature.estimate"
        )

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """tr C as it was given, or by XTrace from twice as many products as probes."""
        return xtrace(self, probes, seed) if self._trace is None else Estimate(self._trace)

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """‖C‖_F from twice as many products as probes."""
        return estimated_norm(self, probes, seed)

    def _matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        return self._product.matvec(v)

    def _solutions(
        self, v: Float[Tensor, "P k"], dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        """All λ from one Krylov space of each column; where it is too small, no solution."""
        numbers = self.size * self._krylov_steps
        parts = self._by_columns(
            lambda some: self._in_spaces(some, dampings, negative), v, KRYLOV_NUMBERS, numbers
        )
        x, change = (torch.cat(pieces, -1) for pieces in zip(*parts, strict=True))
        failures = tuple(
            f"at damping {damping:.3g}: solutions still change by {float(change[i].max()):.2g} "
            f"after {self._krylov_steps} products"
            for i, damping in enumerate(dampings)
            if not bool((change[i] <= self._change).all())
        )
        return Solutions(x, change, failures)

    def _in_spaces(
        self, v: Float[Tensor, "P k"], lambdas: list[float], negative: NegativeCurvature
    ) -> tuple[Float[Tensor, "D P k"], Float[Tensor, "D k"]]:

        def inverse(damping: float) -> Function:
            return lambda theta: negative.denominators(theta, damping).reciprocal()

        def enough(spaces: KrylovSpaces) -> bool:
            found = spaces.coefficients(inverse(min(lambdas)))[1]
            return bool((found <= self._change).all())

        spaces = krylov_spaces(self._watched, v, self._krylov_steps, enough)
        pairs = [spaces.apply(inverse(damping)) for damping in lambdas]
        x, change = torch.stack([x for x, _ in pairs]), torch.stack([c for _, c in pairs])
        taken = change <= self._change
        x = torch.where(taken[:, None], x, torch.nan)
        self._record.append(
            Solve(
                min(lambdas),
                taken.numel(),
                spaces.steps * v.shape[1],
                float(torch.where(taken, change, 0.0).max()) if v.shape[1] else 0.0,
            )
        )
        return x, change

    def _watched(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        image = self._product.matvec(v)
        if self._told is not None:
            self._told(v.shape[1])
        return image

    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: NegativeCurvature
    ) -> Float[Tensor, "P k"]:
        if negative.leaves_out or not (self.definite or negative.name == "signed"):
            found = self._solutions(v, [damping], negative)
            if found.failures:
                raise SolverError(
                    f"{found.failures[0]}, not by {self._change:g}: use a larger damping, or more "
                    "steps (krylov_steps)"
                )
            return found.x[0]
        numbers = WORK_VECTORS * self.size
        parts = self._by_columns(
            lambda some: self._iterated(some, damping), v, SOLVE_NUMBERS * WORK_VECTORS, numbers
        )
        return torch.cat(parts, 1)

    def _by_columns(
        self, work: Callable[[Tensor], Result], v: Float[Tensor, "P k"], on_cpu: int, one: int
    ) -> list[Result]:
        """Of a few columns at a time, each of which takes ``one`` numbers."""
        chunk = chunk_bytes(self.device, 8 * on_cpu) // (8 * one)
        if not v.shape[1]:
            return [work(v)]
        return list(shrinking(lambda some: work(v[:, some]), v.shape[1], chunk))

    def _iterated(self, v: Float[Tensor, "P k"], damping: float) -> Float[Tensor, "P k"]:
        solver = cg if self.definite else minres
        other = self._preconditioner
        found = solver(
            lambda u: self._product.matvec(u) + damping * u,
            v,
            None if other is None else lambda u: other.solve(u, damping, "absolute"),
            Stopping(self._tolerance, self._most),
        )
        residual = float(found.residuals.max()) if v.shape[1] else 0.0
        self._record.append(Solve(damping, v.shape[1], found.products, residual))
        return found.x
