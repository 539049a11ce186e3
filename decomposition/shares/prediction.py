"""Group /prediction: does spectral error predict attribution loss?

A cell is a rung at a damping (for metrics without damping: a rung at its tuned damping). The loss
is the reference's LDS minus the rung's, at the same damping. Cells of one rung move together, so
the bootstrap resamples rungs.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from decomposition.results.schema import BASELINES, CI_BOUNDS
from decomposition.shares.association import spectral_association
from decomposition.spectrum.errors import DAMPED, METRICS

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
    for metric in METRICS:
        if metric in DAMPED:
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
        {"metric": list(METRICS), "ci_bound": list(CI_BOUNDS)},
    )
