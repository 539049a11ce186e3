"""Eigenvalues by rank: magnitude with the sign visible, and the curvature they add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.palette import MUTED, PAPER, rung_label, rung_styles
from decomposition.report.wording import isolated

POINTS = 120
"""Markers drawn of each curve, spread evenly over the logarithm of the rank."""
FLOOR = 1e-10
"""Relative magnitude below which an eigenvalue is as good as zero and is not drawn."""


def plot_rank_curve(data: xr.Dataset, scope: str = "whole", ax: Axes | None = None) -> Axes:
    """|eigenvalue| against rank; hollow marks on a curve are negative eigenvalues.

    Args:
        data: magnitude and sign (scope, rung, rank), from ``spectrum.tables.by_rank``.
        scope: whole, or a block.
        ax: where to draw.
    """
    here = data.sel(scope=scope)
    rungs = [str(rung) for rung in here["rung"].values]
    styles = rung_styles(rungs)
    with report_style():
        ax = axes_or_new(ax, height=4.3)
        for rung in rungs:
            size, sign = here["magnitude"].sel(rung=rung).values, here["sign"].sel(rung=rung).values
            last = int((size > FLOOR * np.nanmax(size, initial=0.0)).sum())
            if not last:
                continue
            ranks = np.unique(np.geomspace(1, last, POINTS).round().astype(int))
            size, sign = size[ranks - 1], sign[ranks - 1]
            style = styles[rung]
            look: Any = {"color": style.color, "linestyle": style.dash, "linewidth": 1.4}
            ax.plot(ranks, size, label=rung_label(rung), **look)
            ax.plot(
                ranks[sign < 0],
                size[sign < 0],
                linestyle="none",
                marker=style.marker,
                markersize=4.2,
                markerfacecolor=PAPER,
                markeredgecolor=style.color,
                markeredgewidth=0.9,
            )
        if bool((here["sign"] < 0).any()):
            hollow: Any = {"marker": "o", "linestyle": "none", "markerfacecolor": PAPER}
            ax.plot([], [], markeredgecolor=MUTED, label="negative", **hollow)
        log_scale(ax, "x", "y")
        ax.set_xlabel("rank (1 = largest magnitude)")
        ax.set_ylabel("|eigenvalue| (units of curvature)")
        ax.set_title(f"Eigenvalues by rank, {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax


def plot_cumulative(data: xr.Dataset, scope: str = "whole", ax: Axes | None = None) -> Axes:
    """Share of Σ|eigenvalue| that the r eigenvalues of largest magnitude hold."""
    here = data.sel(scope=scope)
    rungs = [str(rung) for rung in here["rung"].values]
    styles = rung_styles(rungs)
    with report_style():
        ax = axes_or_new(ax)
        for rung in rungs:
            share = here["cumulative"].sel(rung=rung).values
            known = int(np.isfinite(share).sum())
            if not known:
                continue
            ranks = np.unique(np.geomspace(1, known, POINTS).round().astype(int))
            style = styles[rung]
            ax.plot(
                ranks,
                share[ranks - 1],
                color=style.color,
                linestyle=style.dash,
                label=rung_label(rung),
            )
        log_scale(ax, "x")
        ax.set_ylim(0.0, 1.02)
        ax.set_xlabel("number of leading eigenvalues")
        ax.set_ylabel("share of Σ|eigenvalue|")
        ax.set_title(f"Cumulative curvature, {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax


def scope_label(scope: str) -> str:
    """``whole`` or ``block 0``, as a title says it."""
    return "whole matrix" if scope == "whole" else f"block {isolated(scope, 20)}"
