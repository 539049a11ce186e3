"""Shares of the steps: under every protocol and metric, along every order, and of the damping."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.names import CROSS_TERM, STEPS
from decomposition.report.content import Block, Cell, Columns, Figure, Table, Text, missing
from decomposition.report.figures.bands import plot_at_damping, plot_orders, plot_shares
from decomposition.report.interval import Interval
from decomposition.report.layout import layout
from decomposition.report.names import (
    SHARE_METRICS,
    STEP_LABELS,
    STEP_MEANINGS,
    WITHOUT_DAMPING,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.orders import MEAN, Reading, order_names, readings, survival
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.sections.levels import band_figures, level_tables, waterfall
from decomposition.report.verdict import Blame, blame
from decomposition.report.wording import fixed, joined, percent, span


def share_blocks(result: Result) -> list[Block]:
    """Shares by protocol and order, with every level, drop and share behind them."""
    if result.many:
        return [
            *_in_bands(result),
            *figures(result, "orders", "Every protocol and order", _glance),
            *figures(result, "at-damping", "The steps at every damping", at_damping),
            Text(_MEANING),
            *step_tables(result, "lds"),
            *_interactions_table(result),
            *_mismatch(result),
        ]
    glance = _glance(result, "orders")
    found = [b for p in result.protocols if (b := blame(result, "lds", p)) and b.known]
    if glance is None and not found:
        return []
    shares = [_figure(result, found)] if found else []
    others = [waterfall(p, result, f"waterfall-{p}") for p in result.protocols[1:]]
    return [
        Text(survival(result) or "Shares along several orders of the steps are not here."),
        *([glance] if glance is not None else shares),
        *_undefined(result),
        Text(_MEANING),
        *level_tables(result),
        *step_tables(result, "lds"),
        *(shares if glance is not None else []),
        Columns(tuple(figure for figure in others if figure is not None)),
        *_at_every_damping(result),
        *_interactions_table(result),
        *_mismatch(result),
    ]


_MEANING = (
    "A share is a step's drop divided by the total drop; a negative one is a step that helps, "
    "shown and not clipped. Where the total is within noise shares are undefined. The chain's own "
    f"order is order 1: {', '.join(f'{STEP_LABELS[s]} ({STEP_MEANINGS[s]})' for s in STEPS)}."
)


def _undefined(one: Result) -> list[Block]:
    """A note for protocols under which there is nothing to divide."""
    found = [blame(one, "lds", p) for p in one.protocols]
    totals = {b.protocol: b.total for b in found if b is not None and b.known and not b.defined}
    if not totals:
        return []
    parts = [f"{protocol_label(p)} ({span(total)})" for p, total in totals.items()]
    said = f"Shares of the LDS are undefined, as the total is within noise, under {joined(parts)}."
    return [Text(said, kind="note")]


def _glance(one: Result, name: str) -> Figure | None:
    """One picture of every protocol and order of the LDS shares; none where there is no order."""
    found = readings(one)
    if not found:
        return None
    rows: list[tuple[Cell, ...]] = [
        (r.protocol, r.order, step, drop, r.shares.get(step) if r.defined else None)
        for r in found
        for step, drop in r.drops.items()
    ]
    return Figure(
        name,
        f"Shares of the LDS under every damping protocol and order. {survival(one)}",
        "Share of the loss along the chain, beneath it the range over the orders of the steps; "
        "colour: the drop. Outlined: the largest along every order; dashed: along the chain alone.",
        partial(plot_orders, one.tree, cell=one.cell),
        Table(
            f"{name}-data",
            "Every protocol and order",
            ("protocol", "order", "step", "drop", "share"),
            tuple(rows),
        ),
    )


def _figure(result: Result, found: list[Blame]) -> Figure:
    parts = []
    for b in found:
        name = protocol_label(b.protocol)
        if not b.defined:
            parts.append(f"undefined under {name}")
        elif b.largest is None:
            parts.append(f"no step resolved as the largest under {name}")
        else:
            step = f"{STEP_LABELS[b.largest]} ({percent(b.shares[b.largest])})"
            parts.append(f"the largest under {name} is {step}")
    rows = tuple(
        (b.protocol, step, b.shares[step] if b.defined else None)
        for b in found
        for step in b.shares
    )
    return Figure(
        "shares-lds",
        f"Shares of the LDS with their intervals: {joined(parts)}.",
        f"A band per damping protocol; lines are {intervals(result)}; a hollow mark is the share "
        "whatever the order of the steps.",
        partial(plot_shares, result.tree),
        Table("shares-lds", "Shares of the LDS", ("protocol", "step", "share"), rows),
    )


def _in_bands(result: Result) -> list[Block]:
    """Shares of the LDS in every cell, and in how many they are undefined."""
    share = result.known("/shares", "share")
    lds = None
    if share is not None and "lds" in labels(share, "metric"):
        lds = share.sel(metric="lds", step=result.steps, ci_bound="estimate")
    if lds is None or not np.isfinite(lds).any():
        return [missing("No cell has defined shares of the LDS: every total is within noise.")]
    counts = {p: int(lds.sel(protocol=p).isnull().all("step").sum()) for p in result.protocols}
    undefined = [f"{count} under {protocol_label(p)}" for p, count in counts.items() if count]
    median = {s: float(np.nanmedian(_first(result, lds, s))) for s in result.steps}
    told = joined([f"{step_label(s)} {fixed(100 * v, 0)}%" for s, v in median.items()])
    text = f"Median share over the cells, {protocol_label(result.protocols[0])}: {told}." + (
        f" Undefined, as the total is within noise, in {joined(undefined)}." if undefined else ""
    )
    protocol = next(p for p in result.protocols if np.isfinite(lds.sel(protocol=p)).any())
    draw = partial(_band_figure, result, lds)
    return [Text(text), *band_figures(result, protocol, len(result.steps), draw)]


def _first(result: Result, lds: xr.DataArray, step: str) -> np.ndarray:
    """Shares of a step in every cell, under the first protocol that defines any."""
    known = [p for p in result.protocols if np.isfinite(lds.sel(protocol=p)).any()]
    return lds.sel(protocol=known[0], step=step).values


def _band_figure(
    result: Result, lds: xr.DataArray, protocol: str, column: int, rows: list[int]
) -> Figure:
    shown = layout(result)
    cells = [shown.cells[r, column] for r in rows if (r, column) in shown.cells]
    parts = []
    for step in result.steps:
        found = 100 * lds.sel(cell=cells, protocol=protocol, step=step).values
        if np.isfinite(found).any():
            low, high = float(np.nanmin(found)), float(np.nanmax(found))
            parts.append(f"{step_label(step)} {fixed(low, 0)} to {fixed(high, 0)}%")
    where = shown.columns[column] or "all cells"
    told = joined(parts) or "undefined in every one"
    return Figure(
        f"shares-{protocol.replace('_', '-')}-{column}-{rows[0]}",
        f"Shares over {len(cells)} cells, {protocol_label(protocol)}, {where}: {told}.",
        f"Share of every step, {protocol_label(protocol)}, {where}.",
        partial(plot_shares, result.tree, protocol=protocol, column=column, rows=rows),
    )


def at_damping(one: Result, name: str) -> Figure | None:
    """The drop of each step at one λ for every rung; the largest estimate is outlined."""
    drop = one.known("/shares/at_damping", "drop")
    if drop is None:
        return None
    steps = [s for s in STEPS if s in labels(drop, "step")]
    estimate = drop.sel(step=steps, ci_bound="estimate").dropna("multiplier", how="all")
    values = estimate.transpose("multiplier", "step").values
    largest = [steps[int(np.nanargmax(row))] if np.nanmax(row) > 0 else "" for row in values]
    multipliers = estimate["multiplier"].values.tolist()
    runs = [
        (step, [m for _, m in run])
        for step, run in itertools.groupby(
            zip(largest, multipliers, strict=True), key=lambda pair: pair[0]
        )
    ]
    parts = [
        f"{step_label(step) if step else 'no step loses'} at {_range(ms)}" for step, ms in runs
    ]
    rows = tuple(
        (float(m), step, interval(drop, multiplier=m, step=step))
        for m in multipliers
        for step in steps
    )
    of = f" in {one.name}" if one.name else ""
    return Figure(
        name,
        f"Drop of each step at one λ for all rungs{of}; largest estimate: {joined(parts)}.",
        f"One λ for every rung{of}; bands: {intervals(one)}. The strip names the step with the "
        "largest loss, pale where that is not resolved.",
        partial(plot_at_damping, one.tree, cell=one.cell),
        Table(f"{name}-data", "Drop at one λ for all", ("λ / unit", "step", "drop"), rows),
    )


def _range(multipliers: list[float]) -> str:
    ends = [f"{m:.2g}" for m in (multipliers[0], multipliers[-1])]
    return ends[0] if len(multipliers) == 1 else " to ".join(ends)


def step_tables(result: Result, metric: str) -> list[Block]:
    """Drops and shares of one metric: a row per order and step, a column per protocol."""
    undamped = metric in WITHOUT_DAMPING
    protocols = result.protocols[:1] if undamped else result.protocols
    heads = ["any λ"] if undamped else [protocol_label(p) for p in protocols]
    columns, of = ("order", "step", *heads), SHARE_METRICS.get(metric, metric)
    end = "" if metric == "lds" else f"-{metric.replace('_', '-')}"
    drops = partial(_drops, metric, protocols)
    shares = partial(_shares, metric, protocols)
    return [
        *table(result, f"drops{end}", f"Drop of each step: {of}", columns, drops),
        *table(result, f"shares{end}", f"Share of each step: {of}", columns, shares, shares=True),
    ]


def _by_order(one: Result, metric: str, protocols: list[str]) -> dict[str, dict[str, Reading]]:
    """Order → protocol → its drops and shares; the chain's alone where no others are known."""
    names = order_names(one) | {MEAN: "mean of the orders"}
    found: dict[str, dict[str, Reading]] = {}
    for reading in readings(one, metric):
        found.setdefault(names[reading.order], {})[reading.protocol] = reading
    if found:
        return found
    for protocol in protocols:
        b = blame(one, metric, protocol)
        if b is not None and b.known:
            shares = b.shares if b.defined else {}
            found.setdefault("order 1", {})[protocol] = Reading(protocol, "", b.drops, shares)
    mean = one.known("/shares/shapley", "shapley")
    if mean is None:
        return found
    for protocol in found.get("order 1", {}):
        place = {"metric": metric, "protocol": protocol}
        known = all(value in labels(mean, dim) for dim, value in place.items())
        shares = {s: interval(mean, **place, step=s) for s in STEPS} if known else {}
        if metric != "lds" and not any(share.known for share in shares.values()):
            continue  # errors are taken along the chain alone
        reading = Reading(protocol, MEAN, {}, shares)
        found.setdefault(names[MEAN], {})[protocol] = reading
    return found


