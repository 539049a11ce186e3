"""LDS of every rung against the one factor that a study varies."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.grid.cells import GRID_FACTOR, Grid, plain, protocol_label
from decomposition.report.grid.figures.marks import legend_outside
from decomposition.report.palette import MUTED, rung_label
from decomposition.report.study import Interval, interval, labels

DAMPING = "multiplier"
"""The factor that varies within cells: one λ for all rungs, in multiples of tr G / min(P, N·C)."""

Curves = dict[str, list[tuple[float, Interval]]]
"""Rung → (value of the factor, LDS), a point per cell."""


def plot_factor(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """A line per rung through the means of the cells, a dot with its interval per cell."""
    grid = Grid(tree)
    curves = factor_curves(grid, protocol)
    with report_style():
        ax = axes_or_new(ax, 4.8, 3.8)
        if not curves:
            return say_missing(ax, "no factor varies in this study")
        places = sorted({point[0] for curve in curves.values() for point in curve})
        spread = places[0] > 0 and places[-1] / places[0] >= 4
        to_axis = np.log2 if spread else np.asarray
        step = float(np.diff(to_axis(np.array(places))).min()) if len(places) > 1 else 1.0
        for i, (rung, curve) in enumerate(curves.items()):
            style = grid.styles[rung]
            x = np.array([p[0] for p in curve])
            at = to_axis(x) + 0.05 * step * (i - (len(curves) - 1) / 2)
            ends = ([v.lower for _, v in curve], [v.upper for _, v in curve])
            ax.vlines(at, *ends, color=style.color, linewidth=1.0)
            look = {"color": style.color, "marker": style.marker, "markersize": 4}
            ax.plot(at, [v.estimate for _, v in curve], linestyle="none", **look)
            means = [value for _, value in means_of(curve)]
            line = np.unique(at)
            ax.plot(line, means, color=style.color, linestyle=style.dash, linewidth=1.2)
        few = places if len(places) <= 8 else places[:: -(-len(places) // 6)]
        ax.xaxis.set_major_locator(FixedLocator([float(v) for v in to_axis(np.array(few))]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([plain(v) for v in few])
        ax.axhline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(factor_label(grid.factor))
        ax.set_ylabel("LDS")
        ax.set_title(protocol_label(protocol))
        legend_outside(ax, [(grid.styles[r], rung_label(r)) for r in curves])
    return ax


def factor_label(factor: str) -> str:
    """A factor's name on an axis."""
    return "λ / (tr G / min(P, N·C))" if factor == DAMPING else factor.replace("_", " ")


def factor_curves(grid: Grid, protocol: str) -> Curves:
    """The points of ``plot_factor``; empty in a study of several factors or of none."""
    if grid.factor == DAMPING:
        found = grid.of_cells("level_at") if protocol == "equal" else None
        return {} if found is None else _within(found)
    level, x = grid.of_cells("level"), grid.coordinate(grid.factor)
    numeric = {c: float(v) for c, v in x.items() if isinstance(v, int | float)}
    if grid.factor == GRID_FACTOR or level is None or len(set(numeric.values())) < 2:
        return {}
    if protocol not in labels(level, "protocol"):
        return {}
    here = level.sel(protocol=protocol)
    return {
        rung: [
            (numeric[c], value)
            for c in grid.cells
            if (value := interval(here, cell=c, rung=rung)).known
        ]
        for rung in grid.drawn
        if np.isfinite(here.sel(rung=rung).values).any()
    }


def means_of(curve: list[tuple[float, Interval]]) -> list[tuple[float, float]]:
    """(value of the factor, mean of the estimates there), ascending."""
    places = sorted({x for x, _ in curve})
    return [(at, float(np.mean([v.estimate for x, v in curve if x == at]))) for at in places]


def _within(level_at: xr.DataArray) -> Curves:
    return {
        rung: [
            (float(m), interval(level_at, cell=cell, multiplier=m, chain_rung=rung))
            for m in level_at["multiplier"].values
            for cell in level_at["cell"].values
        ]
        for rung in labels(level_at, "chain_rung")
    }
