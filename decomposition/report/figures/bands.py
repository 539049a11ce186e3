"""Levels and shares of many cells, or of one cell under many protocols, in bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.names import CHAIN, STEPS
from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_outside,
    report_style,
    say_missing,
)
from decomposition.report.figures.heat import draw_heat
from decomposition.report.figures.points import (
    Point,
    band_height,
    draw_points,
    limits,
    say_in_band,
)
from decomposition.report.interval import Interval
from decomposition.report.layout import layout
from decomposition.report.names import (
    PROTOCOLS,
    SHARE_METRICS,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.orders import MEAN, order_names, readings
from decomposition.report.palette import INK, MUTED, step_style
from decomposition.report.result import Result, interval, labels
from decomposition.report.wording import signed

BEYOND = 60.0
"""Per cent of the total by which an interval may reach beyond the estimates before it is cut."""
ORDER_FREE = "whatever the order"


@dataclass(frozen=True)
class Band:
    """One band of a figure: a cell, or a protocol of the only one."""

    name: str
    result: Result | None
    """None: no cell stands there."""
    protocol: str


def bands_of(
    result: Result, protocol: str, column: int = 0, rows: Sequence[int] | None = None
) -> list[Band]:
    """Cells under a protocol, as ``report.layout`` places them; of one cell, all its protocols.

    Args:
        result: of one cell or of many.
        protocol: of many cells.
        column: which checkpoint.
        rows: which rows of the layout; by default all.
    """
    if not result.many:
        return [Band(protocol_label(p), result, p) for p in result.protocols]
    table = layout(result)
    places = [(r, table.cells.get((r, column))) for r in rows or range(len(table.rows))]
    return [
        Band(table.rows[r], None if cell is None else result.of(cell), protocol)
        for r, cell in places
    ]


def _title(result: Result, protocol: str, column: int, otherwise: str) -> str:
    return (layout(result).columns[column] if result.many else "") or otherwise


def plot_levels(
    tree: xr.DataTree,
    protocol: str = "equal",
    column: int = 0,
    rows: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """LDS of every rung in a band per cell (see ``bands_of``); the dashed line is the ceiling."""
    result = Result(tree)
    with report_style():
        level = result.known("/shares", "level")
        rungs = [r for r in result.drawn if level is not None and r in labels(level, "rung")]
        bands = bands_of(result, protocol, column, rows) if level is not None else []
        wide = result.many and len(layout(result).columns) > 1
        ax = axes_or_new(ax, 3.9 if wide else 4.8, 1.25 + len(bands) * band_height(len(rungs)))
        if level is None or not bands or protocol not in result.protocols:
            return say_missing(ax, "no LDS in this result")
        points: list[Point] = [
            (band.name, rung, value)
            for band in bands
            if band.result is not None
            for rung in rungs
            if (value := _of(band.result, "level", protocol=band.protocol, rung=rung)).known
        ]
        tops = [_ceiling(band.result) for band in bands]
        shown = [top + 0.02 for top in tops if math.isfinite(top)]
        everywhere = _levels_everywhere(level) if result.many else [v for *_, v in points]
        low, high = limits(everywhere, 0.1, (0.0, *shown))
        styles = {rung: result.styles[rung] for rung in rungs}
        draw_points(ax, [band.name for band in bands], styles, points, (low, max(high, *shown, 0)))
        for at, top in enumerate(tops):
            ax.plot([top, top], [at - 0.45, at + 0.45], color=MUTED, linestyle=(0, (3, 2)), lw=1.2)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(f"LDS, {protocol_label(protocol)}" if result.many else "LDS")
        ax.set_title(_title(result, protocol, column, "LDS of every rung"))
        legend_outside(ax, [(styles[r], rung_label(r)) for r in rungs])
    return ax


def leading_protocol(result: Result, array: xr.DataArray) -> str:
    """The first protocol of the page under which ``array`` holds anything."""
    for protocol in (p for p in result.protocols if p in labels(array, "protocol")):
        if bool(array.sel(protocol=protocol).notnull().any()):
            return protocol
    return labels(array, "protocol")[0]


def plot_beside(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """LDS of what stands beside the chain minus that of every rung, in a band for each."""
    result = Result(tree, cell)
    with report_style():
        difference = result.known("/beside", "difference")
        if difference is None:
            return say_missing(axes_or_new(ax), "nothing beside the chain in this result")
        protocol = leading_protocol(result, difference)
        others, rungs = labels(difference, "other"), labels(difference, "rung")
        ax = axes_or_new(ax, 6.2, 1.4 + len(others) * band_height(len(rungs)))
        names = {other: rung_label(other, 60) for other in others}
        points: list[Point] = [
            (names[other], rung, interval(difference, protocol=protocol, other=other, rung=rung))
            for other in others
            for rung in rungs
        ]
        styles = {rung: result.styles[rung] for rung in rungs}
        ends = limits([value for *_, value in points], 0.1, (0.0,))
        draw_points(ax, list(names.values()), styles, points, ends)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(f"LDS minus that of the rung, {protocol_label(protocol)}")
        ax.set_title("Beside the chain, against each rung")
        legend_outside(ax, [(styles[rung], rung_label(rung)) for rung in rungs])
    return ax


def _levels_everywhere(level: xr.DataArray) -> list[Interval]:
    """So that the figures of all cells have one axis."""
    bounds = level.transpose(..., "ci_bound").values.reshape(-1, 3)
    return [Interval(*map(float, row)) for row in bounds]


def _ceiling(result: Result | None) -> float:
    found = None if result is None else result.array("/attribution", "ceiling")
    return math.nan if found is None else interval(found).estimate


def _of(result: Result, name: str, path: str = "/shares", **place: object) -> Interval:
    """A number of one cell; unknown where it has no place in the result."""
    array = result.array(path, name)
    nothing = Interval(math.nan, math.nan, math.nan)
    if array is None or any(value not in array.indexes[dim] for dim, value in place.items()):
        return nothing
    return interval(array, **place)


def plot_shares(
    tree: xr.DataTree,
    metric: str = "lds",
    protocol: str = "equal",
    column: int = 0,
    rows: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Share of every step in a band per cell (see ``bands_of``); hollow: whatever the order."""
    result = Result(tree)
    with report_style():
        bands = bands_of(result, protocol, column, rows)
        if metric == "frobenius_squared":  # knows no damping
            bands = [Band("any damping", b.result, b.protocol) for b in bands[:1]]
        steps = result.steps
        points = [
            (band.name, mark, value)
            for band in bands
            if band.result is not None
            for mark, value in shares_of(band.result, metric, band.protocol).items()
        ]
        styles = {step: step_style(step) for step in steps}
        hollow = [s for s in (f"{step} {ORDER_FREE}" for step in steps) if s in _marks(points)]
        for mark in hollow:
            styles[mark] = step_style(mark.partition(" ")[0])
        styles = dict(sorted(styles.items(), key=lambda one: steps.index(one[0].split(" ")[0])))
        wide = result.many and len(layout(result).columns) > 1
        ax = axes_or_new(ax, 3.9 if wide else 4.8, 1.25 + len(bands) * band_height(len(styles)))
        if not points or (result.many and protocol not in result.protocols):
            return say_missing(ax, "no defined shares in this result")
        everywhere = [
            value
            for one in (result.each() if result.many else [])
            for value in shares_of(one, metric, protocol).values()
        ]
        ends = limits(everywhere or [v for *_, v in points], BEYOND, (0.0, 100.0))
        draw_points(ax, [band.name for band in bands], styles, points, ends, hollow)
        for at, band in enumerate(bands):
            if band.result is not None and band.name not in {name for name, *_ in points}:
                say_in_band(ax, at, "undefined: total within noise")
        for end in (0.0, 100.0):
            ax.axvline(end, color=MUTED, linewidth=0.8, linestyle="-" if end == 0 else ":")
        name = SHARE_METRICS.get(metric, metric)
        under = f", {protocol_label(protocol)}" if result.many else ""
        ax.set_xlabel(f"share of the {name}{' lost' if metric == 'lds' else ''} (%){under}")
        ax.set_title(_title(result, protocol, column, f"Shares: {name}"))
        legend_outside(ax, [(step_style(s), step_label(s)) for s in steps])
    return ax


