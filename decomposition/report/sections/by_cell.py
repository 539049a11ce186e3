"""One way for one cell and for many: tables with a row's cell in front, figures cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from decomposition.report.content import Block, Cell, Columns, Details, Figure, Table, behind
from decomposition.report.result import FEW, Result

Row = tuple[Cell, ...]


def table(
    result: Result,
    name: str,
    caption: str,
    columns: Iterable[str],
    rows: Callable[[Result], Iterable[Row]],
    shares: bool = False,
) -> list[Block]:
    """A table of every cell's rows: in view for one cell, a click away for many; none if empty.

    Args:
        result: of one cell or of many.
        name: of the table, and of its CSV.
        caption: above it.
        columns: of a row.
        rows: one cell → its rows.
        shares: whether intervals are shares, shown in per cent.
    """
    if not result.many:
        found = tuple(rows(result))
        return [Table(name, caption, tuple(columns), found, shares)] if found else []
    found = tuple((one.name, *row) for one in result.each() for row in rows(one))
    if not found:
        return []
    return [behind(f"{name}-all", Table(name, caption, ("cell", *columns), found, shares))]


def figures(
    result: Result, name: str, summary: str, draw: Callable[[Result, str], Figure | None]
) -> list[Block]:
    """A figure per cell: in view for few cells, of many the first ones a click away.

    Args:
        result: of one cell or of many.
        name: of the figure; that of a cell among many has the cell's number behind it.
        summary: what opens the figures of many cells.
        draw: (one cell, name) → its figure, or None where it has none.
    """
    if not result.many:
        figure = draw(result, name)
        return [] if figure is None else [figure]
    shown = [(one, draw(one, f"{name}-{one.cells[0]}")) for one in _first(result)]
    found = tuple(figure for _, figure in shown if figure is not None)
    if not found:
        return []
    if result.few:
        return [Columns(found)]
    drawn = f"{summary}: the first {len(found)} of {len(result.cells)} cells"
    return [Details(f"{name}-cells", drawn, (Columns(found),))]


def _first(result: Result) -> list[Result]:
    return [result.of(cell) for cell in result.cells[:FEW]]