def _drops(metric: str, protocols: list[str], one: Result) -> Iterator[Row]:
    found = _by_order(one, metric, protocols)
    for order, by in found.items():
        for step in STEPS:
            row = [by[p].drops.get(step) if p in by else None for p in protocols]
            if any(cell is not None and cell.known for cell in row):
                yield (order, step_label(step), *row)
    if not found:
        return
    cross = [_place(one, "drop", metric, p, step=CROSS_TERM) for p in protocols]
    if any(value is not None and value.known for value in cross):
        yield ("any", step_label(CROSS_TERM), *cross)
    yield ("any", "total", *(_place(one, "total", metric, p) for p in protocols))


def _shares(metric: str, protocols: list[str], one: Result) -> Iterator[Row]:
    found = _by_order(one, metric, protocols)
    for order, by in found.items():
        for step in STEPS:
            row = [_share(by.get(p), step) for p in protocols]
            if any(cell is not None for cell in row):
                yield (order, step_label(step), *row)
    cross = [_place(one, "share", metric, p, step=CROSS_TERM) for p in protocols]
    if found and any(value is not None and value.known for value in cross):
        yield ("any", step_label(CROSS_TERM), *cross)


def _share(reading: Reading | None, step: str) -> Cell:
    if reading is None:
        return None
    return reading.shares.get(step) if reading.defined else "undefined"


