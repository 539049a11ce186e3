"""Eigen-spectra of all rungs overlaid: magnitude against rank, negative eigenvalues apart."""

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
from decomposition.report.study import Study, labels

POINTS = 220
"""Points drawn of each curve, spread evenly over the logarithm of the rank."""

_FLOOR = 1e-12
"""Relative magnitude below which an eigenvalue is rounding error and is not drawn."""


def ranked(values: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank (from 1) and magnitude of the eigenvalues of one sign, largest magnitude first.

    Args:
        values: (P,), NaN where there is none.
        sign: 1 or −1.

    Returns:
        Two arrays of the same length, thinned to at most ``POINTS`` entries.
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.empty(0), np.empty(0)
    floor = _FLOOR * np.abs(known).max()
    magnitude = np.sort((sign * known)[sign * known > floor])[::-1]
    if magnitude.size == 0:
        return np.empty(0), np.empty(0)
    picked = np.unique(np.geomspace(1, magnitude.size, POINTS).round().astype(int))
    return picked, magnitude[picked - 1]


def plot_spectra(tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """|eigenvalue| against rank for every rung; thin lines are the negative eigenvalues."""
    study = Study(tree)
    values = study.array("/spectrum", "eigenvalues")
    with report_style():
        ax = axes_or_new(ax, height=4.3)
        if values is None:
            return say_missing(ax, "no spectra in this result")
        present = labels(values, "rung")
        for rung in (r for r in study.rungs if r in present):
            style = study.styles[rung]
            rank, size = ranked(values.sel(rung=rung).values, 1)
            if rank.size:
                ax.plot(rank, size, color=style.color, linestyle=style.dash, label=rung_label(rung))
            rank, size = ranked(values.sel(rung=rung).values, -1)
            if rank.size:
                label = f"{rung_label(rung)}, negative"
                ax.plot(
                    rank, size, color=style.color, linestyle=(0, (1, 2)), linewidth=1.1, label=label
                )
        log_scale(ax, "x", "y")
        ax.set_xlabel("rank (1 = largest magnitude of its sign)")
        ax.set_ylabel("|eigenvalue| (units of curvature)")
        ax.set_title("Eigenvalues of every rung")
        legend_below(ax, columns=3)
    return ax
