"""Section 5: how levels and drops change with what the study varies."""

from __future__ import annotations

from functools import partial

import numpy as np

from decomposition.report.content import Cell, Figure, Table, Text, missing
from decomposition.report.grid.cells import Grid, protocol_label
from decomposition.report.grid.content import Columns, StudyBlock, StudySection
from decomposition.report.grid.figures.factor import (
    factor_curves,
    factor_label,
    means_of,
    plot_factor,
)
from decomposition.report.grid.figures.trends import Trend, plot_trends
from decomposition.report.grid.figures.trends import trends as found_trends
from decomposition.report.grid.sections.bands import behind
from decomposition.report.palette import rung_label
from decomposition.report.study import Interval, intervals
from decomposition.report.wording import fixed, joined, span

TITLE = "Trends"


def trends(grid: Grid) -> StudySection:
    """The levels against the factor, the slopes with their intervals, and the table."""
    curves = [p for p in grid.protocols if factor_curves(grid, p)]
    blocks: list[StudyBlock] = []
    if curves:
        blocks.append(Columns(tuple(_curve(grid, protocol) for protocol in curves)))
    found = found_trends(grid)
    if not found:
        blocks.append(missing("The study holds no slopes: too few values of anything vary in it."))
        return StudySection("trends", TITLE, tuple(blocks))
    clear = _clear(found)
    told = " ".join(clear) if clear else "No slope is clear of zero under every protocol."
    blocks.append(Text(f"Slopes over the cells with {intervals(grid)}; zero is no trend. {told}"))
    order = list(dict.fromkeys(t.kind for t in found))
    kinds = dict.fromkeys((t.kind, t.factor) for t in found)
    shown = sorted(kinds, key=lambda kind: order.index(kind[0]))
    blocks.append(Columns(tuple(_figure(grid, found, *kind) for kind in shown)))
    blocks.append(behind("trends-all", _table(found)))
    return StudySection("trends", TITLE, tuple(blocks))


def _clear(found: list[Trend]) -> list[str]:
    """A sentence per factor, kind and direction of the slopes clear of zero in every protocol."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for trend in found:
        slopes = [s for s in trend.slopes.values() if s.known]
        for way, clear in (
            ("falls", all(s.upper < 0 for s in slopes)),
            ("rises", all(s.lower > 0 for s in slopes)),
        ):
            if slopes and clear:
                groups.setdefault((trend.factor, trend.kind, way), []).append(trend.label)
    return [
        f"With {factor_label(factor)} the {kind} of {joined(names)} {way} under every protocol."
        for (factor, kind, way), names in groups.items()
    ]


def _curve(grid: Grid, protocol: str) -> Figure:
    parts = []
    for rung, curve in factor_curves(grid, protocol).items():
        means = means_of(curve)
        ends = (fixed(mean, 2) for _, mean in (means[0], means[-1]))
        parts.append(f"{rung_label(rung)} from {' to '.join(ends)}")
    label, name = protocol_label(protocol), factor_label(grid.factor)
    return Figure(
        f"factor-{protocol.replace('_', '-')}",
        f"Mean LDS from the smallest to the largest {name}, {label}: {joined(parts)}.",
        f"LDS against {name}, {label}; lines join the means of the cells.",
        partial(plot_factor, grid.tree, protocol=protocol),
    )


def _figure(grid: Grid, found: list[Trend], kind: str, factor: str) -> Figure:
    here = [t for t in found if (t.kind, t.factor) == (kind, factor)]
    parts = []
    for trend in here:
        first: Interval = next(iter(trend.slopes.values()))
        parts.append(f"{trend.label} {span(first)}")
    first_protocol = protocol_label(next(iter(here[0].slopes)))
    return Figure(
        f"trend-{kind}-{factor.replace('_', '-')}",
        f"Slopes of the {kind} by {factor}, {first_protocol}: {joined(parts)}.",
        f"Slope of the {kind} of each, {here[0].unit}.",
        partial(plot_trends, grid.tree, kind=kind, factor=factor),
    )


def _table(found: list[Trend]) -> Table:
    protocols = list(found[0].slopes)
    rows: list[tuple[Cell, ...]] = []
    for trend in found:
        row: list[Cell] = [trend.quantity, trend.unit]
        for protocol in protocols:
            p = trend.p_values[protocol]
            row += [trend.slopes[protocol], p if np.isfinite(p) else None]
        rows.append(tuple(row))
    heads = (f"{what}, {protocol_label(p)}" for p in protocols for what in ("slope", "p"))
    return Table("trends", "Slopes with intervals", ("quantity", "unit", *heads), tuple(rows))
