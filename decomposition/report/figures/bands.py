"""Levels and shares of many cells, or of one cell under many protocols, in bands."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from decomposition.names import CHAIN, STEPS
from decomposition.report.figures.canvas import (
    axes_or_new,
    head,
    label_lines,
    legend_outside,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.figures.heat import draw_heat
from decomposition.report.figures.points import (
    Point,
    band_height,
    draw_lines,
    draw_points,
    limits,
    say_in_band,
)
from decomposition.report.interval import Interval
from decomposition.report.layout import layout
from decomposition.report.names import (
    SHARE_METRICS,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.orders import MEAN, Reading, readings
from decomposition.report.palette import GRID, INK, MUTED, step_style
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
    rungs: Sequence[str] = (),
) -> Axes:
    """LDS in a band per cell (see ``bands_of``), of every rung or of ``rungs``; dashed: ceiling."""
    result = Result(tree)
    with report_style():
        level = result.known("/shares", "level")
        met = [] if level is None else labels(level, "rung")
        rungs = [r for r in result.drawn if r in met and r in (rungs or met)]
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
        head(ax, _title(result, protocol, column, "LDS of every rung"))
        legend_outside(ax, [(styles[r], rung_label(r)) for r in rungs])
    return ax


def leading_protocol(result: Result, array: xr.DataArray) -> str:
    """The first protocol of the page under which ``array`` holds anything."""
    for protocol in (p for p in result.protocols if p in labels(array, "protocol")):
        if bool(array.sel(protocol=protocol).notnull().any()):
            return protocol
    return labels(array, "protocol")[0]


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
    """Share of every step in a band per cell (see ``bands_of``); of one cell hollow: any order."""
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
            if mark in steps or not result.many
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
        head(ax, _title(result, protocol, column, f"Shares: {name}"))
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
    """A row per protocol, a column per step: its share along the chain, and over the orders.

    The colour is the drop, comparable over all rows; where shares are undefined the drop itself is
    written. The largest estimate along every order is outlined, that of the chain alone dashed.
    """
    result = Result(tree, cell)
    found = readings(result, metric)
    with report_style():
        if not found:
            return say_missing(axes_or_new(ax), "no shares along several orders in this result")
        steps, protocols = list(found[0].drops), list(dict.fromkeys(r.protocol for r in found))
        by = {p: [r for r in found if r.protocol == p and r.order != MEAN] for p in protocols}
        ax = axes_or_new(ax, height=0.7 + 0.46 * len(protocols))
        values = np.array([[by[p][0].drops[s].estimate for s in steps] for p in protocols])
        texts = [[_over_orders(by[p], s) for s in steps] for p in protocols]
        heads = [textwrap.fill(protocol_label(p), 15) for p in protocols]
        first = np.array([[by[p][0].largest == s for s in steps] for p in protocols])
        every = np.array([[all(r.largest == s for r in by[p]) for s in steps] for p in protocols])
        draw_heat(ax, values, texts, heads, [step_label(s) for s in steps], every, first)
        head(ax, result.name or _survival_title(by))
    return ax


def _over_orders(orders: Sequence[Reading], step: str) -> str:
    """The chain's number, and the range over the orders where it differs."""
    defined = orders[0].defined
    numbers = [(r.shares if defined else r.drops)[step].estimate for r in orders]
    told = [_share(n) if defined else signed(n) for n in (numbers[0], min(numbers), max(numbers))]
    if told[1] == told[2] or not defined:  # two drops have no room
        return told[0]
    return f"{told[0]}\n{told[1].removesuffix('%')} to {told[2].removesuffix('%')}"


def _survival_title(by: Mapping[str, Sequence[Reading]]) -> str:
    largest = [Counter(r.largest for r in orders) for orders in by.values()]
    whole = Counter(r.largest for orders in by.values() for r in orders)
    (step, count), total = whole.most_common(1)[0], sum(whole.values())
    if len(whole) == 1 and step is not None:
        return f"{step_label(step).capitalize()}, whatever protocol and order"
    if step is None:
        return "No step loses under most protocols and orders"
    agreed = "" if all(len(one) == 1 for one in largest) else " and order"
    return f"Depends on the damping{agreed}: {step_label(step)} in {count} of {total}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}%".replace("-", "−")


def plot_at_damping(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """What each step takes at one λ for all rungs; the strip below names the largest at each."""
    result = Result(tree, cell)
    drop = result.known("/shares/at_damping", "drop")
    with report_style():
        if drop is None:
            return say_missing(axes_or_new(ax), "no verdict at every damping in this result")
        steps = [s for s in STEPS if s in labels(drop, "step")]
        grid = [float(m) for m in drop["multiplier"].values]
        values = {s: [interval(drop, multiplier=m, step=s) for m in grid] for s in steps}
        ax = axes_or_new(ax, height=3.5)
        points = [(m, s, v) for s in steps for m, v in zip(grid, values[s], strict=True)]
        draw_lines(ax, {s: step_style(s) for s in steps}, points)
        ax.axhline(0, color=MUTED, linewidth=0.8)
        log_scale(ax, "x")
        runs = largest_runs(values)
        low, high = ax.get_ylim()
        foot = low - 0.16 * (high - low)
        ax.set_ylim(foot, high)
        edges = _edges(grid)
        for step, sure, start, stop in runs:
            _strip(ax, (edges[start], edges[stop]), (foot, low), step, sure)
        ends = [
            (step_label(s), step_style(s).color, (known[0], known[-1]))
            for s in steps
            if (known := [v.estimate for v in values[s] if v.known])
        ]
        ax.set_xlim(edges[0], edges[-1])
        ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])
        label_lines(ax, ends)
        _mark_equal(ax, result)
        ax.set(xlabel="one λ for all rungs / (tr G / min(P, N·C))", ylabel="LDS lost in the step")
        head(ax, result.name or _runs_title(runs))
    return ax


