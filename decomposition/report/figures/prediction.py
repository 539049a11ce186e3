"""Does spectral error predict attribution loss? A point per rung and damping value."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_below,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.palette import MUTED, rung_label
from decomposition.report.study import METRIC_LABELS, Study, labels
from decomposition.results.schema import BASELINES

REFERENCE = "hessian"


def paired(study: Study, metric: str) -> xr.Dataset | None:
    """``error`` and ``loss`` (rung, damping) of the cells that have both; or None.

    The loss is the reference's LDS minus the rung's at the same damping; a metric without
    damping goes with the levels under ``tuned``, and its damping has one entry, zero.
    """
    damped = study.array("/spectral_error", "damped_value")
    if damped is not None and metric in labels(damped, "metric"):
        error = damped.sel(metric=metric, drop=True)
        if bool(error.notnull().any()):
            return _damped(study, error)
    plain, level = study.array("/spectral_error", "value"), study.array("/shares", "level")
    if plain is None or level is None or metric not in labels(plain, "metric"):
        return None
    if "tuned" not in labels(level, "protocol") or REFERENCE not in labels(level, "rung"):
        return None
    lds = level.sel(protocol="tuned", ci_bound="estimate", drop=True)
    error = plain.sel(metric=metric, drop=True)
    pair = [array.expand_dims(damping=[0.0]) for array in (error, lds)]
    return _cells(*pair)


def plot_prediction(
    tree: xr.DataTree, metric: str = "damped_inverse_queries", ax: Axes | None = None
) -> Axes:
    """LDS lost against a spectral error; lines join the damping values of one rung."""
    study = Study(tree)
    data = paired(study, metric)
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if data is None:
            return say_missing(ax, "no spectral errors beside an LDS in this result")
        for rung in (r for r in study.rungs if r in labels(data["error"], "rung")):
            here = data.sel(rung=rung)
            keep = np.isfinite(here["error"].values) & (here["error"].values > 0)
            if not keep.any():
                continue
            style = study.styles[rung]
            ax.plot(
                here["error"].values[keep],
                here["loss"].values[keep],
                color=style.color,
                marker=style.marker,
                linestyle=style.dash,
                linewidth=0.8,
                label=rung_label(rung),
            )
        ax.axhline(0, color=MUTED, linewidth=1.0)
        log_scale(ax, "x")
        ax.set_xlabel(METRIC_LABELS.get(metric, metric))
        ax.set_ylabel("LDS lost against the Hessian, same λ")
        ax.set_title("LDS lost against spectral error")
        legend_below(ax, columns=3)
    return ax


def _damped(study: Study, error: xr.DataArray) -> xr.Dataset | None:
    mean = study.array("/attribution", "lds_mean")
    if mean is None or REFERENCE not in labels(mean, "rung"):
        return None
    lds = mean.sel(ci_bound="estimate", drop=True)
    grid = np.asarray(lds["damping"].values, dtype=float)
    wanted = np.asarray(error["damping"].values, dtype=float)
    # the two grids went through a file; equal values may differ in the last digit
    shared = wanted[[bool(np.isclose(grid, value).any()) for value in wanted]]
    if not shared.size:
        return None
    near = lds.sel(damping=shared, method="nearest").assign_coords(damping=shared)
    return _cells(error.sel(damping=shared), near)


def _cells(error: xr.DataArray, lds: xr.DataArray) -> xr.Dataset | None:
    loss = lds.sel(rung=REFERENCE, drop=True) - lds
    rungs = [
        rung
        for rung in labels(error, "rung")
        if rung in labels(loss, "rung") and rung != REFERENCE and rung not in BASELINES
    ]
    both = xr.Dataset(
        {
            "error": error.sel(rung=rungs).reset_coords(drop=True),
            "loss": loss.sel(rung=rungs).reset_coords(drop=True),
        }
    ).transpose("rung", "damping")
    both = both.where(both["error"].notnull() & both["loss"].notnull())
    return both if bool(both["error"].notnull().any()) else None
