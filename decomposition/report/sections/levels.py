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
    Details,
    Figure,
    Items,
    Table,
    Text,
    missing,
)
from decomposition.report.figures.bands import plot_levels
from decomposition.report.figures.waterfall import levels, plot_spectral_waterfall, plot_waterfall
from decomposition.report.layout import layout
from decomposition.report.names import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_MEANINGS,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.wording import fixed, joined, number, span

LINES_A_FIGURE = 96
"""More marks below each other than this make a figure that no screen holds."""

_STEPS_IN_WORDS = tuple(f"{step_label(s)}: {STEP_MEANINGS[s]}" for s in STEPS)
_ESTIMATED = "Steps with whiskers are estimated with random probes; the others are exact."


def level_blocks(result: Result) -> list[Block]:
    """LDS from the noise ceiling down to K-FAC, and the squared spectral error up to it."""
    blocks: list[Block] = [
        Text(
            "From top to bottom each rung is one step cheaper than the one above it; the number in "
            "brackets is the change. The first gap, from the noise ceiling to the exact Hessian, "
            "is what influence functions lose with the exact curvature: it is no step of the "
            "approximation and no part of the shares."
        ),
        Details("step-words", "What each step does", (Items(_STEPS_IN_WORDS),)),
    ]
    level = result.known("/shares", "level")
    if level is None:
        blocks.append(missing("LDS along the chain was not measured: no waterfall can be drawn."))
    else:
        if result.many:
            blocks += _in_bands(result, level)
    drop = result.array("/shares", "drop")
    for metric in ("frobenius_squared", "damped_inverse_squared"):
        if drop is None or not result.few or metric not in labels(drop, "metric"):
            continue
        if drop.sel(metric=metric).notnull().any():
            name = f"spectral-{metric.replace('_', '-')}"
            blocks += figures(result, name, "Squared errors", partial(_spectral, metric))
    if level is not None and result.few:
        # the leading one of a single cell stands beside the answer
        for protocol in result.protocols[0 if result.many else 1 :]:
            draw = partial(waterfall, protocol)
            blocks += figures(result, f"waterfall-{protocol}", "Waterfalls", draw)
    if level is not None:
        blocks += [*_tables(result), *_corrected(result), *_base_models(result)]
    return blocks


def waterfall(protocol: str, one: Result, name: str) -> Figure | None:
    """LDS along the chain under one protocol; None where no rung of it has an LDS."""
    rows = levels(one, protocol)
    if not set(rows) & set(CHAIN):
        return None
    parts = [
        f"{'noise ceiling' if n == 'ceiling' else rung_label(n)} {fixed(v.estimate)}"
        for n, v in rows.items()
    ]
    under = PROTOCOLS.get(protocol, protocol)
    of = f" in {one.name}" if one.name else ""
    return Figure(
        name.replace("_", "-"),
        f"Waterfall of LDS under {under}{of}: {joined(parts)}.",
        f"LDS along the chain under {under}{of}. Bars are the steps, whiskers {intervals(one)}.",
        partial(plot_waterfall, one.tree, protocol=protocol, cell=one.cell),
        Table(name, f"LDS along the chain, {under}", ("rung", "LDS"), tuple(rows.items())),
    )


def _spectral(metric: str, one: Result, name: str) -> Figure | None:
    drop = one.array("/shares", "drop")
    if drop is None or not one.protocols:
        return None
    protocol = one.protocols[0]
    values = {
        s: interval(drop, metric=metric, protocol=protocol, step=s) for s in labels(drop, "step")
    }
    values = {s: v for s, v in values.items() if v.known}
    if not values:
        return None
    parts = [f"{step_label(s)} {number(v.estimate)}" for s, v in values.items()]
    title = SHARE_METRICS[metric]
    of = f" in {one.name}" if one.name else ""
    exact = all(value.exact for value in values.values())
    how = "Exact: no sampling, so no intervals." if exact else _ESTIMATED
    return Figure(
        name,
        f"Waterfall of the {title} of K-FAC against the Hessian{of}: {joined(parts)}.",
        f"The {title} added by each step{of}. {how}",
        partial(plot_spectral_waterfall, one.tree, metric=metric, protocol=protocol, cell=one.cell),
        Table(
            name,
            f"{title} by step",
            ("step", "drop"),
            tuple((s, v.estimate if exact else v) for s, v in values.items()),
        ),
    )


