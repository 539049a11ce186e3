"""Spectra of rungs that are in part estimated: density, and counts with their bounds."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.figures.density import plot_density, ticks
from decomposition.report.palette import MUTED, rung_label, rung_styles

LEAST = 0.5
"""Count at the foot of the axis."""


def plot_large_density(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Eigenvalues per decade of every rung, with a band of ± 2 errors where they are estimated.

    Args:
        data: group ``/spectral_density`` of a result.
        ax: where to draw.
    """
    return plot_density(data[["density", "standard_error"]].expand_dims(scope=["whole"]), ax=ax)


def plot_counts(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Eigenvalues further from zero than μ, on either side; the band lies between their bounds.

    Args:
        data: group ``/spectral_density`` of a result.
        ax: where to draw.
    """
    rungs = [str(rung) for rung in data["rung"].values]
    styles, position = rung_styles(rungs), data["position"].values
    with report_style():
        ax = axes_or_new(ax, height=4.0)
        for rung in rungs:
            style = styles[rung]
            value, low, high = further_out(data.sel(rung=rung))
            drawn = np.where(value >= LEAST / 10, value, np.nan)
            ax.plot(
                position, drawn, color=style.color, linestyle=style.dash, label=rung_label(rung)
            )
            if (low < high).any():
                band = (np.maximum(low, LEAST / 10), np.maximum(high, LEAST / 10))
                ax.fill_between(position, *band, color=style.color, alpha=0.2, linewidth=0)
        ax.axvline(0.0, color=MUTED, linewidth=0.8)
        log_scale(ax, "y")
        ax.set_ylim(bottom=LEAST)
        places, names = ticks(position, float(data.attrs["threshold"]))
        ax.set_xticks(places, names)
        ax.set_xlabel("eigenvalue μ (symmetric logarithmic)")
        ax.set_ylabel("eigenvalues further from 0")
        ax.set_title("Number of eigenvalues beyond μ")
        legend_below(ax, columns=3)
    return ax


def further_out(one: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts below μ < 0 and above μ > 0 of one rung, with their bounds."""
    count, low, high = (one[name].values for name in ("count", "count_lower", "count_upper"))
    size, left = count[-1], one["eigenvalue"].values < 0
    return (
        np.where(left, count, size - count),
        np.where(left, low, size - high),
        np.where(left, high, size - low),
    )
