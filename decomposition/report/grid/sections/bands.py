"""Figures of cells in bands: the leading protocol in view, the rest a click away."""

from __future__ import annotations

from collections.abc import Callable

from decomposition.report.content import Figure, Table, Text
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.content import Columns, Details, StudyBlock
from decomposition.report.grid.layout import layout

ROWS_A_FIGURE = 12
"""More bands than this make a figure that no screen holds."""

Draw = Callable[[str, int, list[int]], Figure]
"""(protocol, column, rows) → figure."""


def band_figures(grid: Grid, what: str, protocols: list[str], draw: Draw) -> list[StudyBlock]:
    """Every cell under the first protocol, and under the others where they are not too many.

    Args:
        grid: the study.
        what: the name of it all in anchors, such as ``levels``.
        protocols: those that have something to show.
        draw: makes one figure.
    """
    table = layout(grid)
    blocks: list[StudyBlock] = []
    for p, protocol in enumerate(protocols):
        if p and not grid.small:
            names = ", ".join(protocol_label(other) for other in protocols[1:])
            blocks.append(
                Text(
                    f"With so many cells only the first protocol is drawn; {names}: see the table."
                )
            )
            break
        for c, rows in enumerate(table.chunks(ROWS_A_FIGURE)):
            figures = tuple(
                draw(protocol, column, list(rows)) for column in range(len(table.columns))
            )
            shown = Columns(figures)
            if p == 0 and c == 0:
                blocks.append(shown)
                continue
            span = (
                f", {table.rows[rows[0]]} to {table.rows[rows[-1]]}"
                if len(rows) < len(table.rows)
                else ""
            )
            anchor = f"{what}-{protocol.replace('_', '-')}-{c}"
            blocks.append(Details(anchor, f"{protocol_label(protocol)}{span}", (shown,)))
    return blocks


def behind(anchor: str, table: Table) -> Details:
    """A long table a click away."""
    return Details(anchor, f"{table.caption}, as a table", (table,))
