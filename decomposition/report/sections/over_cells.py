"""What only many cells can show: trends with what varies; and the paper's protocol, the cells."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.report.content import (
    Block,
    Cell,
    Columns,
    Details,
    Figure,
    Table,
    Text,
    missing,
)
from decomposition.report.figures.curves import (
    factor_curves,
    factor_label,
    means_of,
    plot_factor,
)
from decomposition.report.figures.trends import Trend, plot_trends, trends
from decomposition.report.figures.waterfall import ladder_step_label, ladders, plot_ladder
from decomposition.report.interval import Interval
from decomposition.report.layout import architecture
from decomposition.report.names import protocol_label, rung_label
from decomposition.report.result import Result, interval, intervals, labels, plain
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.wording import fixed, joined, span

COORDINATES = {
    "dataset": "data",
    "hidden": "hidden widths",
    "activation": "activation",
    "epoch": "epoch",
    "momentum": "momentum",
    "parameters": "parameters P",
    "examples": "examples",
    "examples_used": "examples used N",
    "queries": "queries",
    "label_noise": "label noise",
    "alpha": "α",
    "randomness": "training randomness",
    "target": "target",
    "inversion": "inversion",
    "seed": "seed",
}
VALUES = {
    "train_loss": "training loss",
    "query_loss": "query loss",
    "query_accuracy": "query accuracy",
}
TRUTH = {"ceiling": "noise ceiling", "reliability": "reliability"}


def trend_blocks(result: Result) -> list[Block]:
    """The levels against the factor, the slopes with their intervals, and the table."""
    curves = [p for p in result.protocols if factor_curves(result, p)] if result.many else []
    drawn: list[Block] = [Columns((_curve(result, protocol),)) for protocol in curves]
    found = trends(result)
    if not found:
        slopes = missing("There are no slopes: too few values of anything vary between the cells.")
        return [slopes, *drawn] if result.many else []
    clear = _clear(found)
    told = " ".join(clear) if clear else "No slope is clear of zero under every protocol."
    kinds = dict.fromkeys(t.kind for t in found)
    for kind in kinds:
        factors = dict.fromkeys(t.factor for t in found if t.kind == kind)
        drawn.append(Columns(tuple(_figure(result, found, kind, f) for f in factors)))
    how = f"Slopes over the cells with {intervals(result)}; zero is no trend."
    return [Text(told), *drawn, Text(how), *_tables(found)]


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


def _curve(result: Result, protocol: str) -> Figure:
    parts = []
    for rung, curve in factor_curves(result, protocol).items():
        means = means_of(curve)
        ends = (fixed(mean, 2) for _, mean in (means[0], means[-1]))
        parts.append(f"{rung_label(rung)} from {' to '.join(ends)}")
    label, name = protocol_label(protocol), factor_label(result.factor)
    return Figure(
        f"factor-{protocol.replace('_', '-')}",
        f"Mean LDS from the smallest to the largest {name}, {label}: {joined(parts)}.",
        f"LDS against {name}, {label}; lines join the means of the cells.",
        partial(plot_factor, result.tree, protocol=protocol),
    )


def _figure(result: Result, found: list[Trend], kind: str, factor: str) -> Figure:
    here = [t for t in found if (t.kind, t.factor) == (kind, factor)]
    parts = [f"{t.label} {span(next(iter(t.slopes.values())))}" for t in here]
    first = protocol_label(next(iter(here[0].slopes)))
    return Figure(
        f"trend-{kind}-{factor.replace('_', '-')}",
        f"Slopes of the {kind} by {factor}, {first}: {joined(parts)}.",
        f"Slope of the {kind} of each, {here[0].unit}.",
        partial(plot_trends, result.tree, kind=kind, factor=factor),
    )


def _tables(found: list[Trend]) -> list[Block]:
    """Slopes, then the p-values of no trend: a row per quantity, a column per protocol."""
    protocols = list(found[0].slopes)
    heads = [protocol_label(p) for p in protocols]
    slopes = tuple((t.quantity, t.unit, *(t.slopes[p] for p in protocols)) for t in found)
    chances = tuple(
        (t.quantity, *(p if np.isfinite(p) else None for p in t.p_values.values())) for t in found
    )
    return [
        Table("trends", "Slopes with intervals", ("quantity", "unit", *heads), slopes),
        Table("trend-p-values", "p-values of no trend", ("quantity", *heads), chances),
    ]


def ladder_blocks(result: Result) -> list[Block]:
    """Of every change on the way to the paper's protocol what it costs, over the cells."""
    drop = result.known("/protocol_ladder", "drop")
    if drop is None or not ladders(result):
        return []
    protocols = [p for p in labels(drop, "protocol") if np.isfinite(drop.sel(protocol=p)).any()]
    blocks: list[Block] = [Text(_ladder_finding(result, drop, protocols[0]))]
    summary = f"Ladders, {protocol_label(protocols[0])}"
    name = f"ladder-{protocols[0].replace('_', '-')}"
    blocks += figures(result, name, summary, partial(_ladder, protocols[0]))
    columns = ("rung", "change", *map(protocol_label, protocols))
    for what, caption in (("drop", "Drop of each change"), ("share", "Share of each change")):
        rows = partial(_changes, what, protocols)
        blocks += table(result, f"ladder-{what}", caption, columns, rows, shares=what == "share")
    return blocks


