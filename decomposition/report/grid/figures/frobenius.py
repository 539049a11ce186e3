"""Share of each step in the squared Frobenius error beside its share in the LDS that is lost."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.grid.cells import Grid, protocol_label, step_label
from decomposition.report.grid.figures.marks import legend_outside, limits
from decomposition.report.grid.figures.shares import BEYOND, step_style
from decomposition.report.interval import Interval
from decomposition.report.palette import MUTED
from decomposition.report.study import interval, labels

ENDS = ("lower", "upper")


def frobenius_shares(grid: Grid) -> dict[tuple[int, str], float]:
    """(cell, step) → share of ‖H − K‖², the cross term included; empty where there are none."""
    array = grid.of_cells("frobenius_share")
    if array is None:
        return {}
    dim = next(str(d) for d in array.dims if d != "cell")
    return {
        (cell, step): float(array.sel({"cell": cell, dim: step}))
        for cell in grid.cells
        for step in labels(array, dim)
    }


def plot_frobenius(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """A dot per cell and step; on the diagonal the matrix error would tell the loss of LDS.

    Intervals are drawn in a small study.
    """
    grid = Grid(tree)
    share, of_error = grid.of_cells("share"), frobenius_shares(grid)
    with report_style():
        ax = axes_or_new(ax, 4.8, 4.0)
        if share is None or not of_error or protocol not in labels(share, "protocol"):
            return say_missing(ax, "no shares to compare in this study")
        points = {
            (cell, step): (100 * of_error[cell, step], _scaled(share, cell, protocol, step))
            for cell in grid.cells
            for step in grid.steps
            if np.isfinite(of_error.get((cell, step), np.nan))
        }
        known = {key: point for key, point in points.items() if point[1].known}
        if not known:
            return say_missing(ax, "shares of the LDS are undefined in every cell")
        low, high = limits((y for _, y in known.values()), BEYOND, (0.0, 100.0))
        ends = [min([0.0, *(x for x, _ in known.values())]), max(x for x, _ in known.values())]
        ax.plot([-500, 500], [-500, 500], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        for step in grid.steps:
            style = step_style(step)
            here = [point for (_, of), point in known.items() if of == step]
            x, y = [x for x, _ in here], [y for _, y in here]
            if grid.small:
                lower, upper = (np.clip([getattr(v, e) for v in y], low, high) for e in ENDS)
                ax.vlines(x, lower, upper, color=style.color, linewidth=0.8)
            look = {
                "color": style.color,
                "marker": style.marker,
                "markersize": 4.6 if grid.small else 2.8,
            }
            ax.plot(x, [v.estimate for v in y], linestyle="none", **look)
        ax.axhline(0, color=MUTED, linewidth=0.8)
        ax.set_xlim(ends[0] - 4, ends[1] + 6)
        ax.set_ylim(low, high)
        ax.set_xlabel("share of ‖H − K‖² (%)")
        ax.set_ylabel("share of the LDS lost (%)")
        ax.set_title(protocol_label(protocol))
        legend_outside(ax, [(step_style(s), step_label(s)) for s in grid.steps])
    return ax


def _scaled(share: xr.DataArray, cell: int, protocol: str, step: str) -> Interval:
    found = interval(share, cell=cell, protocol=protocol, step=step)
    return Interval(*(100 * v for v in (found.lower, found.estimate, found.upper)))
