"""The table of effects: what every rung predicts for every mask and query, at every treatment.

A treatment is a damping λ with a policy for negative eigenvalues, or a rule that sets both from the
rung alone (``scores.rules``). Where a rung cannot be solved
under one, or its scores overflow, its predictions are NaN and ``unsolved`` says why. Protocols,
cross-fitting, LDS, policies and localisation read this table, never a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from decomposition.curvature.operator import Curvature
from decomposition.damping import NegativeCurvature
from decomposition.errors import DampingError
from decomposition.scores.lds import mean_truth
from decomposition.scores.rules import DampingRule
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
class Ruled:
    """The rungs under one rule of damping."""

    rule: DampingRule
    rungs: Mapping[str, Curvature]
    """Those that have this inverse."""
    scorers: dict[str, Scorer]
    """Of those, and of what no curvature went into, which has no strength."""
    strengths: Mapping[str, float]
    """λ of those."""
    refused: dict[str, str]
    """Rung → why it has none."""

    @property
    def dampings(self) -> Mapping[str, float]:
        """Rung → λ, where there is one for the whole of it."""
        return self.strengths if self.rule.inversion.one_damping else {}


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
    rules: Mapping[str, Ruled] = field(default_factory=dict)
    """Name → rungs under rules that need no retraining."""

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

    def ruled_dampings(self, rung: str) -> list[float]:
        """λ of the rules under which the rung is solved as it is, so that they are solved together
        with others."""
        own = self.scorers[rung]
        return [
            ruled.strengths[rung]
            for ruled in self.rules.values()
            if ruled.scorers.get(rung) is own and rung in ruled.rungs
        ]

    def under(self, rule: str, rung: str) -> Float[np.ndarray, "M Q"]:
        """Predicted effects under a rule; NaN where the rung has no such inverse."""
        ruled = self.rules[rule]
        found = np.full(self.truth.shape, np.nan, np.float32)
        if rung in ruled.refused:
            return found
        one, strength = ruled.scorers[rung], ruled.strengths.get(rung, 0.0)
        try:
            found = one.predicted_effects(self.measured.masks, strength, self.negative)
        except DampingError as error:
            ruled.refused[rung] = str(error)
        if np.isinf(found).any() or (np.isnan(found).any() and rung not in ruled.refused):
            key = treatment(strength, self.negative)
            ruled.refused[rung] = one.unsolved.get(key, OVERFLOW)
        return np.where(rung in ruled.refused, np.float32(np.nan), found)

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
