"""LDS of every rung in every cell: rows by what varies, one checkpoint at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.figures.marks import (
    Mark,
    band_height,
    draw_bands,
    legend_outside,
    limits,
)
from decomposition.report.grid.layout import layout
from decomposition.report.palette import MUTED, rung_label
from decomposition.report.study import interval, labels
from decomposition.report.wording import span


def plot_cell_levels(
    tree: xr.DataTree,
    protocol: str = "equal",
    column: int = 0,
    rows: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A band per cell, in it a dot with interval per rung; the noise ceiling is a dashed line.

    Args:
        tree: a study.
        protocol: damping protocol.
        column: which checkpoint, in the order of ``report.grid.layout``.
        rows: which rows of the layout; by default all.
        ax: where to draw.
    """
    grid = Grid(tree)
    level, ceiling = grid.of_cells("level"), grid.of_cells("ceiling")
    table = layout(grid)
    chosen = list(rows) if rows is not None else list(range(len(table.rows)))
    rungs = grid.drawn
    width = 3.9 if len(table.columns) > 1 else 4.8
    with report_style():
        ax = axes_or_new(ax, width, 0.9 + len(chosen) * band_height(len(rungs)) + 0.1 * len(rungs))
        if level is None or protocol not in labels(level, "protocol") or not chosen:
            return say_missing(ax, "no levels in this study")
        everywhere = [
            interval(level, cell=c, protocol=protocol, rung=r) for c in grid.cells for r in rungs
        ]
        low, high = limits(everywhere, 0.15, (0.0,))
        bands: list[list[Mark | None]] = []
        tops: list[float] = []
        for row in chosen:
            cell = table.cells.get((row, column))
            bands.append([] if cell is None else _band(grid, level, cell, protocol))
            if ceiling is not None and cell is not None:
                tops.append(interval(ceiling, cell=cell).estimate)
            else:
                tops.append(math.nan)
        high = max([high, *(top + 0.02 for top in tops if math.isfinite(top))])
        draw_bands(ax, [table.rows[r] for r in chosen], bands, low, high)
        for at, top in enumerate(tops):
            ax.plot([top, top], [at - 0.45, at + 0.45], color=MUTED, linestyle=(0, (3, 2)), lw=1.2)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(f"LDS, {protocol_label(protocol)}")
        ax.set_title(table.columns[column] or "LDS of every rung")
        legend_outside(ax, [(grid.styles[r], rung_label(r)) for r in rungs])
    return ax


def _band(grid: Grid, level: xr.DataArray, cell: int, protocol: str) -> list[Mark | None]:
    styles, marks = grid.styles, []
    for rung in grid.drawn:
        value = interval(level, cell=cell, protocol=protocol, rung=rung)
        told = f"{grid.names[cell]}, {rung_label(rung)}: {span(value)}" if grid.small else ""
        marks.append(Mark(value, styles[rung], told))
    return marks
