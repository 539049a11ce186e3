"""Section 4: whose error it is by the matrices, beside whose loss it is by the LDS."""

from __future__ import annotations

from functools import partial

import numpy as np

from decomposition.report.content import Cell, Figure, Table, Text, missing
from decomposition.report.grid.cells import Grid, protocol_label, step_label
from decomposition.report.grid.content import Columns, StudyBlock, StudySection
from decomposition.report.grid.figures.frobenius import frobenius_shares, plot_frobenius
from decomposition.report.grid.sections.bands import behind
from decomposition.report.interval import Interval
from decomposition.report.study import interval, labels
from decomposition.report.wording import joined
from decomposition.results.schema import CROSS_TERM

TITLE = "Error of the matrix beside loss of LDS"


def frobenius(grid: Grid) -> StudySection:
    """A figure per protocol, and both kinds of share in one table."""
    found = frobenius_shares(grid)
    if not found:
        what = "The study holds no division of the squared Frobenius error."
        return StudySection("frobenius", TITLE, (missing(what),))
    steps = list(dict.fromkeys(step for _, step in found))
    blocks: list[StudyBlock] = [Text(_sentence(found, steps))]
    share = grid.of_cells("share")
    if share is None:
        blocks.append(missing("No share of the LDS is defined, so there is nothing to set beside."))
    else:
        known = [p for p in labels(share, "protocol") if np.isfinite(share.sel(protocol=p)).any()]
        blocks.append(Columns(tuple(_figure(grid, p, found) for p in known)))
    blocks.append(behind("frobenius-all", _table(grid, found, steps)))
    return StudySection("frobenius", TITLE, tuple(blocks))


def _sentence(found: dict[tuple[int, str], float], steps: list[str]) -> str:
    parts = []
    for step in steps:
        values = [v for (_, s), v in found.items() if s == step and np.isfinite(v)]
        if values:
            parts.append(f"{step_label(step)} {100 * float(np.median(values)):.0f}%")
    cross = (
        " The cross term 2⟨H−G, G−K⟩ belongs to no step and is shown apart."
        if CROSS_TERM in steps
        else ""
    )
    return (
        f"Median share of ‖H − K‖² over the cells: {joined(parts)}.{cross} On the dashed diagonal "
        "a step would cost as much LDS as it costs error; below it the error overstates the loss."
    )


def _figure(grid: Grid, protocol: str, found: dict[tuple[int, str], float]) -> Figure:
    share = grid.data["share"].sel(protocol=protocol, ci_bound="estimate")
    parts = []
    for step in grid.steps:
        lds = share.sel(step=step).values
        error = [found.get((c, step), np.nan) for c in grid.cells]
        if np.isfinite(lds).any() and np.isfinite(error).any():
            by = f"{100 * np.nanmedian(error):.0f}% of the error, {100 * np.nanmedian(lds):.0f}%"
            parts.append(f"{step_label(step)} {by} of the LDS")
    label = protocol_label(protocol)
    return Figure(
        f"frobenius-{protocol.replace('_', '-')}",
        f"Median shares, {label}: {joined(parts)}.",
        f"Share of the LDS lost against share of the squared error, {label}.",
        partial(plot_frobenius, grid.tree, protocol=protocol),
    )


def _table(grid: Grid, found: dict[tuple[int, str], float], steps: list[str]) -> Table:
    share = grid.of_cells("share")
    rows: list[tuple[Cell, ...]] = []
    for cell in grid.cells:
        for step in steps:
            exact = found[cell, step]
            row: list[Cell] = [grid.names[cell], step_label(step), Interval(exact, exact, exact)]
            for protocol in grid.protocols:
                if share is None or step not in grid.steps:
                    row.append(None)
                    continue
                value = interval(share, cell=cell, protocol=protocol, step=step)
                row.append(value if value.known else "undefined")
            rows.append(tuple(row))
    heads = (f"share of LDS, {protocol_label(p)}" for p in grid.protocols)
    columns = ("cell", "step", "share of ‖H − K‖²", *heads)
    return Table("frobenius", "Shares of error and of LDS", columns, tuple(rows), shares=True)
