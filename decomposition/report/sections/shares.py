"""Shares of the steps: under every protocol and metric, along every order, and of the damping."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from decomposition.names import CROSS_TERM, STEPS
from decomposition.report.content import Block, Cell, Figure, Table, Text, missing
from decomposition.report.figures.bands import plot_at_damping, plot_orders, plot_shares
from decomposition.report.interval import Interval
from decomposition.report.layout import layout
from decomposition.report.names import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_LABELS,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.orders import order_key, order_names, readings, survival
from decomposition.report.result import Result, interval, intervals, labels
from decomposition.report.sections.by_cell import Row, figures, table
from decomposition.report.sections.levels import band_figures
from decomposition.report.verdict import UNDAMPED, Blame, blame, cases
from decomposition.report.wording import fixed, joined, percent, plural, span


def share_blocks(result: Result) -> list[Block]:
    """Shares in figures and in full: by protocol, at every damping, along every order."""
    blocks: list[Block] = [
        Text(
            "A share is a step's drop divided by the total drop. A negative share is a step that "
            "improves matters; it is shown, not clipped. Where the total is within noise the "
            "shares are undefined. Unless an order is named, shares are read along the chain's "
            "own order: linearisation, cross-layer, eigenbasis, eigenvalues."
        )
    ]
    if result.few:
        blocks += figures(result, "orders", "Every protocol and order", _glance)
    blocks += _in_bands(result) if result.many else _by_metric(result)
    if result.many:  # that of a single cell stands beside the answer
        blocks += figures(result, "at-damping", "The steps at every damping", at_damping)
    blocks += [*_share_tables(result), *_marginals(result), *_mismatch(result)]
    return blocks


def _found(one: Result) -> list[Blame]:
    return [b for m, p in cases(one) if (b := blame(one, m, p)) and b.known]


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
        f"{survival(one)} Colour: the drop (orange a loss, purple a gain), comparable over "
        "all rows; number: the share, or the drop where shares are undefined; mean: over "
        "the orders (Shapley value); outlined: the largest estimate of the row, which need "
        f"not be resolved (intervals are in the tables). {order_key(one).capitalize()}.",
        partial(plot_orders, one.tree, cell=one.cell),
        Table(
            f"{name}-data",
            "Every protocol and order",
            ("protocol", "order", "step", "drop", "share"),
            tuple(rows),
        ),
    )


def _by_metric(result: Result) -> list[Block]:
    found = _found(result)
    return [
        _figure(result, metric, [b for b in found if b.metric == metric])
        for metric in dict.fromkeys(b.metric for b in found)
    ]


def _figure(result: Result, metric: str, found: list[Blame]) -> Figure:
    parts = []
    for b in found:
        name = _names(b)[1] + (" damping" if b.metric == UNDAMPED else "")
        if not b.defined:
            parts.append(f"undefined under {name}")
        elif b.largest is None:
            parts.append(f"no step resolved as the largest under {name}")
        else:
            step = f"{STEP_LABELS[b.largest]} ({percent(b.shares[b.largest])})"
            parts.append(f"the largest under {name} is {step}")
    title = SHARE_METRICS.get(metric, metric)
    rows = tuple(
        (b.protocol, step, b.shares[step] if b.defined else None)
        for b in found
        for step in b.shares
    )
    exact = all(b.total.exact for b in found)
    lines = "exact, so without intervals" if exact else f"lines are {intervals(result)}"
    return Figure(
        f"shares-{metric.replace('_', '-')}",
        f"Shares of the {title}: {joined(parts)}.",
        f"Shares of the {title}: {joined(parts)}. A band per damping protocol; {lines}; a hollow "
        "mark is the share whatever the order of the steps.",
        partial(plot_shares, result.tree, metric=metric),
        Table(f"shares-{metric}", f"Shares of the {title}", ("protocol", "step", "share"), rows),
    )


def _in_bands(result: Result) -> list[Block]:
    """Shares of the LDS in every cell, and in how many they are undefined."""
    share = result.known("/shares", "share")
    lds = None
    if share is not None and "lds" in labels(share, "metric"):
        lds = share.sel(metric="lds", step=result.steps, ci_bound="estimate")
    if lds is None or not np.isfinite(lds).any():
        return [missing("No cell has defined shares of the LDS: every total is within noise.")]
    undefined = [
        f"{int(here.isnull().all('step').sum())} under {protocol_label(p)}"
        for p in result.protocols
        for here in (lds.sel(protocol=p),)
    ]
    text = (
        f"What each step takes of the LDS that the chain loses, with {intervals(result)}. Shares "
        f"are undefined, of {plural(len(result.cells), 'cell')}, in {joined(undefined)}. A hollow "
        "mark is the share whatever the order of the steps."
    )
    protocols = [p for p in result.protocols if np.isfinite(lds.sel(protocol=p)).any()]
    lines = len(result.steps) * (1 if result.group("/shares/shapley") is None else 2)
    draw = partial(_band_figure, result, lds)
    return [Text(text), *band_figures(result, "shares", protocols, lines, draw)]


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
        f"One λ for every rung, in units of tr G / min(P, N·C){of}. Largest estimate, outlined, "
        f"which need not be resolved: {joined(parts)}.",
        partial(plot_at_damping, one.tree, cell=one.cell),
        Table(f"{name}-data", "Drop at one λ for all", ("λ / unit", "step", "drop"), rows),
    )


def _range(multipliers: list[float]) -> str:
    ends = [f"{m:.2g}" for m in (multipliers[0], multipliers[-1])]
    return ends[0] if len(multipliers) == 1 else " to ".join(ends)


def _share_tables(result: Result) -> list[Block]:
    share = result.array("/shares", "share")
    cross = share is not None and CROSS_TERM in labels(share, "step")
    steps = [STEP_LABELS[s] for s in STEPS] + (["cross term"] if cross else [])
    columns = ("metric", "damping", *steps, "largest step")

    def shares(one: Result) -> Iterator[Row]:
        array = one.array("/shares", "share")
        for b in _found(one):
            row: list[Cell] = [*_names(b)]
            row += [b.shares.get(step) if b.defined else "undefined" for step in STEPS]
            if cross and array is not None:
                value = interval(array, metric=b.metric, protocol=b.protocol, step=CROSS_TERM)
                row.append(value if b.defined and value.known else None)
            yield (*row, _verdict(b))

    drops = ("metric", "damping", "step", "drop", "P(degrades)")
    caption = "Drop of each step; positive is a degradation"
    return [
        *table(result, "shares", "Share of each step", columns, shares, shares=True),
        *table(result, "drops", caption, drops, _drops),
    ]


def _drops(one: Result) -> Iterator[Row]:
    drop = one.array("/shares", "drop")
    degrades = one.array("/shares", "probability_degrades")
    for b in _found(one):
        for step in [*STEPS, CROSS_TERM]:
            if drop is None or step not in labels(drop, "step"):
                continue
            place = {"metric": b.metric, "protocol": b.protocol, "step": step}
            value = interval(drop, **place)
            if value.known:
                asked = degrades is not None and step != CROSS_TERM
                yield (
                    *_names(b),
                    STEP_LABELS[step],
                    value,
                    float(degrades.sel(place)) if asked and degrades is not None else None,
                )
        if b.total.known:
            yield (*_names(b), "total", b.total, None)


def _names(b: Blame) -> tuple[str, str]:
    damping = "any" if b.metric == UNDAMPED else PROTOCOLS.get(b.protocol, b.protocol)
    return SHARE_METRICS.get(b.metric, b.metric), damping


def _verdict(b: Blame) -> str:
    if not b.defined:
        return "undefined: total within noise"
    return STEP_LABELS[b.largest] if b.largest is not None else "not resolved"


def _marginals(result: Result) -> list[Block]:
    """Tables: Shapley value with its spread, every order, first and last, interactions."""
    if result.group("/shares/shapley") is None:
        return [missing("Shares along other feasible orders, and their mean, are not here.")]
    orders = result.array("/shares/orders", "share_by_order")
    steps = [] if orders is None else [s for s in STEPS if s in labels(orders, "step")]
    spread = "spread of the share over orders"
    return [
        *table(
            result,
            "shapley",
            "Each step's mean over the feasible orders (Shapley value)",
            ("metric", "damping", "step", "drop", "share", spread),
            _shapley,
        ),
        *table(
            result,
            "orders",
            "Share of each step along each feasible order",
            ("metric", "damping", "order", *map(step_label, steps)),
            _by_order,
            shares=True,
        ),
        *table(
            result,
            "first-last",
            "Each step taken as early and as late as it can be",
            ("metric", "damping", "step", "drop, taken first", "drop, taken last"),
            _first_last,
        ),
        *table(
            result,
            "interactions",
            "How much more a step costs once another has been taken",
            ("steps", "damping", "interaction (LDS)", "reading"),
            _interactions,
        ),
    ]


def _shapley(one: Result) -> Iterator[Row]:
    data = one.group("/shares/shapley")
    if data is None or "shapley" not in data:
        return
    drop, spread = (data.get(name) for name in ("shapley_drop", "spread"))
    for place in _places(data["shapley"], ("metric", "protocol", "step")):
        share = interval(data["shapley"], **place)
        lost = interval(drop, **place) if drop is not None else None
        if not (share.known or (lost is not None and lost.known)):
            continue
        width = float(spread.sel(place)) if spread is not None else math.nan
        points = f"{100 * width:.0f} points" if math.isfinite(width) else "–"
        # a table of drops and shares: shares are told in per cent here, not by the table
        yield (*_told(place), lost, percent(share) if share.known else "undefined", points)


def _by_order(one: Result) -> Iterator[Row]:
    array = one.array("/shares/orders", "share_by_order")
    if array is None:
        return
    names, steps = order_names(one), [s for s in STEPS if s in labels(array, "step")]
    for place in _places(array, ("metric", "protocol", "order")):
        cells = [interval(array, **place, step=s) for s in steps]
        if any(cell.known for cell in cells):
            told = _told({k: v for k, v in place.items() if k != "order"})
            yield (*told, names.get(place["order"], place["order"]), *cells)


def _first_last(one: Result) -> Iterator[Row]:
    data = one.group("/shares/orders")
    if data is None or not {"first", "last"} <= set(data.data_vars):
        return
    for place in _places(data["first"], ("metric", "protocol", "step")):
        first, last = (interval(data[name], **place) for name in ("first", "last"))
        if first.known or last.known:
            yield (*_told(place), first, last)


def _interactions(one: Result) -> Iterator[Row]:
    array = one.array("/shares/interactions", "interaction")
    if array is None:
        return
    for protocol, pair in itertools.product(labels(array, "protocol"), labels(array, "pair")):
        value = interval(array, protocol=protocol, pair=pair)
        if value.known:
            yield (_pair(pair), PROTOCOLS.get(protocol, protocol), value, _zero(value))


def _pair(name: str) -> str:
    step, _, rest = name.partition(" after ")
    other, _, node = rest.partition(", at ")
    if not node:
        return name
    return f"{step_label(step)} after {step_label(other)}, from {rung_label(node)}"


def _zero(value: Interval) -> str:
    if value.lower > 0:
        return "costs more"
    return "costs less" if value.upper < 0 else "not resolved"


def _places(array: xr.DataArray, dims: tuple[str, ...]) -> list[dict[str, str]]:
    values = itertools.product(*(labels(array, dim) for dim in dims))
    return [dict(zip(dims, value, strict=True)) for value in values]


def _told(place: dict[str, str]) -> tuple[str, ...]:
    words = SHARE_METRICS | PROTOCOLS | STEP_LABELS
    return tuple(words.get(value, value) for value in place.values())


def _mismatch(result: Result) -> list[Block]:
    """Every rung's gain from its own λ, and the part of the loss that is damping alone."""
    data = result.group("/shares/mismatch")
    if data is None or not {"gap", "mismatch"} <= set(data.data_vars):
        return [missing("What a common damping costs beside the steps is not in this result.")]
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