def _in_bands(result: Result, level: xr.DataArray) -> list[Block]:
    text = (
        f"A band per cell, in it a mark per rung with its {intervals(result)[:-1]}. "
        "The dashed line is the noise ceiling."
    )
    left = [rung_label(r, 60) for r in result.rungs if r not in result.drawn]
    if left:
        text = f"{text} In the table alone: {joined(left)}."
    protocols = [p for p in result.protocols if _known(level, p)]
    draw = partial(_band_figure, result, level)
    return [Text(text), *band_figures(result, "levels", protocols, len(result.drawn), draw)]


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
    for rung in (r for r in result.drawn if r in labels(level, "rung")):
        found = level.sel(cell=cells, protocol=protocol, rung=rung, ci_bound="estimate").values
        if np.isfinite(found).any():
            low, high = float(np.nanmin(found)), float(np.nanmax(found))
            parts.append(f"{rung_label(rung)} {fixed(low, 2)} to {fixed(high, 2)}")
    where = shown.columns[column] or "all cells"
    return Figure(
        f"levels-{protocol.replace('_', '-')}-{column}-{rows[0]}",
        f"LDS over {len(cells)} cells, {protocol_label(protocol)}, {where}: {joined(parts)}.",
        f"LDS of every rung, {protocol_label(protocol)}, {where}.",
        partial(plot_levels, result.tree, protocol=protocol, column=column, rows=rows),
    )


def band_figures(
    result: Result,
    what: str,
    protocols: list[str],
    lines: int,
    draw: Callable[[str, int, list[int]], Figure],
) -> list[Block]:
    """Every cell under the first protocol, and under the others where they are not too many.

    Args:
        result: of many cells.
        what: the name of it all in anchors, such as ``levels``.
        protocols: those that have something to show.
        lines: marks below each other in a band.
        draw: (protocol, column, rows) → one figure.
    """
    blocks: list[Block] = []
    for protocol in protocols if result.small else protocols[:1]:
        first, *others = _columns(result, protocol, lines, draw)
        anchor = f"{what}-{protocol.replace('_', '-')}"
        if protocol != protocols[0]:
            blocks.append(Details(anchor, protocol_label(protocol), (first, *others)))
            continue
        blocks.append(first)
        if others:
            summary = f"{protocol_label(protocol)}, further cells"
            blocks.append(Details(anchor, summary, tuple(others)))
    if not result.small and len(protocols) > 1:
        names = joined([protocol_label(protocol) for protocol in protocols[1:]])
        text = f"Of so many cells only {protocol_label(protocols[0])} is drawn; the table holds"
        blocks.append(Text(f"{text} {names} too."))
    return blocks


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
    names = [PROTOCOLS.get(protocol, protocol) for protocol in result.protocols]
    blocks = table(result, "levels", "LDS of each rung", ("rung", "reached by", *names), _levels)
    if result.array("/shares", "level_damping") is not None:
        caption = "λ at which the LDS of each rung is read"
        blocks += table(result, "level-damping", caption, ("rung", *names), _dampings)
    return blocks


def _levels(one: Result) -> Iterator[Row]:
    level, ceiling = one.array("/shares", "level"), one.array("/attribution", "ceiling")
    assert level is not None
    if one.name and ceiling is not None:
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
    ceiling = result.array("/attribution", "ceiling")
    by = f" ({span(interval(ceiling))})" if ceiling is not None and not result.many else ""
    text = (
        f"The LDS over the noise ceiling{by} is what a rung would reach against truth without "
        "training noise. The ceiling's own uncertainty is part of these intervals. Drops "
        "and shares are taken from the raw LDS."
    )
    columns = ("rung", *(PROTOCOLS.get(p, p) for p in result.protocols))

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
                yield (rung_label(rung, 120), PROTOCOLS.get(protocol, protocol), *values)

    text = (
        f"{len(models)} base models were decomposed, each trained and retrained on its own; the "
        "levels and shares are over all of them, and their intervals include the difference "
        "between base models. With so few of them that part is known poorly, which widens the "
        "intervals."
    )
    columns = ("rung", "damping", *(f"base model {m}" for m in models))
    caption = "LDS of each base model alone (estimates; no interval of its own)"
    return [Text(text), *table(result, "base-models", caption, columns, rows)]