Run = tuple[str, bool, int, int]
"""(largest step or "", whether that is resolved, first place on the grid, place after the last)."""


def largest_runs(values: Mapping[str, Sequence[Interval]]) -> list[Run]:
    """Runs of the grid over which one step has the largest estimated loss, split by certainty."""
    found: list[Run] = []
    for place in range(len(next(iter(values.values())))):
        here = {s: v[place] for s, v in values.items() if v[place].known}
        top = max(here, key=lambda s: here[s].estimate, default="")
        if not top or here[top].estimate <= 0:
            found.append(("", False, place, place + 1))
            continue
        rest = [v.upper for s, v in here.items() if s != top]
        found.append((top, here[top].lower > max([0.0, *rest]), place, place + 1))
    runs: list[Run] = []
    for step, sure, start, stop in found:
        if runs and runs[-1][:2] == (step, sure):
            runs[-1] = (step, sure, runs[-1][2], stop)
        else:
            runs.append((step, sure, start, stop))
    return runs


def _runs_title(runs: Sequence[Run]) -> str:
    told = list(dict.fromkeys(step for step, *_ in runs if step))
    if not told:
        return "No step loses at any common λ"
    if len(told) == 1:
        return f"{step_label(told[0]).capitalize()} costs most at every λ where any does"
    return f"With growing λ: {', then '.join(map(step_label, told))}"


def _edges(grid: Sequence[float]) -> list[float]:
    """Between the places of a logarithmic grid, half a place beyond its ends."""
    logs = np.log(grid)
    half = np.diff(logs).mean() / 2 if len(logs) > 1 else 0.5
    return np.exp([logs[0] - half, *(logs[:-1] + logs[1:]) / 2, logs[-1] + half]).tolist()


def _strip(ax: Axes, x: tuple[float, float], y: tuple[float, float], step: str, sure: bool) -> None:
    """One run of the strip, with the step's name where there is room."""
    color = step_style(step).color if step else GRID
    face = {"facecolor": color, "alpha": 0.75 if sure else 0.25, "linewidth": 0.0}
    ax.add_patch(Rectangle((x[0], y[0]), x[1] - x[0], 0.9 * (y[1] - y[0]), **face))
    name = step_label(step) if step else "none"
    limits = np.log(ax.get_xlim())
    room = np.log(x[1] / x[0]) / (limits[1] - limits[0])
    if room > 0.018 * len(name):
        middle = (math.sqrt(x[0] * x[1]), y[0] + 0.45 * (y[1] - y[0]))
        ax.text(*middle, name, ha="center", va="center", fontsize=8, color=INK)


def _mark_equal(ax: Axes, result: Result) -> None:
    """Where on the axis the protocol of equal damping is read."""
    at = result.array("/shares", "level_damping")
    grid = result.array("/shares/at_damping", "damping_value")
    if at is None or grid is None or "equal" not in labels(at, "protocol"):
        return
    if CHAIN[0] not in labels(at, "rung"):
        return
    value = float(at.sel(protocol="equal", rung=CHAIN[0]))
    place = float(grid["multiplier"].values[int(np.abs(np.log(grid.values / value)).argmin())])
    ax.axvline(place, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
    look = {"xytext": (3, 0), "textcoords": "offset points", "fontsize": 8, "color": MUTED}
    ax.annotate("equal λ", (place, ax.get_ylim()[1]), va="top", **look)


def plot_largest(tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """A row per cell, a column per λ for all rungs: the step with the largest loss there."""
    result = Result(tree)
    drop = result.known("/shares/at_damping", "drop")
    with report_style():
        if drop is None or not result.many:
            return say_missing(axes_or_new(ax), "no verdict at every damping in this result")
        steps = [s for s in STEPS if s in labels(drop, "step")]
        grid = [float(m) for m in drop["multiplier"].values]
        ax = axes_or_new(ax, 5.6, 1.3 + 0.19 * len(result.cells))
        edges, met = _edges(grid), set()
        for row, cell in enumerate(result.cells):
            values = {
                s: [interval(drop, cell=cell, multiplier=m, step=s) for m in grid] for s in steps
            }
            for step, sure, start, stop in largest_runs(values):
                met.add(step)
                face: Any = {"alpha": 0.8 if sure else 0.25, "linewidth": 0.0}
                color = step_style(step).color if step else GRID
                width = edges[stop] - edges[start]
                place = (edges[start], row + 0.05)
                ax.add_patch(Rectangle(place, width, 0.9, facecolor=color, **face))
        ax.set(xlim=(edges[0], edges[-1]), ylim=(len(result.cells), 0), xscale="log")
        log_scale(ax, "x")
        ax.set_yticks(np.arange(len(result.cells)) + 0.5, _short_names(result))
        ax.tick_params(axis="y", length=0, labelsize=8)
        ax.grid(visible=False)
        ax.set_xlabel("one λ for all rungs / (tr G / min(P, N·C))")
        head(ax, "Which step costs most, in every cell at every λ")
        legend_outside(ax, [(step_style(s), step_label(s)) for s in steps if s in met])
    return ax


def _short_names(result: Result) -> list[str]:
    """What tells the cells apart, without what is the same in all of them."""
    shown = layout(result)
    name = {
        cell: ", ".join(part for part in (shown.rows[r], shown.columns[c]) if part)
        for (r, c), cell in shown.cells.items()
    }
    return [name[cell] for cell in result.cells]
