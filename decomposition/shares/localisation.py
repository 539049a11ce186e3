"""Where a step's loss lives: in which layer, which eigenvalue band, which query.

Swapping parts one after the other, part k on top of those before it, gives contributions that
telescope to the step's drop. Swapping each part alone gives contributions that need not add up;
what is missing is the remainder. Over queries the drop is a mean, so single queries add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.scores.bootstrap import Draws, Resamples
from decomposition.scores.lds import check_prediction
from decomposition.scores.linearised import fold_members, linearised_query
from decomposition.scores.ranks import Floats
from decomposition.shares.steps import ShareError


@dataclass(frozen=True)
class Parts:
    """A step's drop split over parts; the last axis is lower, estimate, upper."""

    names: tuple[str, ...]
    contribution: NDArray[np.float64]
    """(K, 3)."""
    total: NDArray[np.float64]
    """(3,) the step's drop."""
    remainder: NDArray[np.float64]
    """(3,) total minus the sum of the contributions."""


def path_decomposition(levels: Draws, names: tuple[str, ...], level: float = 0.95) -> Parts:
    """Parts swapped one after the other: levels (K+1,) → contributions that sum to the total.

    The first level is the node before the step, the last the node after it. The remainder is
    zero up to rounding.

    Raises:
        ShareError: the number of levels is not one more than the number of names.
    """
    if levels.estimate.shape != (len(names) + 1,):
        raise ShareError(
            f"{len(names)} swaps need {len(names) + 1} levels, got {levels.estimate.shape}"
        )
    count = len(names)
    matrix = np.eye(count, count + 1) - np.eye(count, count + 1, k=1)
    total = levels[0].minus(levels[-1])
    return _parts(levels.combine(matrix), total, names, level)


def single_swaps(
    before: Draws, after: Draws, swapped: Draws, names: tuple[str, ...], level: float = 0.95
) -> Parts:
    """Each part swapped alone: level before () minus level with part k swapped (K,).

    Raises:
        ShareError: the number of swapped levels is not the number of names.
    """
    if swapped.estimate.shape != (len(names),):
        raise ShareError(f"{len(names)} swaps need as many levels, got {swapped.estimate.shape}")
    contribution = Draws(before.estimate - swapped.estimate, before.draws[:, None] - swapped.draws)
    return _parts(contribution, before.minus(after), names, level)


def _parts(contribution: Draws, total: Draws, names: tuple[str, ...], level: float) -> Parts:
    summed = Draws(contribution.estimate.sum(), contribution.draws.sum(-1))
    return Parts(
        names,
        contribution.interval(level),
        total.interval(level),
        total.minus(summed).interval(level),
    )


@dataclass(frozen=True)
class QueryDrops:
    """A step's drop query by query; the mean over queries is the step's drop."""

    drop: NDArray[np.float64]
    """(Q, 3) lower, estimate, upper, from resampled masks; NaN where undefined."""
    most_changed: NDArray[np.intp]
    """(k,) queries with the largest |drop|, largest first."""
    degraded: float
    """Fraction of defined queries whose interval lies above zero."""
    improved: float
    """Fraction of defined queries whose interval lies below zero."""


def query_drops(
    before: Floats,
    after: Floats,
    truth: Floats,
    weights: Resamples,
    folds: NDArray[np.integer] | None = None,
    most: int = 10,
    level: float = 0.95,
) -> QueryDrops:
    """Drop of every query between predictions `before` and `after` (M, Q), truth (M, Q).

    Intervals hold for single queries: with many queries some exclude zero by chance, at most
    a fraction 1 − level where nothing changed.

    Raises:
        ScoreError: shapes differ or a value is not finite.
    """
    both = np.stack([before, after])
    check_prediction(both, truth)
    members = fold_members(folds, len(truth))
    masks, queries = truth.shape
    drop = np.empty(queries)
    effect = np.empty((masks, queries))
    for query in range(queries):
        value, psi = linearised_query(both[:, :, query], truth[:, query], members)
        drop[query] = value[0] - value[1]
        effect[:, query] = psi[0] - psi[1]
    draws = drop + (weights.masks - 1.0) @ effect / masks
    interval = Draws(drop, draws).interval(level)
    order = np.argsort(-np.nan_to_num(np.abs(drop), nan=-1.0), kind="stable")
    defined = max(1, int((~np.isnan(drop)).sum()))
    return QueryDrops(
        interval,
        order[:most],
        float((interval[:, 0] > 0).sum() / defined),
        float((interval[:, 2] < 0).sum() / defined),
    )
