"""The table of effects: what every rung predicts for every mask and query, at every treatment.

A treatment is a damping λ with a policy for negative eigenvalues. Where a rung cannot be solved
under one, or its scores overflow, its predictions are NaN and ``unsolved`` says why. Protocols,
cross-fitting, LDS, policies and localisation read this table, never a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from decomposition.damping import NegativeCurvature
from decomposition.scores.lds import mean_truth
from decomposition.scores.scorer import OVERFLOW, Scorer, Treatment, treatment


@dataclass(frozen=True)
class Measured:
    """The bank's answer: what really happened to every query."""

    masks: Bool[np.ndarray, "M N"]
    truth: Float[np.ndarray, "M R Q"]
    second: Float[np.ndarray, "M2 Q"] | None

    @cached_property
    def mean(self) -> Float[np.ndarray, "M Q"]:
        """Mean over repeats."""
        return mean_truth(self.truth)


@dataclass(frozen=True)
class Effects:
    """Predicted effects of one base model's rungs and baselines, beside what was measured."""

    scorers: Mapping[str, Scorer]
    """Rung or baseline, in chain order → what gives its scores."""
    measured: Measured
    negative: str = "absolute"
    """Policy for negative eigenvalues, where none is asked for."""
    overflowed: dict[str, dict[Treatment, str]] = field(default_factory=dict)
    """Rung → treatment → what happened to predictions that are too large."""

    @property
    def rungs(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.scorers)

    @property
    def truth(self) -> Float[np.ndarray, "M Q"]:
        """What was measured, mean over repeats."""
        return self.measured.mean

    def prepare(
        self,
        rung: str,
        dampings: Sequence[float],
        keep: Sequence[float] = (),
        negative: str | None = None,
        progress: bool = False,
    ) -> None:
        """Solve a rung at several dampings together.

        Args:
            rung: which.
            dampings: all that effects will be asked for.
            keep: those of them at which scores of single examples will be asked for too.
            negative: policy, instead of the table's own.
            progress: show a bar over iterative solves.
        """
        policy = negative or self.negative
        self.scorers[rung].prepare(self.measured.masks, dampings, keep, policy, progress)

    def at(
        self,
        rung: str,
        dampings: Sequence[float],
        negative: str | NegativeCurvature | None = None,
    ) -> Float[np.ndarray, "D M Q"]:
        """Predicted effects at every damping; NaN at one where there are none."""
        one, policy = self.scorers[rung], negative or self.negative
        asked = dampings[:1] if one.damping_free else dampings
        found = np.stack([one.predicted_effects(self.measured.masks, d, policy) for d in asked])
        for i in np.flatnonzero(~np.isfinite(found).all((1, 2))).tolist():
            if not np.isnan(found[i]).all():
                key = treatment(asked[i], policy)
                self.overflowed.setdefault(rung, {})[key] = OVERFLOW
                found[i] = np.nan
        return np.broadcast_to(found, (len(dampings), *found.shape[1:]))

    def partial(
        self, rung: str, damping: float, subsets: Sequence[np.ndarray | slice]
    ) -> Float[np.ndarray, "K M Q"]:
        """Predicted effects through each part of the rung alone."""
        return self.scorers[rung].partial_effects(
            self.measured.masks, damping, subsets, self.negative
        )

    def unsolved(self, rung: str, damping: float) -> str | None:
        """Why there is nothing at this damping; None where there is."""
        key = treatment(damping, self.negative)
        return self.scorers[rung].unsolved.get(key, self.overflowed.get(rung, {}).get(key))


def solved(effects: Float[np.ndarray, "... M Q"]) -> Bool[np.ndarray, ...]:
    """Where there are predictions: none at all is all NaN."""
    return ~np.isnan(effects[..., 0, 0])


def known(effects: Float[np.ndarray, "... M Q"]) -> Float[np.ndarray, "... M Q"]:
    """Predictions with constants in place of missing ones, whose LDS is undefined as theirs is."""
    there = solved(effects)
    return effects if there.all() else np.where(there[..., None, None], effects, np.float32(0))
