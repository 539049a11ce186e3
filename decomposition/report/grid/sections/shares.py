"""Section 3: the share of every step in every cell."""

from __future__ import annotations

from functools import partial

import numpy as np

from decomposition.report.content import Cell, Figure, Table, Text, missing
from decomposition.report.grid.cells import Grid, protocol_label, step_label
from decomposition.report.grid.content import StudyBlock, StudySection
from decomposition.report.grid.figures.shares import plot_cell_shares
from decomposition.report.grid.layout import layout
from decomposition.report.grid.sections.bands import band_figures, behind
from decomposition.report.study import interval, intervals, labels
from decomposition.report.wording import fixed, joined, plural, span

TITLE = "Shares of the steps in every cell"


def shares(grid: Grid) -> StudySection:
    """Figures of the shares, how many are undefined, and the table."""
    share = grid.of_cells("share")
    if share is None:
        what = "The study holds no defined shares: no chain, or every total is within noise."
        return StudySection("shares", TITLE, (missing(what),))
    protocols = [p for p in labels(share, "protocol") if np.isfinite(share.sel(protocol=p)).any()]
    undefined = [f"{_undefined(grid, p)} under {protocol_label(p)}" for p in grid.protocols]
    hollow = " A hollow mark is the share whatever the order of the steps."
    text = (
        f"What each step takes of the LDS that the chain loses, with {intervals(grid)}; negative "
        "shares are steps that help. Where the total is within noise they are undefined: of "
        f"{plural(len(grid.cells), 'cell')}, in {joined(undefined)}."
        + (hollow if grid.of_cells("shapley") is not None else "")
    )
    blocks: list[StudyBlock] = [Text(text)]
    blocks += band_figures(grid, "shares", protocols, _lines(grid), partial(_figure, grid))
    blocks.append(behind("shares-all", _table(grid)))
    return StudySection("shares", TITLE, tuple(blocks))


def _lines(grid: Grid) -> int:
    return len(grid.steps) * (1 if grid.of_cells("shapley") is None else 2)


def _undefined(grid: Grid, protocol: str) -> int:
    share = grid.data["share"].sel(protocol=protocol, step=grid.steps, ci_bound="estimate")
    return int((~np.isfinite(share.transpose("cell", "step").values)).all(1).sum())


def _figure(grid: Grid, protocol: str, column: int, rows: list[int]) -> Figure:
    table = layout(grid)
    cells = [table.cells[r, column] for r in rows if (r, column) in table.cells]
    share = grid.data["share"].sel(cell=cells, protocol=protocol, ci_bound="estimate")
    parts = []
    for step in grid.steps:
        found = 100 * share.sel(step=step).values
        if np.isfinite(found).any():
            low, high = float(np.nanmin(found)), float(np.nanmax(found))
            parts.append(f"{step_label(step)} {fixed(low, 0)} to {fixed(high, 0)}%")
    where = table.columns[column] or "all cells"
    told = joined(parts) or "undefined in every one"
    return Figure(
        f"shares-{protocol.replace('_', '-')}-{column}-{rows[0]}",
        f"Shares over {len(cells)} cells, {protocol_label(protocol)}, {where}: {told}.",
        f"Share of every step, {protocol_label(protocol)}, {where}.",
        partial(plot_cell_shares, grid.tree, protocol=protocol, column=column, rows=rows),
    )


def _table(grid: Grid) -> Table:
    arrays = {
        "share": grid.of_cells("share"),
        "order-independent": grid.of_cells("shapley"),
    }
    known = {name: array for name, array in arrays.items() if array is not None}
    total = grid.of_cells("total")
    rows: list[tuple[Cell, ...]] = []
    for cell in grid.cells:
        for protocol in grid.protocols:
            row: list[Cell] = [grid.names[cell], protocol_label(protocol)]
            # as text, because intervals of this table are shown in per cent
            row.append(
                span(interval(total, cell=cell, protocol=protocol)) if total is not None else "–"
            )
            for array in known.values():
                for step in grid.steps:
                    value = interval(array, cell=cell, protocol=protocol, step=step)
                    row.append(value if value.known else "undefined")
            rows.append(tuple(row))
    heads = (
        step_label(s) + (f", {name}" if name != "share" else "")
        for name in known
        for s in grid.steps
    )
    columns = ("cell", "damping", "LDS lost", *heads)
    return Table("shares", "Share of every step in every cell", columns, tuple(rows), shares=True)