def _marks(points: Sequence[Point]) -> set[str]:
    return {mark for _, mark, _ in points}


def shares_of(result: Result, metric: str, protocol: str) -> dict[str, Interval]:
    """Step → share of one cell in per cent, and those whatever the order; defined ones only."""
    found: dict[str, Interval] = {}
    for path, name, order in (
        ("/shares", "share", ""),
        ("/shares/shapley", "shapley", f" {ORDER_FREE}"),
    ):
        for step in result.steps:
            value = _of(result, name, path, metric=metric, protocol=protocol, step=step)
            if value.known:
                bounds = (100 * v for v in (value.lower, value.estimate, value.upper))
                found[f"{step}{order}"] = Interval(*bounds)
    return found


def plot_orders(
    tree: xr.DataTree, metric: str = "lds", cell: int | None = None, ax: Axes | None = None
) -> Axes:
    """A row per protocol and order, a column per step; the largest of each row is outlined.

    The colour is the drop, comparable over all rows; the number is the share, or the drop itself
    where shares are undefined.
    """
    result = Result(tree, cell)
    found = readings(result, metric)
    with report_style():
        if not found:
            return say_missing(axes_or_new(ax), "no shares along several orders in this result")
        steps = list(found[0].drops)
        names = order_names(result) | {MEAN: "mean"}
        values, texts, rows, bold, heads = [], [], [], [], {}
        for reading in found:
            if reading.protocol not in heads:
                heads[reading.protocol] = len(rows)
                values.append([np.nan] * len(steps))
                texts.append([""] * len(steps))
                rows.append("")
                bold.append([False] * len(steps))
            drops = [reading.drops[s].estimate for s in steps]
            values.append(drops)
            shares = [reading.shares[s].estimate if s in reading.shares else np.nan for s in steps]
            texts.append(
                [
                    _share(s) if reading.defined else signed(d)
                    for d, s in zip(drops, shares, strict=True)
                ]
            )
            rows.append(names[reading.order])
            bold.append([reading.largest == s for s in steps])
        ax = axes_or_new(ax, height=0.9 + 0.24 * (len(rows) + 1))
        draw_heat(ax, np.array(values), texts, rows, [step_label(s) for s in steps], np.array(bold))
        for protocol, row in heads.items():
            defined = any(r.defined for r in found if r.protocol == protocol)
            name = f"{PROTOCOLS.get(protocol, protocol)}{'' if defined else ': drops shown'}"
            ax.text(0.04, row + 0.55, name, fontweight="bold", va="center", fontsize=8.5, color=INK)
        ax.set_title(
            result.name or f"{SHARE_METRICS.get(metric, metric)}: share by protocol and order"
        )
    return ax