def _place(one: Result, name: str, metric: str, protocol: str, **where: str) -> Interval | None:
    """A number of ``/shares``; None where it has no place in the result."""
    array = one.array("/shares", name)
    place = {"metric": metric, "protocol": protocol} | where
    if array is None or any(value not in labels(array, dim) for dim, value in place.items()):
        return None
    return interval(array, **place)


def _at_every_damping(one: Result) -> list[Block]:
    drop = one.known("/shares/at_damping", "drop")
    if drop is None:
        return []
    steps = [s for s in STEPS if s in labels(drop, "step")]
    rows = tuple(
        (f"{m:.2g}", *(interval(drop, multiplier=m, step=s) for s in steps))
        for m in drop["multiplier"].values.tolist()
    )
    caption = "Drop of each step at one λ for all rungs, in units of tr G / min(P, N·C)"
    return [Table("at-damping", caption, ("λ / unit", *map(step_label, steps)), rows)]


def _interactions_table(result: Result) -> list[Block]:
    caption = "How much more LDS a step costs once another has been taken"
    columns = ("steps", *(protocol_label(p) for p in result.protocols))
    return table(result, "interactions", caption, columns, _interactions)


def _interactions(one: Result) -> Iterator[Row]:
    array = one.array("/shares/interactions", "interaction")
    if array is None:
        return
    known = labels(array, "protocol")
    for pair in labels(array, "pair"):
        row = [
            interval(array, protocol=p, pair=pair) if p in known else None for p in one.protocols
        ]
        if any(value is not None and value.known for value in row):
            yield (_pair(pair), *row)


