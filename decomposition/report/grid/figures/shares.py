"""Share of every step in every cell: dots with intervals, and what is undefined says so."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.grid.cells import Grid, protocol_label, step_label
from decomposition.report.grid.figures.marks import (
    Mark,
    band_height,
    draw_bands,
    legend_outside,
    limits,
    say_in_band,
)
from decomposition.report.grid.layout import layout
from decomposition.report.palette import MUTED, RungStyle, rung_styles
from decomposition.report.study import Interval, interval, labels
from decomposition.report.wording import percent
from decomposition.results.schema import CHAIN, STEPS

BEYOND = 60.0
"""Per cent of the total by which an interval may reach beyond the estimates before it is cut."""


def plot_cell_shares(
    tree: xr.DataTree,
    protocol: str = "equal",
    column: int = 0,
    rows: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A band per cell, in it a dot with interval per step; hollow dots are order-independent.

    Args:
        tree: a study.
        protocol: damping protocol.
        column: which checkpoint, in the order of ``report.grid.layout``.
        rows: which rows of the layout; by default all.
        ax: where to draw.
    """
    grid = Grid(tree)
    share = grid.of_cells("share")
    table = layout(grid)
    chosen = list(rows) if rows is not None else list(range(len(table.rows)))
    lines = len(grid.steps) * (2 if grid.of_cells("shapley") is not None else 1)
    width = 3.9 if len(table.columns) > 1 else 4.8
    with report_style():
        ax = axes_or_new(ax, width, 1.25 + len(chosen) * band_height(lines))
        if share is None or protocol not in labels(share, "protocol") or not chosen:
            return say_missing(ax, "no defined shares in this study")
        everywhere = [m.value for c in grid.cells for m in _band(grid, c, protocol)]
        low, high = limits(everywhere, BEYOND, (0.0, 100.0))
        places = [table.cells.get((row, column)) for row in chosen]
        bands = [[] if cell is None else _band(grid, cell, protocol) for cell in places]
        draw_bands(ax, [table.rows[r] for r in chosen], bands, low, high)
        for at, (cell, band) in enumerate(zip(places, bands, strict=True)):
            if cell is not None and not any(mark.value.known for mark in band):
                say_in_band(ax, at, "undefined: total within noise")
        for end in (0.0, 100.0):
            ax.axvline(end, color=MUTED, linewidth=0.8, linestyle="-" if end == 0 else ":")
        ax.set_xlabel(f"share of the LDS lost (%), {protocol_label(protocol)}")
        ax.set_title(table.columns[column] or "Share of every step")
        legend_outside(ax, [(step_style(s), step_label(s)) for s in grid.steps])
    return ax


def step_style(step: str) -> RungStyle:
    """A step looks like the rung that it leads to; the cross term is grey."""
    if step in STEPS:
        rung = CHAIN[STEPS.index(step) + 1]
        return rung_styles([rung])[rung]
    return RungStyle(MUTED, (0, (1, 1)), "x")


def _band(grid: Grid, cell: int, protocol: str) -> list[Mark]:
    marks = []
    for step in grid.steps:
        for name in ("share", "shapley"):
            array = grid.of_cells(name)
            if array is None:
                continue
            value = interval(array, cell=cell, protocol=protocol, step=step)
            order = "" if name == "share" else ", whatever the order"
            told = f"{grid.names[cell]}, {step_label(step)}{order}: {percent(value)}"
            told = told if grid.small else ""
            bounds = (100 * v for v in (value.lower, value.estimate, value.upper))
            marks.append(Mark(Interval(*bounds), step_style(step), told, hollow=bool(order)))
    return marks