def _share(value: float) -> str:
    return f"{100 * value:.0f}%".replace("-", "−")


def plot_at_damping(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """What each step takes at one λ for all rungs, over the whole grid; the largest is outlined."""
    result = Result(tree, cell)
    drop = result.known("/shares/at_damping", "drop")
    with report_style():
        if drop is None:
            return say_missing(axes_or_new(ax), "no verdict at every damping in this result")
        steps = [s for s in STEPS if s in labels(drop, "step")]
        middle = drop.sel(ci_bound="estimate", step=steps).transpose("multiplier", "step")
        middle = middle.dropna("multiplier", how="all")
        values = middle.values
        ax = axes_or_new(ax, height=1.1 + 0.26 * len(values))
        top = np.nan_to_num(values, nan=-np.inf)
        bold = (top == top.max(1, keepdims=True)) & (values > 0)
        texts = [[signed(value) for value in row] for row in values]
        rows = [f"{m:.2g}" for m in middle["multiplier"].values.tolist()]
        draw_heat(ax, values, texts, rows, [step_label(s) for s in steps], bold)
        ax.set_ylabel("λ / (tr G / min(P, N·C))")
        ax.set_title(result.name or f"Drop of LDS from {rung_label(CHAIN[0])} to K-FAC at every λ")
    return ax
