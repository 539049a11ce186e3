"""From the exact Hessian to K-FAC: the levels of every rung, and waterfalls along the chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.names import BASELINES, CHAIN, STEPS
from decomposition.report.content import (
    Block,
    Cell,
    Columns,
    Figure,
    Table,
    Text,
)
from decomposition.report.figures.bands import plot_levels
from decomposition.report.figures.waterfall import levels, plot_waterfall
from decomposition.report.layout import layout
from decomposition.report.names import (
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.wording import fixed, joined, plural

LINES_A_FIGURE = 96
"""More marks below each other than this make a figure that no screen holds."""


def level_blocks(result: Result) -> list[Block]:
    """Of many cells: the LDS of every rung, and its tables. That of one cell is in the answer."""
    level = result.known("/shares", "level")
    if level is None or not result.many:
        return []
    draw = partial(waterfall, result.protocols[0])
    each = figures(result, f"waterfall-{result.protocols[0]}", "Waterfalls", draw)
    return [
        Text(_spread_over(result, level)),
        *_in_bands(result, level),
        *(each if result.few else []),
        *level_tables(result),
    ]


def _spread_over(result: Result, level: xr.DataArray) -> str:
    """The cells' range of LDS at both ends of the chain, and how often K-FAC lies below."""
    protocol = result.protocols[0]
    here = level.sel(protocol=protocol, ci_bound="estimate")
    ends = [r for r in (CHAIN[0], CHAIN[-1]) if r in labels(level, "rung")]
    parts = [
        f"{rung_label(r)} {fixed(float(v.min()), 2)} to {fixed(float(v.max()), 2)}"
        for r in ends
        if (v := here.sel(rung=r)).notnull().any()
    ]
    text = f"LDS over {plural(len(result.cells), 'cell')}, {protocol_label(protocol)}: "
    text += joined(parts) or "not known for the chain"
    if len(parts) < 2:
        return f"{text}."
    below = int((here.sel(rung=ends[1]) < here.sel(rung=ends[0])).sum())
    return f"{text}; K-FAC lies below the Hessian in {below}."


def level_tables(result: Result) -> list[Block]:
    """LDS of every rung and where it is read, corrected for noise, and of each base model."""
    if result.known("/shares", "level") is None:
        return []
    return [*_tables(result), *_corrected(result), *_base_models(result)]


def waterfall(protocol: str, one: Result, name: str) -> Figure | None:
    """LDS along the chain under one protocol; None where no rung of it has an LDS."""
    rows = levels(one, protocol)
    if not set(rows) & set(CHAIN):
        return None
    parts = [
        f"{'noise ceiling' if n == 'ceiling' else rung_label(n)} {fixed(v.estimate)}"
        for n, v in rows.items()
    ]
    under = protocol_label(protocol)
    of = f" in {one.name}" if one.name else ""
    return Figure(
        name.replace("_", "-"),
        f"Waterfall of LDS under {under}{of}: {joined(parts)}.",
        f"LDS{of}: how well each rung's influence scores rank what happens to the queries when "
        f"models are retrained on subsets; 1 is perfect. Whiskers: {intervals(one)}.",
        partial(plot_waterfall, one.tree, protocol=protocol, cell=one.cell),
        Table(name, f"LDS along the chain, {under}", ("rung", "LDS"), tuple(rows.items())),
    )


def _in_bands(result: Result, level: xr.DataArray) -> list[Block]:
    said = "A band per cell, in it a mark per rung of the chain; the dashed line is the ceiling."
    left = [rung_label(r, 60) for r in result.rungs if r not in CHAIN]
    if left:
        said = f"{said} In the table alone: {joined(left)}."
    protocol = next(p for p in result.protocols if _known(level, p))
    draw = partial(_band_figure, result, level)
    return [*band_figures(result, protocol, len(CHAIN), draw), Text(said)]


def _known(array: xr.DataArray, protocol: str) -> bool:
    return protocol in labels(array, "protocol") and bool(
        np.isfinite(array.sel(protocol=protocol)).any()
    )


def _band_figure(
    result: Result, level: xr.DataArray, protocol: str, column: int, rows: list[int]
) -> Figure:
    shown = layout(result)
    cells = [shown.cells[r, column] for r in rows if (r, column) in shown.cells]
    parts = []
    for rung in (r for r in CHAIN if r in labels(level, "rung")):
        found = level.sel(cell=cells, protocol=protocol, rung=rung, ci_bound="estimate").values
        if np.isfinite(found).any():
            low, high = float(np.nanmin(found)), float(np.nanmax(found))
            parts.append(f"{rung_label(rung)} {fixed(low, 2)} to {fixed(high, 2)}")
    where = shown.columns[column] or "all cells"
    return Figure(
        f"levels-{protocol.replace('_', '-')}-{column}-{rows[0]}",
        f"LDS over {len(cells)} cells, {protocol_label(protocol)}, {where}: {joined(parts)}.",
        f"LDS of every rung, {protocol_label(protocol)}, {where}.",
        partial(plot_levels, result.tree, protocol=protocol, column=column, rows=rows, rungs=CHAIN),
    )


