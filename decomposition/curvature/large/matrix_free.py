"""A curvature known by its products: damped systems are solved by iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.base import Curvature, NotAvailableError
from decomposition.curvature.large.cg import cg
from decomposition.curvature.large.minres import minres
from decomposition.curvature.large.solution import Stopping
from decomposition.damping import NegativeCurvature

TOLERANCE = 1e-6
"""Relative residual of a solve: scores are then exact to about as many digits."""
MOST_STEPS = 500
SOLVE_NUMBERS = 2**24
"""Numbers in the right-hand sides that are solved at once: 128 MB, and 14 times that at work."""


class Products(Protocol):
    """What is needed of an operator."""

    size: int
    notes: tuple[str, ...]
    device: torch.device

    def matvec(self, v: Tensor) -> Tensor:
        """v (P, k) → C v."""
        ...


@dataclass(frozen=True)
class Solve:
    """What one call of ``solve`` cost."""

    damping: float
    """λ."""
    columns: int
    """Right-hand sides."""
    products: int
    """Columns multiplied with C."""
    residual: float
    """Largest ‖v − (C + λI) x‖ / ‖v‖."""


class MatrixFreeCurvature(Curvature):
    """C by its products; (C + λI)⁻¹ by MINRES, or by conjugate gradients if C is definite.

    The eigenvalues of C are not known, so that no policy for negative ones can be followed: an
    indefinite C is inverted as it is (policy ``signed``), and the notes say so.

    Args:
        product: C v.
        preconditioner: a curvature whose damped inverse is close to that of C, at the same λ,
            and positive definite; default none.
        definite: whether C has no negative eigenvalues.
        tolerance: relative residual of every column.
        most: steps.
        name: for notes.
    """

    def __init__(
        self,
        product: Products,
        preconditioner: Curvature | None = None,
        *,
        definite: bool = False,
        tolerance: float = TOLERANCE,
        most: int = MOST_STEPS,
        name: str = "curvature",
    ) -> None:
        """Nothing is computed yet."""
        self.size, self.device = product.size, product.device
        self.record: list[Solve] = []
        """Every solve so far."""
        self._product, self._preconditioner = product, preconditioner
        self._definite, self._tolerance, self._most = definite, tolerance, most
        solver = "conjugate gradients" if definite else "MINRES"
        policy = "" if definite else ", negative eigenvalues as they are (policy signed)"
        self.notes = (
            f"{name}: known by its products; solves by {solver} to a relative residual of "
            f"{tolerance:g}{policy}",
            *product.notes,
        )

    def eigenvalues(self) -> Tensor:
        """Not known.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            "the eigenvalues of a matrix-free curvature are not known: estimate its spectrum with "
            "decomposition.spectrum.large.estimated_measure, or raise --memory"
        )

    def dense(self) -> Tensor:
        """Not formed.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            f"a matrix-free curvature is never formed: it has {self.size:,}² entries; its norm and "
            "its distances to others are estimated by decomposition.spectrum.estimates"
        )

    def trace(self) -> float:
        """Not known.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            "the trace of a matrix-free curvature is not known: estimate it with "
            "decomposition.spectrum.estimates.xtrace"
        )

    def frobenius_norm(self) -> float:
        """Not known.

        Raises:
            NotAvailableError: always.
        """
        raise NotAvailableError(
            "the norm of a matrix-free curvature is not known: estimate it with "
            "decomposition.spectrum.estimates.squared_norm"
        )

    def _matvec(self, v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        return self._product.matvec(v)

    def _solve(
        self, v: Float[Tensor, "P k"], damping: float, negative: str | NegativeCurvature
    ) -> Float[Tensor, "P k"]:
        step = max(1, SOLVE_NUMBERS // self.size)
        return torch.cat([self._some(part, damping) for part in v.split(step, 1)], 1)

    def _some(self, v: Float[Tensor, "P k"], damping: float) -> Float[Tensor, "P k"]:
        solver = cg if self._definite else minres
        other = self._preconditioner
        found = solver(
            lambda u: self._product.matvec(u) + damping * u,
            v,
            None if other is None else lambda u: other.solve(u, damping),
            Stopping(self._tolerance, self._most),
        )
        residual = float(found.residuals.max()) if v.shape[1] else 0.0
        self.record.append(Solve(damping, v.shape[1], found.products, residual))
        return found.x
