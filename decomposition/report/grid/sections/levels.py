"""Section 2: the LDS of every rung in every cell."""

from __future__ import annotations

from functools import partial

import numpy as np

from decomposition.report.content import Cell, Figure, Table, Text, missing
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.content import Columns, StudyBlock, StudySection
from decomposition.report.grid.figures.errors import ERRORS, plot_error_and_level
from decomposition.report.grid.figures.levels import plot_cell_levels
from decomposition.report.grid.layout import layout
from decomposition.report.grid.sections.bands import band_figures, behind
from decomposition.report.palette import rung_label
from decomposition.report.study import interval, intervals, labels
from decomposition.report.wording import fixed, joined

TITLE = "Levels in every cell"


def levels(grid: Grid) -> StudySection:
    """Figures of the levels, what they have to do with the errors, and the table."""
    level = grid.of_cells("level")
    if level is None:
        return StudySection("levels", TITLE, (missing("The study holds no LDS."),))
    protocols = [p for p in labels(level, "protocol") if np.isfinite(level.sel(protocol=p)).any()]
    text = (
        f"A band per cell, in it a mark per rung with its {intervals(grid)[:-1]}. "
        + ("The dashed line is the noise ceiling. " if grid.of_cells("ceiling") is not None else "")
        + ("Rest a pointer on a mark for its numbers." if grid.small else "")
    )
    left = [rung_label(r, 60) for r in grid.rungs if r not in grid.drawn]
    if left:
        text = f"{text} In the table alone: {joined(left)}."
    blocks: list[StudyBlock] = [Text(text.strip())]
    blocks += band_figures(grid, "levels", protocols, len(grid.drawn), partial(_figure, grid))
    blocks += _errors(grid, protocols)
    blocks.append(behind("levels-all", _table(grid, protocols)))
    return StudySection("levels", TITLE, tuple(blocks))


def _figure(grid: Grid, protocol: str, column: int, rows: list[int]) -> Figure:
    level = grid.of_cells("level")
    assert level is not None
    table = layout(grid)
    cells = [table.cells[r, column] for r in rows if (r, column) in table.cells]
    parts = []
    for rung in grid.drawn:
        found = level.sel(cell=cells, protocol=protocol, rung=rung, ci_bound="estimate").values
        if np.isfinite(found).any():
            low, high = float(np.nanmin(found)), float(np.nanmax(found))
            parts.append(f"{rung_label(rung)} {fixed(low, 2)} to {fixed(high, 2)}")
    where = table.columns[column] or "all cells"
    return Figure(
        f"levels-{protocol.replace('_', '-')}-{column}-{rows[0]}",
        f"LDS over {len(cells)} cells, {protocol_label(protocol)}, {where}: {joined(parts)}.",
        f"LDS of every rung, {protocol_label(protocol)}, {where}.",
        partial(plot_cell_levels, grid.tree, protocol=protocol, column=column, rows=rows),
    )


def _errors(grid: Grid, protocols: list[str]) -> list[StudyBlock]:
    """Whether a smaller error comes with a higher LDS, by two errors."""
    figures = []
    for error, name in ERRORS.items():
        for protocol in (
            dict.fromkeys((protocols[0], protocols[-1])) if grid.of_cells(error) is not None else ()
        ):
            label = protocol_label(protocol)
            joint = "; the rungs of a cell are joined" if grid.small else ""
            figures.append(
                Figure(
                    f"{error.replace('_', '-')}-{protocol.replace('_', '-')}",
                    f"LDS of every rung of every cell against {name}, {label}; the numbers are in "
                    "the table of levels.",
                    f"LDS against {name}, {label}{joint}.",
                    partial(plot_error_and_level, grid.tree, error=error, protocol=protocol),
                )
            )
    if not figures:
        return [missing("The study holds no errors of the matrices to set against the LDS.")]
    return [
        Text("Does a smaller error of the matrix come with a better score?"),
        Columns(tuple(figures)),
    ]


def _table(grid: Grid, protocols: list[str]) -> Table:
    level, ceiling = grid.of_cells("level"), grid.of_cells("ceiling")
    assert level is not None
    rows: list[tuple[Cell, ...]] = []
    for cell in grid.cells:
        for protocol in protocols:
            row: list[Cell] = [grid.names[cell], protocol_label(protocol)]
            row.append(interval(ceiling, cell=cell) if ceiling is not None else None)
            row += [interval(level, cell=cell, protocol=protocol, rung=r) for r in grid.rungs]
            rows.append(tuple(row))
    columns = ("cell", "damping", "noise ceiling", *(rung_label(r, 60) for r in grid.rungs))
    return Table("levels", "LDS of every rung in every cell", columns, tuple(rows))