def band_figures(
    result: Result,
    protocol: str,
    lines: int,
    draw: Callable[[str, int, list[int]], Figure],
) -> list[Block]:
    """Every cell under one protocol; the tables hold the others.

    Args:
        result: of many cells.
        protocol: the one that is drawn.
        lines: marks below each other in a band.
        draw: (protocol, column, rows) → one figure.
    """
    return [*_columns(result, protocol, lines, draw)]


def _columns(
    result: Result, protocol: str, lines: int, draw: Callable[[str, int, list[int]], Figure]
) -> list[Columns]:
    """The figures of a protocol: a row of them per run of cells, or a single row of runs."""
    shown = layout(result)
    found = [
        tuple(draw(protocol, column, list(rows)) for column in range(len(shown.columns)))
        for rows in shown.chunks(max(LINES_A_FIGURE // max(lines, 1), 1))
    ]
    if len(shown.columns) == 1:
        return [Columns(tuple(figure for row in found for figure in row))]
    return [Columns(row) for row in found]


def _rows(array: xr.DataArray) -> list[str]:
    """The chain in order, then every other rung that has a known value."""
    rungs = labels(array, "rung")
    ordered = [r for r in CHAIN if r in rungs] + [r for r in rungs if r not in CHAIN]
    return [r for r in ordered if np.isfinite(array.sel(rung=r).values).any()]


def _tables(result: Result) -> list[Block]:
    names = [protocol_label(protocol) for protocol in result.protocols]
    blocks = table(result, "levels", "LDS of each rung", ("rung", "reached by", *names), _levels)
    if result.array("/shares", "level_damping") is not None:
        caption = "λ at which the LDS of each rung is read"
        blocks += table(result, "level-damping", caption, ("rung", *names), _dampings)
    return blocks


def _levels(one: Result) -> Iterator[Row]:
    level, ceiling = one.array("/shares", "level"), one.array("/attribution", "ceiling")
    assert level is not None
    if ceiling is not None:
        yield ("noise ceiling", "–", *(interval(ceiling) for _ in one.protocols))
    for rung in _rows(level):
        cells = (interval(level, protocol=p, rung=rung) for p in one.protocols)
        yield (rung_label(rung, 120), _reached_by(rung), *cells)


def _dampings(one: Result) -> Iterator[Row]:
    level, damping = one.array("/shares", "level"), one.array("/shares", "level_damping")
    assert level is not None
    assert damping is not None
    for rung in _rows(level):
        cells: list[Cell] = [float(damping.sel(protocol=p, rung=rung)) for p in one.protocols]
        yield (rung_label(rung, 120), *(["any"] * len(cells) if rung in BASELINES else cells))


def _reached_by(rung: str) -> str:
    if rung == CHAIN[0]:
        return "reference"
    if rung not in CHAIN:
        return "beside the chain"
    return step_label(STEPS[CHAIN.index(rung) - 1])


def _corrected(result: Result) -> list[Block]:
    corrected = result.known("/shares", "corrected")
    if corrected is None:
        return []
    text = (
        "The LDS over the noise ceiling is what a rung would reach against truth without training "
        "noise; the ceiling's own uncertainty is in its intervals. Drops and shares are of the "
        "raw LDS."
    )
    columns = ("rung", *(protocol_label(p) for p in result.protocols))

    def rows(one: Result) -> Iterator[Row]:
        array = one.array("/shares", "corrected")
        assert array is not None
        for rung in _rows(array):
            cells = (interval(array, protocol=p, rung=rung) for p in one.protocols)
            yield (rung_label(rung, 120), *cells)

    caption = "LDS corrected for attenuation: LDS / ceiling"
    return [Text(text), *table(result, "corrected", caption, columns, rows)]


def _base_models(result: Result) -> list[Block]:
    level = result.array("/base_models", "level")
    if level is None:
        return []
    models = level["base_model"].values.tolist()

    def rows(one: Result) -> Iterator[Row]:
        for protocol in labels(level, "protocol"):
            here = level.sel(protocol=protocol)
            for rung in _rows(here):
                values = (float(here.sel(base_model=m, rung=rung)) for m in models)
                yield (rung_label(rung, 120), protocol_label(protocol), *values)

    text = (
        f"{len(models)} base models were decomposed, each trained and retrained on its own; the "
        "levels and shares are over all of them, and their intervals include the difference "
        "between base models. With so few of them that part is known poorly, which widens the "
        "intervals."
    )
    columns = ("rung", "damping", *(f"base model {m}" for m in models))
    caption = "LDS of each base model alone (estimates; no interval of its own)"
    return [Text(text, kind="note"), *table(result, "base-models", caption, columns, rows)]