def _pair(name: str) -> str:
    step, _, rest = name.partition(" after ")
    other, _, node = rest.partition(", at ")
    if not node:
        return name
    return f"{step_label(step)} after {step_label(other)}, from {rung_label(node)}"


def _mismatch(result: Result) -> list[Block]:
    """Every rung's gain from its own λ, and the part of the loss that is damping alone."""
    data = result.group("/shares/mismatch")
    if data is None or not {"gap", "mismatch"} <= set(data.data_vars):
        return []
    columns = ("rung", "LDS tuned − LDS at equal λ", "share of the loss under equal λ")
    caption = "What equal damping costs each rung, against its own best λ"
    said: list[Block] = []
    if not result.many:
        said = [Text(_sentence(interval(data["mismatch"]), _gap_share(data, "mismatch_share")))]
    return [*said, *table(result, "mismatch", caption, columns, _gaps)]


def _gaps(one: Result) -> Iterator[Row]:
    data = one.group("/shares/mismatch")
    assert data is not None
    for rung in labels(data["gap"], "rung"):
        gap = interval(data["gap"], rung=rung)
        if gap.known:
            yield (rung_label(rung, 120), gap, _percent(_gap_share(data, "gap_share", rung=rung)))
    whole, share = interval(data["mismatch"]), _gap_share(data, "mismatch_share")
    yield ("damping mismatch: K-FAC less Hessian", whole, _percent(share))


def _gap_share(data: xr.Dataset, name: str, **place: str) -> Interval | None:
    return interval(data[name], **place) if name in data else None


def _percent(share: Interval | None) -> Cell:
    return percent(share) if share is not None and share.known else "undefined"


def _sentence(whole: Interval, share: Interval | None) -> str:
    if not whole.known:
        return "The cost of damping mismatch is not known."
    told = f"{span(whole)} of LDS"
    if share is not None and share.known:
        told += f", {percent(share)} of that loss"
    if whole.lower > 0:
        return (
            f"Part of the loss under equal λ belongs to the damping and not to the steps: {told} "
            "goes away when every rung is given its own best λ."
        )
    if whole.upper < 0:
        return f"Giving every rung its own best λ makes the loss larger: mismatch {told}."
    return f"Damping mismatch is not resolved from zero: {told}."
