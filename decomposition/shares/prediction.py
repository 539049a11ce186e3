"""Group /prediction: does spectral error predict attribution loss?

A point is a rung at a damping (for metrics without damping: a rung at its tuned damping). The loss
is the reference's LDS minus the rung's, at the same damping. Points of one rung move together, so
resampling them one by one would promise too much: whole rungs are resampled, and ranks are taken
anew in every resample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from decomposition.names import BASELINES, CI_BOUNDS
from decomposition.scores.bootstrap import Draws
from decomposition.scores.ranks import Floats, correlation, rank
from decomposition.shares.steps import ShareError
from decomposition.spectrum.errors import DAMPED
from decomposition.spectrum.residuals import RESIDUALS


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


SMALLEST = 3
"""Cells, and rungs, below which nothing is said."""


def prediction_group(
    errors: xr.Dataset, attribution: xr.Dataset, levels: xr.DataArray, level: float, seed: int
) -> xr.Dataset:
    """Spearman's ρ between each metric's error and the LDS loss, with an interval over rungs.

    Args:
        errors: value(metric, rung) and damped_value(metric, damping, rung) against the Hessian.
        attribution: lds_mean(rung, damping, ci_bound).
        levels: (rung, ci_bound) at protocol tuned.
        level: coverage.
        seed: of the bootstrap.
    """
    rungs = [
        r
        for r in errors["rung"].values.tolist()
        if r != "hessian" and r not in BASELINES and r in levels["rung"]
    ]
    rho, cells, groups = {}, {}, {}
    mean = attribution["lds_mean"].sel(ci_bound="estimate")
    shared = [d for d in errors["damping"].values if np.isclose(mean["damping"], d).any()]
    metrics = [str(metric) for metric in errors["metric"].values]
    for metric in metrics:
        if metric in DAMPED or metric in RESIDUALS:
            x = errors["damped_value"].sel(metric=metric, damping=shared, rung=rungs)
            y = mean.sel(damping=shared, method="nearest")
            loss = (y.sel(rung="hessian") - y.sel(rung=rungs)).transpose("damping", "rung")
            x_flat, y_flat = x.transpose("damping", "rung").values.ravel(), loss.values.ravel()
            unit = np.tile(np.arange(len(rungs)), len(shared))
        else:
            estimate = levels.sel(ci_bound="estimate")
            x_flat = errors["value"].sel(metric=metric, rung=rungs).values
            y_flat = (estimate.sel(rung="hessian") - estimate.sel(rung=rungs)).values
            unit = np.arange(len(rungs))
        if metric.endswith("overlap"):
            x_flat = 1.0 - x_flat  # so that large is always bad
        finite = np.isfinite(x_flat) & np.isfinite(y_flat)
        cells[metric], groups[metric] = int(finite.sum()), len(np.unique(unit[finite]))
        rho[metric] = np.full(3, np.nan)
        if groups[metric] >= SMALLEST:
            found = spectral_association(
                x_flat[None, finite], y_flat[finite], unit[finite], seed=(seed, 5), level=level
            )
            rho[metric] = found.rho[0]
    return xr.Dataset(
        {
            "rho": (("metric", "ci_bound"), np.stack(list(rho.values()))),
            "cells": ("metric", np.array(list(cells.values()))),
            "rungs": ("metric", np.array(list(groups.values()))),
        },
        {"metric": metrics, "ci_bound": list(CI_BOUNDS)},
    )