def _ladder_finding(result: Result, drop: xr.DataArray, protocol: str) -> str:
    """The change that takes most LDS in the median over the cells."""
    middle = drop.sel(protocol=protocol, ci_bound="estimate")
    if "cell" in middle.dims:
        middle = middle.median("cell")
    steps = [s for s in labels(drop, "ladder_step") if np.isfinite(middle.sel(ladder_step=s))]
    if not steps:
        return "What each change on the way to the paper's protocol costs is not known."
    top = max(steps, key=lambda s: float(middle.sel(ladder_step=s)))
    of = {step: rung for rung, steps in ladders(result).items() for step in steps}
    return (
        f"The change that costs most LDS ({protocol_label(protocol)}, median over the cells): "
        f"{ladder_step_label(top)} in {rung_label(of[top])}, "
        f"{fixed(float(middle.sel(ladder_step=top)))}. Each change is made with those before it in "
        "place."
    )


def _ladder(protocol: str, one: Result, name: str) -> Figure | None:
    drop = one.array("/protocol_ladder", "drop")
    if drop is None:
        return None
    parts = []
    for rung, steps in ladders(one).items():
        for step in steps:
            change = interval(drop, protocol=protocol, ladder_step=step)
            turned = Interval(-change.upper, -change.estimate, -change.lower)
            parts.append(f"{rung_label(rung)}, {ladder_step_label(step)}: {span(turned)}")
    label, of = protocol_label(protocol), f" in {one.name}" if one.name else ""
    return Figure(
        name,
        f"Change of the LDS{of}, {label}: {joined(parts)}.",
        f"Change of the LDS{of}, {label}.",
        partial(plot_ladder, one.tree, protocol=protocol, cell=one.cell),
    )


def _changes(what: str, protocols: list[str], one: Result) -> Iterator[Row]:
    array = one.array("/protocol_ladder", what)
    if array is None:
        return
    for rung, steps in ladders(one).items():
        for step in steps:
            cells = [interval(array, protocol=p, ladder_step=step) for p in protocols]
            told = [c if c.known else "undefined" for c in cells]
            yield (rung_label(rung), ladder_step_label(step), *told)


def cell_blocks(result: Result) -> list[Block]:
    """One row per cell; what is the same in all of them is said once."""
    named = {n: found for n in COORDINATES if (found := result.coordinate(n))}
    if not result.many:
        return []
    varying = {n: found for n, found in named.items() if len(set(map(str, found.values()))) > 1}
    values = {n: found for n in VALUES if (found := result.coordinate(n))}
    truth = {n: array for n in TRUTH if (array := result.known("/attribution", n)) is not None}
    rows: list[tuple[Cell, ...]] = []
    for cell in result.cells:
        row: list[Cell] = [result.names[cell]]
        row += [_coordinate(name, found[cell]) for name, found in varying.items()]
        row += [_known(found[cell]) for found in values.values()]
        row += [interval(array, cell=cell) for array in truth.values()]
        rows.append(tuple(row))
    heads = [*(COORDINATES[n] for n in varying), *(VALUES[n] for n in values)]
    heads += [TRUTH[n] for n in truth]
    found = Table("cells", "Every cell", ("cell", *heads), tuple(rows))
    same = [
        f"{COORDINATES[name]}: {plain(_coordinate(name, values[result.cells[0]]))}"
        for name, values in named.items()
        if name not in varying
    ]
    said = f"The same in every cell: {'; '.join(same)}." if same else "One row a cell."
    return [Text(said), Details("every-cell", "Every cell", (found,))]


def _coordinate(name: str, value: object) -> Cell:
    if name == "examples" and value == 0:
        return "all"
    if name == "hidden":
        return architecture(value) or "its own"
    return value if isinstance(value, int | float) else str(value) or "its own"


def _known(value: object) -> Cell:
    return value if isinstance(value, int | float) and np.isfinite(value) else None
