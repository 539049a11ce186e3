"""Section 6: what each choice of the paper's protocol costs, changed one at a time."""

from __future__ import annotations

from functools import partial

import numpy as np

from decomposition.report.content import Cell, Figure, Table, Text, missing
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.content import Columns, Details, StudyBlock, StudySection
from decomposition.report.grid.figures.ladder import ladder_step_label, ladders, plot_ladder
from decomposition.report.grid.sections.bands import behind
from decomposition.report.palette import rung_label
from decomposition.report.study import Interval, interval, intervals, labels
from decomposition.report.wording import joined, percent, plural, span

TITLE = "From the controlled protocol to the paper's"
DRAWN = 16
"""Figures at most; the table holds every cell and protocol."""


def ladder(grid: Grid) -> StudySection:
    """A waterfall per cell and protocol, and the table of drops and shares."""
    found, drop = ladders(grid), grid.array("/ladder", "drop")
    if not found or drop is None:
        what = "The study does not lead from one protocol to the other, as paper_protocol does."
        return StudySection("ladder", TITLE, (missing(what),))
    protocols = [p for p in labels(drop, "protocol") if np.isfinite(drop.sel(protocol=p)).any()]
    cells = [int(c) for c in drop["cell"].values]
    text = (
        "Each bar is one change, with the ones above it in place; the line on it is its "
        f"{intervals(grid)[:-1]}. To the left is a loss of LDS."
    )
    blocks: list[StudyBlock] = [Text(text)]
    # a tree may hold a ladder without a cell
    if not cells:
        return StudySection("ladder", TITLE, (missing("The ladder was scored in no cell."),))
    shown_protocols = protocols if len(cells) * len(protocols) <= DRAWN else protocols[:1]
    first, *others = [
        tuple(_figure(grid, protocol, cell) for protocol in shown_protocols)
        for cell in cells[:DRAWN]
    ]
    blocks.append(Columns(first))
    if others:
        rest = Columns(tuple(figure for figures in others for figure in figures))
        blocks.append(Details("ladder-others", plural(len(others), "further cell"), (rest,)))
    if len(shown_protocols) < len(protocols) or len(cells) > DRAWN:
        drawn = f"{plural(min(len(cells), DRAWN), 'cell')} under {protocol_label(protocols[0])}"
        blocks.append(Text(f"Drawn: {drawn}. The table holds every cell and protocol."))
    blocks.append(behind("ladder-all", _table(grid, cells, protocols)))
    return StudySection("ladder", TITLE, tuple(blocks))


def _figure(grid: Grid, protocol: str, cell: int) -> Figure:
    drop = grid.array("/ladder", "drop")
    assert drop is not None
    parts = []
    for rung, steps in ladders(grid).items():
        for step in steps:
            change = interval(drop, cell=cell, protocol=protocol, ladder_step=step)
            parts.append(f"{rung_label(rung)}, {ladder_step_label(step)}: {span(_minus(change))}")
    label, name = protocol_label(protocol), grid.names.get(cell, f"cell {cell}")
    return Figure(
        f"ladder-{protocol.replace('_', '-')}-{cell}",
        f"Change of the LDS in {name}, {label}: {joined(parts)}.",
        f"{name}, {label}.",
        partial(plot_ladder, grid.tree, protocol=protocol, cell=cell),
    )


def _minus(change: Interval) -> Interval:
    return Interval(-change.upper, -change.estimate, -change.lower)


def _table(grid: Grid, cells: list[int], protocols: list[str]) -> Table:
    drop, share = grid.array("/ladder", "drop"), grid.array("/ladder", "share")
    assert drop is not None
    rows: list[tuple[Cell, ...]] = []
    for cell in cells:
        for rung, steps in ladders(grid).items():
            for step in steps:
                row: list[Cell] = [
                    grid.names.get(cell, f"cell {cell}"), rung_label(rung), ladder_step_label(step)
                ]  # fmt: skip
                for protocol in protocols:
                    place = {"cell": cell, "protocol": protocol, "ladder_step": step}
                    row.append(interval(drop, **place))
                    part = interval(share, **place) if share is not None else None
                    row.append(percent(part) if part and part.known else "undefined")
                rows.append(tuple(row))
    heads = (f"{what}, {protocol_label(p)}" for p in protocols for what in ("drop", "share"))
    return Table("ladder", "Drop of each change", ("cell", "rung", "change", *heads), tuple(rows))
