"""Figures of cells in bands: the leading protocol in view, the rest a click away."""

from __future__ import annotations

from collections.abc import Callable

from decomposition.report.content import Figure, Table, Text
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.content import Columns, Details, StudyBlock
from decomposition.report.grid.layout import layout
from decomposition.report.wording import joined

LINES_A_FIGURE = 96
"""More marks below each other than this make a figure that no screen holds."""

Draw = Callable[[str, int, list[int]], Figure]
"""(protocol, column, rows) → figure."""


def band_figures(
    grid: Grid, what: str, protocols: list[str], lines: int, draw: Draw
) -> list[StudyBlock]:
    """Every cell under the first protocol, and under the others where they are not too many.

    Args:
        grid: the study.
        what: the name of it all in anchors, such as ``levels``.
        protocols: those that have something to show.
        lines: marks below each other in a band.
        draw: makes one figure.
    """
    blocks: list[StudyBlock] = []
    for protocol in protocols if grid.small else protocols[:1]:
        first, *others = _columns(grid, protocol, lines, draw)
        anchor = f"{what}-{protocol.replace('_', '-')}"
        if protocol != protocols[0]:
            blocks.append(Details(anchor, protocol_label(protocol), (first, *others)))
            continue
        blocks.append(first)
        if others:
            summary = f"{protocol_label(protocol)}, further cells"
            blocks.append(Details(anchor, summary, tuple(others)))
    if not grid.small and len(protocols) > 1:
        names = joined([protocol_label(protocol) for protocol in protocols[1:]])
        text = f"Of so many cells only {protocol_label(protocols[0])} is drawn; the table holds"
        blocks.append(Text(f"{text} {names} too."))
    return blocks


def _columns(grid: Grid, protocol: str, lines: int, draw: Draw) -> list[Columns]:
    """The figures of a protocol: a row of them per run of cells, or a single row of runs."""
    table = layout(grid)
    found = [
        tuple(draw(protocol, column, list(rows)) for column in range(len(table.columns)))
        for rows in table.chunks(max(LINES_A_FIGURE // lines, 1))
    ]
    if len(table.columns) == 1:
        return [Columns(tuple(figure for figures in found for figure in figures))]
    return [Columns(figures) for figures in found]


def behind(anchor: str, table: Table) -> Details:
    """A long table a click away."""
    return Details(anchor, f"{table.caption}, as a table", (table,))
