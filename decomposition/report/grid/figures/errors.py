"""LDS of a rung against the error of its matrix or of its damped inverse, over all cells."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.figures.marks import legend_outside
from decomposition.report.palette import MUTED, rung_label
from decomposition.report.study import interval, labels
from decomposition.results.schema import BASELINES

ERRORS = {
    "frobenius_error": "‖H − C‖ / ‖H‖",
    "inverse_error": "misalignment of the damped solutions",
}
"""Variable of ``/cells`` → what is on the axis."""


def plot_error_and_level(
    tree: xr.DataTree,
    error: str = "frobenius_error",
    protocol: str = "equal",
    ax: Axes | None = None,
) -> Axes:
    """A dot per cell and rung: where it falls to the right, a better matrix has a better score.

    In a small study the rungs of a cell are joined.

    Args:
        tree: a study.
        error: one of ERRORS.
        protocol: damping protocol.
        ax: where to draw.
    """
    grid = Grid(tree)
    level, array = grid.of_cells("level"), grid.of_cells(error)
    rungs = [r for r in grid.drawn if r not in BASELINES]
    with report_style():
        ax = axes_or_new(ax, 4.8, 4.0)
        if level is None or array is None or protocol not in labels(level, "protocol"):
            return say_missing(ax, "no errors to compare in this study")
        if "protocol" in array.dims:
            array = array.sel(protocol=protocol)
        points = {
            (cell, rung): (float(array.sel(cell=cell, rung=rung)), y.estimate)
            for cell in grid.cells
            for rung in rungs
            if (y := interval(level, cell=cell, protocol=protocol, rung=rung)).known
        }
        points = {place: point for place, point in points.items() if math.isfinite(point[0])}
        for cell in grid.cells if grid.small else ():
            line = sorted(point for (of, _), point in points.items() if of == cell)
            ax.plot(*np.reshape(line, (-1, 2)).T, color=MUTED, lw=0.6, alpha=0.4, zorder=1)
        for rung in rungs:
            dots = [point for (_, of), point in points.items() if of == rung]
            style = grid.styles[rung]
            look = {
                "color": style.color,
                "marker": style.marker,
                "markersize": 4.6 if grid.small else 2.4,
            }
            ax.plot(*np.reshape(dots, (-1, 2)).T, linestyle="none", **look)
        ax.set_xlabel(ERRORS.get(error, error))
        ax.set_ylabel("LDS")
        ax.set_title(protocol_label(protocol))
        legend_outside(ax, [(grid.styles[r], rung_label(r)) for r in rungs])
    return ax
