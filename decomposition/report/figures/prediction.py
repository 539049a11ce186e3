"""Does spectral error predict attribution quality? A point per rung and damping value."""

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
from decomposition.report.palette import rung_label
from decomposition.report.study import METRIC_LABELS, Study, labels


def paired(study: Study, metric: str) -> xr.Dataset | None:
    """``error`` and ``lds`` (rung, damping) of the cells that have both; or None.

    A metric without damping is paired with each rung's best LDS, so its damping has one entry.
    """
    mean = study.array("/attribution", "lds_mean")
    damped = study.array("/spectral_error", "damped_value")
    plain = study.array("/spectral_error", "value")
    if mean is None:
        return None
    lds = mean.sel(ci_bound="estimate", drop=True)
    if damped is not None and metric in labels(damped, "metric"):
        error = damped.sel(metric=metric, drop=True)
        if bool(error.notnull().any()):
            return _cells(error, lds)
    if plain is not None and metric in labels(plain, "metric"):
        error = plain.sel(metric=metric, drop=True).expand_dims("damping")
        best = lds.max("damping").expand_dims("damping")
        return _cells(error.assign_coords(damping=[0.0]), best.assign_coords(damping=[0.0]))
    return None


def plot_prediction(
    tree: xr.DataTree, metric: str = "damped_inverse_queries", ax: Axes | None = None
) -> Axes:
    """LDS against a spectral error; lines join the damping values of one rung."""
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
                here["lds"].values[keep],
                color=style.color,
                marker=style.marker,
                linestyle=style.dash,
                linewidth=0.8,
                label=rung_label(rung),
            )
        log_scale(ax, "x")
        ax.set_xlabel(METRIC_LABELS.get(metric, metric))
        ax.set_ylabel("LDS (mean rank correlation)")
        ax.set_title("LDS against spectral error")
        legend_below(ax, columns=3)
    return ax


def _cells(error: xr.DataArray, lds: xr.DataArray) -> xr.Dataset | None:
    both = xr.merge(
        [error.rename("error").reset_coords(drop=True), lds.rename("lds").reset_coords(drop=True)],
        join="inner",
        compat="override",
    ).transpose("rung", "damping")
    both = both.where(both["error"].notnull() & both["lds"].notnull())
    return both if both["error"].size and bool(both["error"].notnull().any()) else None
