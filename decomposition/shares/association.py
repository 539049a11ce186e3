"""Does spectral error predict attribution loss? Rank correlation over cells, with intervals.

A cell is one node at one damping in one study. Cells of a node move together, so resampling
them one by one would promise too much: whole groups are resampled, and ranks are taken anew in
every resample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.scores.bootstrap import Draws
from decomposition.scores.ranks import Floats, correlation, rank
from decomposition.shares.steps import ShareError


@dataclass(frozen=True)
class Association:
    """Spearman's ρ between each spectral metric and the LDS loss."""

    rho: NDArray[np.float64]
    """(metrics, 3) lower, estimate, upper; NaN where a metric or the loss is constant."""
    cells: int
    groups: int


def spectral_association(
    errors: Floats,
    loss: Floats,
    groups: NDArray[np.integer] | None = None,
    resamples: int = 2000,
    seed: tuple[int, ...] = (0,),
    level: float = 0.95,
) -> Association:
    """ρ over cells between errors (metrics, cells) and LDS loss (cells,).

    `groups` (cells,) numbers the unit of resampling of every cell, for example its node;
    without it every cell is its own. Few groups give wide intervals, as they should.

    Raises:
        ShareError: shapes differ, a value is not finite, or fewer than three cells.
    """
    if errors.ndim != 2 or errors.shape[1:] != loss.shape or len(loss) < 3:
        raise ShareError(
            f"need errors (metrics, cells) and losses of at least 3 cells, got {errors.shape} "
            f"and {loss.shape}"
        )
    if not (np.isfinite(errors).all() and np.isfinite(loss).all()):
        raise ShareError("an error or an LDS loss is not finite: leave its cell out")
    unit = np.arange(len(loss)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(unit.max()) + 1
    generator = np.random.default_rng((*seed, 41))
    weights = generator.multinomial(count, np.full(count, 1.0 / count), size=resamples)[:, unit]
    target = _weighted_ranks(loss, weights)
    estimate = correlation(rank(errors), rank(np.asarray(loss)))
    draws = np.stack([_weighted(_weighted_ranks(one, weights), target, weights) for one in errors])
    with np.errstate(all="ignore"):
        defined = np.isfinite(draws).any(1) & np.isfinite(estimate)
    rho = np.full((len(errors), 3), np.nan)
    for metric in np.flatnonzero(defined):
        usable = draws[metric][np.isfinite(draws[metric])]
        rho[metric] = Draws(estimate[metric], usable).interval(level)
    return Association(rho, len(loss), count)


def _weighted_ranks(values: Floats, weights: NDArray[np.integer]) -> NDArray[np.float64]:
    """Centred ranks (B, cells) under weights (B, cells)."""
    below = (values[:, None] < values) + 0.5 * (values[:, None] == values)
    return weights @ below / weights.sum(1, keepdims=True) - 0.5


def _weighted(
    f: NDArray[np.float64], g: NDArray[np.float64], weights: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Weighted correlation (B,) of centred ranks; NaN where one side is constant."""
    product, left, right = ((weights * a * b).sum(1) for a, b in ((f, g), (f, f), (g, g)))
    scale = np.sqrt(left * right)
    return np.divide(product, scale, out=np.full(len(product), np.nan), where=scale > 1e-12)
