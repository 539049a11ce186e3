"""What to compare two curvatures by, and the comparisons made so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.damping import NegativeCurvature
from decomposition.spectrum.damped import DampedErrors, damped_pair
from decomposition.spectrum.norms import Norms, norms


@dataclass(frozen=True)
class ErrorPlan:
    """What to compute."""

    dampings: Sequence[float]
    """λ at which the damped metrics are taken."""
    headline: int
    """Index of the λ that the undamped table shows."""
    leading: int
    """k of the subspace overlap."""
    negative: str | NegativeCurvature = "absolute"
    """Policy for negative eigenvalues."""
    matrix_norms: bool = True
    """Whether to compute the spectral and nuclear norms."""
    without_norms: frozenset[str] = frozenset()
    """Rungs to leave them out for: seconds each at P = 6,570."""
    seed: int = 0
    """Seed of the stochastic nuclear norm."""
    protocols: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Protocol → rung → λ: more pairs at which the damped inverse is compared, each rung at its
    own λ with the reference at its own."""


class Comparisons:
    """What comparing two rungs costs, paid once whichever of them is the reference."""

    def __init__(self, plan: ErrorPlan, queries: Tensor | None) -> None:
        """Start empty."""
        self.plan, self.queries = plan, queries
        self._norms: dict[frozenset[int], Norms] = {}
        self._damped: dict[tuple[int, int], DampedErrors] = {}
        self._solutions: dict[int, list[Tensor]] = {}
        self._kept: list[Curvature] = []  # an id is a key only while its object lives

    def norms(self, a: Diagonalised, b: Diagonalised, difference: Tensor) -> Norms:
        """Norms of a − b."""
        key = frozenset((id(a), id(b)))
        if key not in self._norms:
            self._norms[key] = norms(difference, self.plan.seed)
            self._kept += [a, b]
        return self._norms[key]

    def damped(
        self, a: Diagonalised, b: Diagonalised, pairs: Sequence[tuple[float, float]]
    ) -> DampedErrors:
        """a against the reference b, at the plan's dampings and then at ``pairs``."""
        if (id(a), id(b)) not in self._damped:
            mine, theirs = ([*self.plan.dampings, *(p[side] for p in pairs)] for side in (0, 1))
            both = damped_pair(a, b, mine, theirs, self.plan.leading, self.plan.negative)
            self._damped[id(a), id(b)], self._damped[id(b), id(a)] = both.forward, both.backward
            self._kept += [a, b]
        return self._damped[id(a), id(b)]

    def solutions(self, curvature: Diagonalised, keep: bool) -> list[Tensor]:
        """C_λ⁻¹ g_Q at every damping; kept for references, which are asked for again."""
        if self.queries is None:
            return []
        if id(curvature) in self._solutions:
            return self._solutions[id(curvature)]
        coordinates, spectrum = curvature.to_basis(self.queries), curvature.spectrum()
        found = [
            curvature.from_basis(
                spectrum.inverse(damping, self.plan.negative)[:, None] * coordinates
            )
            for damping in self.plan.dampings
        ]
        if keep:
            self._solutions[id(curvature)] = found
            self._kept.append(curvature)
        return found
