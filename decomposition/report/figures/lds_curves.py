"""LDS against damping, all rungs, with bands, optimum and edge markers."""

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
from decomposition.report.palette import INK, MUTED, rung_label
from decomposition.report.study import PROTOCOLS, Study, interval, labels
from decomposition.results.schema import BASELINES

_AXES = {
    "equal": ("/attribution", "damping", "damping λ (units of curvature)"),
    "relative": (
        "/attribution/relative",
        "setting",
        "c, with λ = c · trace / min(P, N·C) of each rung",
    ),
    "effective_dimension": (
        "/attribution/effective_dimension",
        "setting",
        "effective dimension Σ μ/(μ+λ) (directions)",
    ),
}


def plot_lds_curves(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """Mean LDS of each rung over the damping grid; a star marks each rung's best value."""
    study = Study(tree)
    path, dim, axis_label = _AXES[protocol]
    mean = study.array(path, "lds_mean")
    with report_style():
        ax = axes_or_new(ax, height=4.3)
        if mean is None:
            return say_missing(ax, "no LDS against damping in this result")
        present = labels(mean, "rung")
        for rung in (r for r in study.rungs if r in present):
            _curve(ax, study, mean.sel(rung=rung), rung, dim)
        ceiling = study.array("/attribution", "ceiling")
        if ceiling is not None and interval(ceiling).known:
            value = interval(ceiling)
            ax.axhline(value.estimate, color=MUTED, linewidth=1.0, label="noise ceiling")
            ax.axhspan(value.lower, value.upper, color=MUTED, alpha=0.15, linewidth=0)
        log_scale(ax, "x")
        ax.set_xlabel(axis_label)
        ax.set_ylabel("LDS (mean rank correlation)")
        ax.set_title(f"LDS against damping, {PROTOCOLS.get(protocol, protocol)}")
        legend_below(ax, columns=3)
    return ax


def _curve(ax: Axes, study: Study, mean: xr.DataArray, rung: str, dim: str) -> None:
    style = study.styles[rung]
    grid = np.asarray(mean[dim].values, dtype=float)
    low, middle, high = (mean.sel(ci_bound=b).values for b in ("lower", "estimate", "upper"))
    if np.isnan(middle).all():
        return
    marker = style.marker if rung not in BASELINES else None
    ax.fill_between(grid, low, high, color=style.color, alpha=0.14, linewidth=0)
    ax.plot(
        grid,
        middle,
        color=style.color,
        linestyle=style.dash,
        marker=marker,
        markersize=3.5,
        label=rung_label(rung),
    )
    if rung in BASELINES:
        return
    best = int(np.nanargmax(middle))
    measured = np.flatnonzero(~np.isnan(middle))
    on_edge = best in (measured[0], measured[-1]) and len(measured) > 1
    ax.plot(grid[best], middle[best], marker="*", markersize=12, color=style.color, zorder=5)
    if on_edge:
        ax.annotate(
            "edge",
            (grid[best], middle[best]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
