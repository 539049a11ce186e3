"""The paper's claims as statements about the steps of one chain.

A claim holds in a cell if all its contrasts of levels are positive, and fails if one of them is
negative; a claim about the majority of a loss presupposes that there is a loss. Claims about
spectral error are about exact numbers, without resamples.

Source of the claims: Hong et al., Better Hessians Matter (arXiv 2509.23437).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.scores.bootstrap import Draws
from decomposition.shares.steps import excludes_zero, ratio

BLAMED = "eigenvalues"
"""The step that the paper blames: K-FAC's eigenvalues instead of exact ones."""

Drops = Draws
"""Drops (S,) of the steps of a chain."""


@dataclass(frozen=True)
class Claim:
    """A statement about the drops of a chain's steps, or about shares of an exact error."""

    name: str
    text: str
    """As a sentence."""
    effect_text: str
    """What the effect is, with its unit and the value it is compared with."""
    everywhere: bool = False
    """Whether it is about every cell, rather than about their mean."""
    contrasts: Callable[[Sequence[str]], NDArray[np.float64]] | None = None
    """(K, S) contrasts of drops that are all positive if it holds; None for an exact error."""
    given: Callable[[Sequence[str]], NDArray[np.float64]] | None = None
    """(K, S) contrasts that must be positive for it to have a meaning."""
    effect: Callable[[Drops, Sequence[str], float], NDArray[np.float64]] | None = None
    """(3,) effect with its interval."""
    exact: str = ""
    """For an exact error: the share of which it speaks."""


def _each(steps: Sequence[str]) -> NDArray[np.float64]:
    return np.eye(len(steps))


def _total(steps: Sequence[str]) -> NDArray[np.float64]:
    return np.ones((1, len(steps)))


def _majority(steps: Sequence[str]) -> NDArray[np.float64]:
    return (_blamed(steps) - 0.5)[None]


def _blamed(steps: Sequence[str]) -> NDArray[np.float64]:
    return np.array([float(step == BLAMED) for step in steps])


def _over_others(steps: Sequence[str]) -> NDArray[np.float64]:
    others = [row for row, step in zip(np.eye(len(steps)), steps, strict=True) if step != BLAMED]
    return _blamed(steps) - np.array(others)


def _order(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    """Kendall's τ between a rung's place in the chain and its level."""
    estimate = _kendall(drops.estimate[None])[0]
    return Draws(np.asarray(estimate), _kendall(drops.draws)).interval(level)


def _kendall(drops: NDArray[np.float64]) -> NDArray[np.float64]:
    """τ of levels (B, S + 1) against an ideal descent, from their drops (B, S)."""
    levels = np.concatenate([np.zeros((len(drops), 1)), -np.cumsum(drops, 1)], 1)
    first, second = np.triu_indices(levels.shape[1], 1)
    return np.sign(levels[:, first] - levels[:, second]).mean(1)


def _loss(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    return drops.combine(_total(steps))[0].interval(level)


def _share(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    total = drops.combine(_total(steps))[0]
    if not excludes_zero(total.interval(level)):
        return np.full(3, np.nan)
    return ratio(drops.combine(_blamed(steps)[None])[0], total, level)


def _lead(drops: Drops, steps: Sequence[str], level: float) -> NDArray[np.float64]:
    """Drop of the blamed step minus the largest of the others."""
    lead = drops.combine(_over_others(steps))
    return Draws(lead.estimate.min(-1), lead.draws.min(-1)).interval(level)


CLAIMS = (
    Claim(
        "consistently",
        "Better Hessian approximations consistently give better influence scores.",
        "Kendall's τ between place in the chain and LDS; 1 if every step loses",
        everywhere=True,
        contrasts=_each,
        effect=_order,
    ),
    Claim(
        "overall",
        "The exact Hessian gives better influence scores than K-FAC.",
        "LDS of the Hessian minus LDS of K-FAC",
        contrasts=_total,
        effect=_loss,
    ),
    Claim(
        "error",
        "The K-FAC eigenvalue mismatch accounts for the majority of the error "
        "(squared Frobenius error of K-FAC against the Hessian).",
        "share of the eigenvalue step in ‖H − K‖² (paper: increase of ‖H − X‖²), against 0.5",
        exact="frobenius",
    ),
    Claim(
        "inverse_error",
        "The K-FAC eigenvalue mismatch accounts for the majority of the error "
        "(misaligned damped solutions for the query gradients).",
        "share of the eigenvalue step in 1 − cos² of the solutions, against 0.5",
        exact="solutions",
    ),
    Claim(
        "loss",
        "The K-FAC eigenvalue mismatch accounts for the majority of the influence loss.",
        "share of the eigenvalue step in the LDS that the chain loses, against 0.5",
        contrasts=_majority,
        given=_total,
        effect=_share,
    ),
    Claim(
        "largest",
        "The K-FAC eigenvalue mismatch is the costliest step.",
        "LDS lost by the eigenvalue step minus the most that another step loses",
        contrasts=_over_others,
        effect=_lead,
    ),
)
"""The paper's claims; the second and the last are weaker forms of the others."""
