"""The verdict: which step loses most, as far as the data support it.

The candidate is the step with the largest drop. Against every other step s, and against no loss
at all, the resamples give a one-sided p_s = (1 + #{drop*_candidate ≤ drop*_s}) / (B + 1); the
verdict stands when all of them, adjusted by Holm (1979), are at most 1 − level. Otherwise the
observed variance says how many more masks would settle it: with V_m from masks (falling as
1/M) and V_q from queries and base models, M' solves d² = z² (V_q + V_m M / M').
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from decomposition.scores.bootstrap import Draws, VarianceParts
from decomposition.shares.steps import CHAIN, Step, contrasts, drops


@dataclass(frozen=True)
class Verdict:
    """Which step is largest."""

    candidate: str
    """The step with the largest estimated drop."""
    resolved: bool
    """Whether it is larger than every other step at the level asked for."""
    probability: float
    """Fraction of resamples in which it has the largest drop."""
    adjusted: dict[str, float]
    """Holm-adjusted p-value against every other step, and against `no loss`."""
    more_masks: int | None
    """Masks to add for a resolution; 0 when resolved, None when masks alone cannot."""
    text: str
    """The verdict as one line."""


def verdict(
    levels: Draws,
    parts: VarianceParts,
    masks: int,
    nodes: Sequence[str],
    steps: Sequence[Step] = CHAIN,
    level: float = 0.95,
) -> Verdict:
    """Verdict on the largest step from levels (nodes,) and the variance parts of these nodes."""
    drop = drops(levels, nodes, steps)
    if np.isnan(drop.estimate).any():
        without = steps[int(np.argmax(np.isnan(drop.estimate)))].name
        text = f"not resolved: step {without} joins a rung without an LDS"
        return Verdict("", False, float("nan"), {}, None, text)
    best = int(np.argmax(drop.estimate))
    matrix = np.vstack([contrasts(nodes, steps), np.zeros(len(nodes))])
    rivals = [index for index in range(len(steps) + 1) if index != best]
    contrast = matrix[best] - matrix[rivals]
    lead = levels.combine(contrast)
    adjusted = holm((1.0 + (lead.draws <= 0).sum(0)) / (1.0 + len(lead.draws)))
    resolved = bool((adjusted <= 1.0 - level).all())
    probability = float((lead.draws[:, :-1] > 0).all(1).mean())
    more = 0 if resolved else _more_masks(lead.estimate, contrast, parts, masks, level)
    name = steps[best].name
    rival_names = [*(step.name for step in steps), "no loss"]
    return Verdict(
        name,
        resolved,
        probability,
        {rival_names[rival]: float(p) for rival, p in zip(rivals, adjusted, strict=True)},
        more,
        _sentence(name, resolved, probability, more),
    )


def _more_masks(
    leads: NDArray[np.float64],
    contrast: NDArray[np.float64],
    parts: VarianceParts,
    masks: int,
    level: float,
) -> int | None:
    """Masks to add until every lead is z standard errors from zero; None if that never is."""
    needed = [
        masks_needed(float(lead), parts.contrast(row), masks, level)
        for lead, row in zip(leads, contrast, strict=True)
    ]
    reachable = [count for count in needed if count is not None]
    return max(1, max(reachable) - masks) if len(reachable) == len(needed) else None


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down adjusted p-values (K,), in the order given; a NaN stays one."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    stepped = np.maximum.accumulate(p_values[order] * (len(known) - np.arange(len(known))))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def masks_needed(
    difference: float, variance: tuple[float, float, float], masks: int, level: float = 0.95
) -> int | None:
    """Masks M' at which `difference` would be z standard errors from zero (one-sided).

    `variance` is what masks, queries and studies contribute at the present `masks`. None when
    queries and base models alone leave it unresolved.
    """
    z = float(norm.ppf(level))
    if z <= 0:  # at a level of one half or below, the sign of an estimate is enough
        return 1
    room = (difference / z) ** 2 - variance[1] - variance[2]
    if room <= 0:
        return None
    return math.ceil(masks * variance[0] / room)


def _sentence(name: str, resolved: bool, probability: float, more: int | None) -> str:
    if resolved:
        return f"largest: {name}, probability {_below_one(probability)}"
    if more is None:
        return (
            f"not resolved: {name} leads with probability {_below_one(probability)}; more masks "
            "alone would not resolve it, more queries or base models may"
        )
    return (
        f"not resolved: {name} leads with probability {_below_one(probability)}; about "
        f"{_two_digits(more)} more masks would resolve it"
    )


def _below_one(probability: float) -> str:
    return "> 0.99" if probability > 0.99 else f"{probability:.2f}"


def _two_digits(count: int) -> str:
    scale = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return f"{math.ceil(count / scale) * scale:,}"
