"""Scores of a rung that is known by its products: in one Krylov space of its queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from decomposition.curvature.matrix_free import MatrixFreeCurvature, inverse
from decomposition.curvature.operator import Curvature
from decomposition.curvature.shared_space import Projection, SharedSpace
from decomposition.damping import NegativeCurvature, as_policy
from decomposition.scores.gradients import GradientSource
from decomposition.scores.scorer import Eigenvalues, Scorer, Subset, Treatment, single, treatment
from decomposition.scores.solving import SolvingScorer, watched

COORDINATES = 2**28
"""Numbers of the training gradients in the spaces of a rung's blocks that are kept: 1 GB."""


@dataclass(frozen=True)
class _Spanned:
    """Some queries, and all training examples, in the Krylov space of these queries."""

    projection: Projection
    train: Float[np.ndarray, "N K"]
    """V g_i."""
    parts: list[Float[np.ndarray, "N K"]]
    """V g_i through the blocks of the rung alone; empty where they are not kept."""


class KrylovScorer(Scorer):
    """A rung that is solved in Krylov spaces of its queries, where every λ costs little.

    Training gradients are kept as they lie in those spaces, the spaces themselves are not. Where
    one is too small for a λ there are no scores.
    """

    def __init__(
        self,
        curvature: Curvature,
        solver: MatrixFreeCurvature,
        source: GradientSource,
        eigenvalues: Eigenvalues | None,
    ) -> None:
        """Nothing is solved yet.

        Args:
            curvature: C.
            solver: what solves it.
            source: gradients.
            eigenvalues: what is known of its spectrum.
        """
        self.unsolved: dict[Treatment, str] = {}
        self._curvature, self._solver, self._source = curvature, solver, source
        self._own, self.told = curvature.negative, eigenvalues
        self._spans: list[_Spanned] = []
        self._changes: dict[Treatment, list[Tensor]] = {}
        self._sums: tuple[np.ndarray, list[np.ndarray]] | None = None
        most = COORDINATES // max(1, source.examples * solver.most_products(source.queries))
        self._parts = solver.blocks if len(solver.blocks) <= most else ()
        self._largest = False

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Make spaces that are large enough for these dampings, as far as they can be."""
        new = [d for d in sorted(set(map(float, dampings))) if not self._known(d, negative)]
        if new and not (self._largest or self._solved_all(new, negative)):
            self._make(new, negative, progress)

    def _known(self, damping: float, negative: str | NegativeCurvature) -> bool:
        return treatment(damping, self._own or negative) in self._changes

    def _solved_all(self, dampings: list[float], negative: str | NegativeCurvature) -> bool:
        return bool(self._spans) and all(self._reason(d, negative) is None for d in dampings)

    def _make(
        self, dampings: list[float], negative: str | NegativeCurvature, progress: bool
    ) -> None:
        policy = as_policy(self._own or negative)
        self._spans, self._sums, self.unsolved = [], None, {}
        self._changes = {treatment(damping, policy): [] for damping in dampings}

        def rows(along: Tensor) -> np.ndarray:
            return np.ascontiguousarray(single(along).T)

        def span(space: SharedSpace, change: Tensor) -> None:
            v, parts = space.basis.T.float(), []  # as the coordinates are kept
            if self._parts:
                parts = [rows(one) for one in self._source.through(v, self._parts)]
            train = sum(parts[1:], parts[0]) if parts else rows(self._source.along(v))
            self._spans.append(_Spanned(space.projection, train, parts))
            for damping, one in zip(dampings, change, strict=True):
                self._changes[treatment(damping, policy)].append(one)

        with watched(self._solver, self._source.queries, progress):
            for gradients in self._source.query_parts(self._source.queries):
                self._solver.in_spaces(gradients, dampings, policy, span)
        found = sum(one.projection.dimensions for one in self._spans)
        self._largest = found >= self._solver.most_products(self._source.queries)

    def _reason(self, damping: float, negative: str | NegativeCurvature) -> str | None:
        """Why there are no scores; None where there are."""
        policy = as_policy(self._own or negative)
        key = treatment(damping, policy)
        if key not in self._changes:
            function = inverse(damping, policy)
            self._changes[key] = [one.projection.change(function) for one in self._spans]
        for one, change in zip(self._spans, self._changes[key], strict=True):
            said = self._solver.unsolved(damping, change, one.projection.dimensions)
            if said is not None:
                return said
        return None

    def _along(
        self,
        damping: float,
        negative: str | NegativeCurvature,
        rows: Callable[[], list[Float[np.ndarray, "R K"]]],
        count: int,
    ) -> Float[np.ndarray, "Q R"]:
        """Rows of coordinates times the solutions; NaN where there are none."""
        self.prepare(None, [damping], [], negative)
        said = self._reason(damping, negative)
        if said is not None:
            self.unsolved[treatment(damping, negative)] = said
            return np.full((self._source.queries, count), np.nan, np.float32)
        function = inverse(damping, as_policy(self._own or negative))
        with np.errstate(over="ignore", invalid="ignore"):  # told by whoever reads them
            parts = [
                (row @ single(one.projection.coefficients(function))).T
                for one, row in zip(self._spans, rows(), strict=True)
            ]
            return np.concatenate(parts) / np.float32(self._source.examples)

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(C_λ⁻¹ g_q)ᵀ g_i / N."""
        rows = lambda: [one.train for one in self._spans]  # noqa: E731
        return self._along(damping, negative, rows, self._source.examples)

    def predicted_effects(
        self, masks: np.ndarray, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> np.ndarray:
        """Sums over S_j are taken in the spaces, once for all dampings."""

        def rows() -> list[np.ndarray]:
            if self._sums is None or self._sums[0] is not masks:
                weights = masks.astype(np.float32)
                self._sums = masks, [weights @ one.train for one in self._spans]
            return self._sums[1]

        return -self._along(damping, negative, rows, len(masks)).T

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """Through its blocks, or of the solutions themselves, which are solved for once more."""
        if self._parts and tuple(subsets) == self._parts:
            weights, count = masks.astype(np.float32), len(subsets) * len(masks)

            def rows() -> list[np.ndarray]:
                sums = [[weights @ part for part in one.parts] for one in self._spans]
                return [np.concatenate(parts) for parts in sums]

            found = -self._along(damping, negative, rows, count).T
            return found.reshape(len(subsets), len(masks), -1)
        solving = SolvingScorer(self._curvature, self._source)
        return solving.partial_effects(masks, damping, subsets, negative)
