"""Scores of a rung by its solver: all dampings that are asked for together are solved together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature.operator import Curvature, Solutions
from decomposition.damping import NegativeCurvature, as_policy
from decomposition.linalg import to_numpy
from decomposition.scores.gradients import GradientSource
from decomposition.scores.lds import summed_effects
from decomposition.scores.scorer import (
    OVERFLOW,
    Eigenvalues,
    Scorer,
    Subset,
    Treatment,
    single,
    treatment,
)

SOLUTION_NUMBERS = 2**27
"""Numbers in the solutions that are held at once: 1 GB."""


class SolvingScorer(Scorer):
    """A rung by its solver; dampings that are asked for together are solved together.

    Where it cannot be solved (singular, or out of reach of its iteration) there are no scores.
    """

    def __init__(
        self,
        curvature: Curvature,
        source: GradientSource,
        eigenvalues: Eigenvalues | None = None,
    ) -> None:
        """Nothing is solved yet.

        Args:
            curvature: C.
            source: gradients.
            eigenvalues: what is known of its spectrum; default its own, where it has an eigenbasis.
        """
        self.refinable = not curvature.matrix_free
        self.unsolved: dict[Treatment, str] = {}
        self._curvature, self._source, self.told = curvature, source, eigenvalues
        self._basis = curvature.eigenbasis
        if self._basis is not None:
            self.spectrum = self._basis.spectrum()
            self.damping_free = self.spectrum.blind_to_damping()
        self._tau: dict[Treatment, np.ndarray] = {}
        self._masks: np.ndarray | None = None
        self._effects: dict[Treatment, np.ndarray] = {}

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """(C_λ⁻¹ g_q)ᵀ g_i / N at all of these dampings that are not known yet."""
        if masks is not None and masks is not self._masks:
            self._masks, self._effects = masks, {}
        known = self._tau if masks is None else self._effects
        wanted = [
            d for d in sorted(set(map(float, dampings))) if treatment(d, negative) not in known
        ]
        if not wanted:
            return
        tau, effects = [], []
        kept = [i for i, damping in enumerate(wanted) if damping in set(map(float, keep))]
        with watched(self._curvature, self._source.queries, progress):
            for gradients in self._source.query_parts(self._at_once(len(wanted))):
                part = self._solved(gradients, wanted, negative)
                tau.append(part[kept])
                if masks is not None:
                    effects.append(np.stack([_effects(masks, one) for one in part]))
        treatments = [treatment(damping, negative) for damping in wanted]
        self._keep(self._tau, [treatments[i] for i in kept], np.concatenate(tau, 1))
        if masks is not None:
            self._keep(self._effects, treatments, np.concatenate(effects, 2))

    def _at_once(self, columns: int) -> int:
        """Queries whose solutions, so many of each, are held at once."""
        return max(1, SOLUTION_NUMBERS // (self._curvature.size * columns))

    def _keep(
        self, table: dict[Treatment, np.ndarray], treatments: list[Treatment], found: Any
    ) -> None:
        """One solution that is missing is none for any query: levels are means over all."""
        for key, one in zip(treatments, found, strict=True):
            table[key] = np.full_like(one, np.nan) if key in self.unsolved else one

    def _solved(
        self, gradients: Tensor, dampings: list[float], negative: str | NegativeCurvature
    ) -> Float[np.ndarray, "D k N"]:
        found = self._curvature.solutions(gradients, dampings, negative)
        solved = torch.isfinite(found.x).all(1).all(1)
        queries = gradients.shape[1]
        tau = np.full((len(dampings), queries, self._source.examples), np.nan, np.float32)
        if bool(solved.any()):
            columns = found.x[solved].movedim(1, 0).flatten(1)  # (P, solved · k)
            products = self._source.along(columns) / self._source.examples
            tau[to_numpy(solved)] = single(products.unflatten(0, (-1, queries)))
        for i, damping in enumerate(dampings):
            if not solved[i]:
                self.unsolved.setdefault(treatment(damping, negative), _reason(found, damping))
            elif not np.isfinite(tau[i]).all():
                self.unsolved.setdefault(treatment(damping, negative), OVERFLOW)
        return tau

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(C_λ⁻¹ g_q)ᵀ g_i / N."""
        key = treatment(damping, negative)
        if key not in self._tau:
            part = [
                self._solved(gradients, [key[0]], negative)[0]
                for gradients in self._source.query_parts(self._at_once(1))
            ]
            self._keep(self._tau, [key], np.concatenate(part)[None])
        return self._tau[key]

    def nearest(self, damping: float, negative: str | NegativeCurvature) -> float:
        """Among those that are kept and were solved; itself where there is none."""
        policy = as_policy(negative).name
        solved = [d for (d, p), tau in self._tau.items() if p == policy and np.isfinite(tau).all()]
        if self.refinable or not solved:
            return damping
        return min(solved, key=lambda known: abs(np.log(known / damping)))

    def predicted_effects(
        self, masks: np.ndarray, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> np.ndarray:
        """From what was prepared, if it was."""
        found = self._effects.get(treatment(damping, negative))
        if masks is self._masks and found is not None:
            return found
        return _effects(masks, self.scores(damping, negative))

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """Of solutions that are zero outside of a subset."""
        found = [
            np.stack(
                [_effects(masks, tau) for tau in self._partial(part, damping, subsets, negative)]
            )
            for part in self._source.query_parts(self._at_once(len(subsets)))
        ]
        return np.concatenate(found, 2)

    def _partial(
        self,
        gradients: Float[Tensor, "P k"],
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature,
    ) -> Float[np.ndarray, "K k N"]:
        whole = self._curvature.solutions(gradients, [damping], negative).x[0]
        basis = self._basis
        if basis is not None:
            whole = basis.to_basis(whole)
        pieces = []
        for subset in subsets:
            own = torch.zeros_like(whole)
            own[subset] = whole[subset]
            pieces.append(own if basis is None else basis.from_basis(own))
        products = self._source.along(torch.cat(pieces, 1)) / self._source.examples
        return single(products.unflatten(0, (len(subsets), -1)))


@contextmanager
def watched(curvature: Curvature, queries: int, progress: bool) -> Iterator[None]:
    """A bar over the products of a rung that is solved by them; solves may end before it."""
    total = curvature.most_products(queries)
    with (
        tqdm(
            total=total,
            desc="solves",
            unit="product",
            disable=not (progress and total),
            leave=False,
        ) as bar,
        curvature.watched(bar.update),
    ):
        yield


def _reason(found: Solutions, damping: float) -> str:
    """What a solver said of this damping."""
    place = f"at damping {damping:.3g}: "
    return next((said for said in found.failures if said.startswith(place)), "not solved")


def _effects(masks: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """NaN where a solution is missing."""
    if np.isnan(tau).all():
        return np.full((len(masks), len(tau)), np.nan, np.float32)
    return summed_effects(masks, tau).astype(np.float32)
