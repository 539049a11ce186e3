"""Waterfalls: what each step takes, as floating bars that start where the last one ended."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.names import BASELINES, CHAIN, CROSS_TERM, STEPS
from decomposition.report.figures.canvas import axes_or_new, beside, head, report_style, say_missing
from decomposition.report.interval import Interval
from decomposition.report.names import (
    SHARE_METRICS,
    protocol_label,
    rung_label,
    step_label,
)
from decomposition.report.palette import INK, MUTED, RungStyle, rung_styles, step_style
from decomposition.report.result import Result, interval, labels
from decomposition.report.verdict import blame
from decomposition.report.wording import fixed, number, signed

TOTAL = RungStyle(INK, "-", "s")


@dataclass(frozen=True)
class Bar:
    """One row of a waterfall: a bar from ``start`` to ``end.estimate``."""

    name: str
    start: float | None
    """None: a mark alone."""
    end: Interval
    """Where the bar leads, and how sure that is."""
    style: RungStyle
    text: str
    joined: bool = True
    """Whether the bar hangs from the row above."""


def draw_bars(ax: Axes, bars: Iterable[Bar], floor: float = math.inf) -> None:
    """Floating bars, first one on top, each with its interval and its number.

    Args:
        ax: where.
        bars: one a row.
        floor: an end that the axis has to hold.
    """
    rows = list(bars)
    spans = [_sides(bar) for bar in rows]
    low = min([floor, *(side for sides in spans for side in sides)])
    high = max(side for sides in spans for side in sides)
    for y, (bar, sides) in enumerate(zip(rows, spans, strict=True)):
        end, color = bar.end, bar.style.color
        if bar.start is not None:
            alpha = 0.35 if bar.joined else 0.25
            height = 0.62 if bar.joined else 0.42
            width = end.estimate - bar.start
            ax.barh(y, width, left=bar.start, height=height, color=color, alpha=alpha)
            if bar.joined and y:
                ax.plot([bar.start] * 2, [y - 1, y + 0.31], color=MUTED, linewidth=0.8)
        if not end.exact and np.isfinite([end.lower, end.upper]).all():
            error = [[end.estimate - end.lower], [end.upper - end.estimate]]
            look = {"color": color, "capsize": 2.5, "linewidth": 1.2}
            ax.errorbar(end.estimate, y, xerr=np.abs(error), **look)
        ax.plot(end.estimate, y, marker=bar.style.marker, color=color, markersize=6)
        # to the left of what reaches far to the right, where there is room
        left = max(sides) > low + 0.75 * (high - low) and min(sides) > low + 0.3 * (high - low)
        beside(ax, min(sides) if left else max(sides), y, bar.text, left)
    far = max((max(s) for s in spans if min(s) <= low + 0.3 * (high - low)), default=low)
    room = max(0.04, (far - low) / (high - low or 1.0) - 0.68)
    ax.set_xlim(low - 0.04 * (high - low), high + room * (high - low or 1.0))
    ax.set_yticks(range(len(rows)), [bar.name for bar in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _sides(bar: Bar) -> list[float]:
    ends = (bar.start, bar.end.lower, bar.end.estimate, bar.end.upper)
    return [end for end in ends if end is not None and math.isfinite(end)]


def levels(result: Result, protocol: str) -> dict[str, Interval]:
    """Row of the waterfall → LDS: ``ceiling``, the chain's rungs, the baselines; known ones only.

    A baseline's LDS does not depend on λ: without a level of its own any value of the grid serves.
    """
    rows: dict[str, Interval] = {}
    ceiling = result.array("/attribution", "ceiling")
    if ceiling is not None:
        rows["ceiling"] = interval(ceiling)
    level = result.array("/shares", "level")
    if level is not None and protocol in labels(level, "protocol"):
        here = [r for r in (*CHAIN, *BASELINES) if r in labels(level, "rung")]
        rows |= {r: interval(level, protocol=protocol, rung=r) for r in here}
    mean = result.array("/attribution", "lds_mean")
    if mean is not None:
        for rung in (r for r in BASELINES if r in labels(mean, "rung") and r not in rows):
            known = mean.sel(rung=rung).dropna("damping")
            if known.sizes["damping"]:
                rows[rung] = interval(known.isel(damping=0))
    return {name: value for name, value in rows.items() if value.known}


def plot_waterfall(
    tree: xr.DataTree, protocol: str = "equal", cell: int | None = None, ax: Axes | None = None
) -> Axes:
    """LDS from the noise ceiling over the exact Hessian down to K-FAC, with intervals."""
    result = Result(tree, cell)
    with report_style():
        ax = axes_or_new(ax)
        rows = levels(result, protocol)
        if not set(rows) & set(CHAIN):
            return say_missing(ax, "no LDS along the chain in this result")
        draw_bars(ax, _lds_bars(result, protocol, rows))
        ax.set_xlabel(f"LDS (mean over queries), {protocol_label(protocol)}")
        head(ax, result.name or _finding(result, protocol))
    return ax


def _finding(result: Result, protocol: str) -> str:
    """Which step costs most, as the title of a waterfall."""
    found = blame(result, "lds", protocol)
    if found is None or not found.known:
        return f"LDS by rung, {protocol_label(protocol)}"
    if not found.defined:
        return "The loss from Hessian to K-FAC is within noise"
    if found.total.estimate < 0:
        return "K-FAC scores above the Hessian"
    if found.largest is None:
        return "The largest step is not resolved"
    return f"The {step_label(found.largest)} step costs most"


def _lds_bars(result: Result, protocol: str, rows: dict[str, Interval]) -> list[Bar]:
    bars, drops, before = [], _drops(result, protocol), None
    styles = result.styles | {"ceiling": RungStyle(MUTED, "-", "|")}
    for name, value in rows.items():
        if name == "random":  # zero by definition, and it would stretch the axis
            continue
        start = before if name in CHAIN else None
        drop = drops.get(name)
        change = f" ({signed(-drop.estimate)})" if drop is not None and drop.known else ""
        text = f"{fixed(value.estimate)}{change}"
        bars.append(Bar(_rung(name), start, value, styles[name], text, name in CHAIN))
        before = value.estimate
    return bars


def _drops(result: Result, protocol: str) -> dict[str, Interval]:
    """Rung → what was lost on the way to it; the premise gap for the Hessian."""
    found: dict[str, Interval] = {}
    drop, premise = result.array("/shares", "drop"), result.array("/shares", "premise")
    if premise is not None and protocol in labels(premise, "protocol"):
        found["hessian"] = interval(premise, protocol=protocol)
    if drop is None or "lds" not in labels(drop, "metric"):
        return found
    for rung, step in zip(CHAIN[1:], STEPS, strict=True):
        if step in labels(drop, "step") and protocol in labels(drop, "protocol"):
            found[rung] = interval(drop, metric="lds", protocol=protocol, step=step)
    return found


def _rung(name: str) -> str:
    if name == "ceiling":
        return "noise ceiling"
    if name in CHAIN[1:]:
        return f"{rung_label(name)}\n{step_label(STEPS[CHAIN.index(name) - 1])}"
    return f"{rung_label(name)}\npremise gap" if name == "hessian" else rung_label(name)


def plot_spectral_waterfall(
    tree: xr.DataTree,
    metric: str = "frobenius_squared",
    protocol: str = "equal",
    cell: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """What each step adds to a squared spectral error; together they are the error of K-FAC."""
    result = Result(tree, cell)
    drop, total = result.array("/shares", "drop"), result.array("/shares", "total")
    place = {"metric": metric, "protocol": protocol}
    with report_style():
        ax = axes_or_new(ax)
        rows: dict[str, Interval] = {}
        if drop is not None and total is not None and metric in labels(drop, "metric"):
            rows = {s: interval(drop, step=s, **place) for s in labels(drop, "step")}
            rows = {s: value for s, value in rows.items() if value.known}
        if not rows or total is None:
            return say_missing(ax, "no spectral error along the chain in this result")
        bars, position = [], 0.0
        for step, value in rows.items():
            end = Interval(*(position + v for v in (value.lower, value.estimate, value.upper)))
            bars.append(Bar(_step(step), position, end, step_style(step), number(value.estimate)))
            position = end.estimate
        whole = interval(total, **place)
        bars.append(Bar("total", 0.0, whole, TOTAL, number(whole.estimate), joined=False))
        draw_bars(ax, bars, 0.0)
        ax.set_xlabel(f"{SHARE_METRICS.get(metric, metric)} against H")
        head(ax, result.name or _title(metric, protocol))
    return ax


def _step(step: str) -> str:
    if step == CROSS_TERM:
        return "cross term\n2⟨H−G, G−K⟩"
    rung = CHAIN[STEPS.index(step) + 1] if step in STEPS else ""
    return f"{rung_label(rung)}\n{step_label(step)}"


def _title(metric: str, protocol: str) -> str:
    name = SHARE_METRICS.get(metric, metric)
    title = name[:1].upper() + name[1:]
    # the Frobenius error knows no damping
    return title if metric == "frobenius_squared" else f"{title}, {protocol_label(protocol)}"


def ladders(result: Result) -> dict[str, list[str]]:
    """Rung → the steps of its ladder; empty where there is no ``/protocol_ladder``."""
    data = result.group("/protocol_ladder")
    if data is None or "ladder_step" not in data.coords:
        return {}
    found: dict[str, list[str]] = {}
    for step in labels(data["ladder_step"], "ladder_step"):
        of = data["ladder_of"].sel(ladder_step=step).item() if "ladder_of" in data.coords else ""
        found.setdefault(str(of), []).append(step)
    return found


def ladder_step_label(step: str) -> str:
    """``kfac: one_sample`` as ``one sample``."""
    return step.rpartition(": ")[2].replace("_", " ")


def plot_ladder(
    tree: xr.DataTree, protocol: str = "equal", cell: int | None = None, ax: Axes | None = None
) -> Axes:
    """A group per rung: its LDS under the controlled protocol, then what each change takes."""
    result = Result(tree, cell)
    groups, drop = ladders(result), result.array("/protocol_ladder", "drop")
    lines = sum(1 + len(steps) for steps in groups.values())
    with report_style():
        ax = axes_or_new(ax, 4.8, 0.9 + 0.32 * lines)
        if drop is None or protocol not in labels(drop, "protocol") or not groups:
            return say_missing(ax, "no ladder between protocols in this result")
        bars: list[Bar] = []
        for rung, steps in groups.items():
            style = rung_styles([rung])[rung]
            at = _foot(result, protocol, rung)
            bars.append(Bar(rung_label(rung), None, at, style, fixed(at.estimate)))
            end = at.estimate
            for step in steps:
                change = interval(drop, protocol=protocol, ladder_step=step)
                ends = Interval(end - change.upper, end - change.estimate, end - change.lower)
                if change.known:
                    name, text = f"+ {ladder_step_label(step)}", signed(-change.estimate)
                    bars.append(Bar(name, end, ends, style, text))
                    end = ends.estimate
        draw_bars(ax, bars)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(f"LDS, {protocol_label(protocol)}")
        head(ax, result.name or "From the controlled protocol to the paper's")
    return ax


def _foot(result: Result, protocol: str, rung: str) -> Interval:
    """LDS at the foot of a ladder; zero where the result holds none, so that the drops show."""
    level = result.array("/shares", "level")
    if level is None or rung not in labels(level, "rung"):
        return Interval(0.0, 0.0, 0.0)
    found = interval(level, protocol=protocol, rung=rung)
    return found if found.known else Interval(0.0, 0.0, 0.0)
