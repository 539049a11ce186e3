"""The leading eigenvalues against the number of classes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.figures.rank_curve import scope_label
from decomposition.report.palette import MUTED, rung_label, rung_styles


def plot_outliers(data: xr.Dataset, scope: str = "whole", ax: Axes | None = None) -> Axes:
    """The largest positive eigenvalues; the vertical line is the number of classes.

    Args:
        data: from ``spectrum.summary.outliers``; the legend gives each rung's count, the rank
            after which the widest gap lies.
        scope: whole, or a block.
        ax: where to draw.
    """
    here = data.sel(scope=scope)
    rungs = [str(rung) for rung in here["rung"].values]
    styles = rung_styles(rungs)
    classes = int(data.attrs["classes"])
    with report_style():
        ax = axes_or_new(ax)
        for rung in rungs:
            values = here["leading"].sel(rung=rung).values
            if not np.isfinite(values).any():
                continue
            count = float(here["count"].sel(rung=rung))
            style = styles[rung]
            tail = f": {count:.0f}" if np.isfinite(count) else ""
            ax.plot(
                here["rank"].values,
                values,
                color=style.color,
                linestyle=style.dash,
                linewidth=0.9,
                marker=style.marker,
                markersize=3.4,
                label=f"{rung_label(rung)}{tail}",
            )
        ax.axvline(classes + 0.5, color=MUTED, linewidth=1.0)
        place = {"textcoords": "offset points", "fontsize": 8.5, "color": MUTED}
        ax.annotate(
            f"{classes} classes",
            (classes + 0.5, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            va="top",
            **place,
        )
        log_scale(ax, "y")
        ax.set_xlabel("rank")
        ax.set_ylabel("eigenvalue")
        ax.set_title(f"Outliers (rank of the widest gap), {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax
