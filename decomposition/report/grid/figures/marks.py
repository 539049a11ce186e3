"""Estimates with their intervals, in bands: a band per row, a line in it per mark."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from decomposition.report.figures.canvas import hint
from decomposition.report.interval import Interval
from decomposition.report.palette import GRID, MUTED, PAPER, RungStyle

LINE = 0.115
"""Inches from one mark of a band to the next; smaller, and the intervals touch."""

LABEL = 18
"""Characters of a band's label before it is wrapped."""


@dataclass(frozen=True)
class Mark:
    """One estimate."""

    value: Interval
    style: RungStyle
    hint: str = ""
    """What a pointer brings up."""
    hollow: bool = False


def band_height(marks: int) -> float:
    """Inches of a band of so many marks."""
    return max(LINE * marks + 0.13, 0.3)


def draw_bands(
    ax: Axes, names: Sequence[str], bands: Sequence[Sequence[Mark | None]], low: float, high: float
) -> None:
    """A band per name, first one on top; what reaches beyond [low, high] ends in an arrow there.

    Args:
        ax: where.
        names: labels of the bands.
        bands: the marks of each, top down; None leaves its line empty.
        low, high: ends of the horizontal axis.
    """
    lines = max((len(band) for band in bands), default=1)
    placed = [
        (mark, place(row, line, lines))
        for row, band in enumerate(bands)
        for line, mark in enumerate(band)
        if mark is not None and mark.value.known
    ]
    _intervals(ax, placed, low, high)
    # one artist for all marks of a look, unless each has words of its own
    looks: dict[tuple[RungStyle, bool, str], list[tuple[float, float]]] = {}
    for mark, y in placed:
        looks.setdefault((mark.style, mark.hollow, mark.hint), []).append((mark.value.estimate, y))
    for (style, hollow, told), points in looks.items():
        look = {"color": style.color, "marker": style.marker, "markersize": 4.6}
        face = PAPER if hollow else style.color
        (dots,) = ax.plot(*zip(*points, strict=True), ls="none", markerfacecolor=face, **look)
        if told:
            hint(dots, told)
    for row in range(1, len(bands)):
        ax.axhline(row - 0.5, color=GRID, linewidth=0.8)
    ax.set_xlim(low, high)
    ax.set_ylim(len(bands) - 0.5, -0.5)
    ax.set_yticks(range(len(bands)), [textwrap.fill(name, LABEL) for name in names])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def place(row: int, line: int, lines: int) -> float:
    """Height of a line of a band, in data coordinates."""
    room = 1.0 - 0.13 / band_height(lines)
    return row + room * ((line + 0.5) / lines - 0.5)


def limits(values: Iterable[Interval], margin: float, include: Sequence[float]) -> list[float]:
    """Ends of an axis that holds every estimate, and of the intervals at most ``margin`` beyond."""
    known = [v for v in values if v.known]
    inside = [*include, *(v.estimate for v in known)]
    bounds = [b for v in known for b in (v.lower, v.upper) if np.isfinite(b)]
    low, high = min(inside) - margin, max(inside) + margin
    pad = 0.02 * (high - low)
    return [max(low, min([*bounds, *inside]) - pad), min(high, max([*bounds, *inside]) + pad)]


def legend_outside(ax: Axes, entries: Sequence[tuple[RungStyle, str]], columns: int = 0) -> None:
    """Names of the styles under the figure, once for all of its Axes."""
    figure = ax.get_figure()
    if not isinstance(figure, Figure) or figure.legends or not entries:
        return
    handles = [
        Line2D([], [], color=s.color, marker=s.marker, linewidth=1.4, markersize=5)
        for s, _ in entries
    ]
    names = [name for _, name in entries]
    wide = figure.get_figwidth() / (0.42 + 0.075 * max(map(len, names)))
    figure.legend(
        handles,
        names,
        loc="outside lower left",
        ncols=columns or max(1, min(int(wide), len(names))),
        handlelength=1.8,
        columnspacing=1.0,
    )


def say_in_band(ax: Axes, row: int, text: str) -> None:
    """Words in place of a band's marks."""
    middle = sum(ax.get_xlim()) / 2
    ax.text(middle, row, text, ha="center", va="center", fontsize=8.5, color=MUTED)


def _intervals(ax: Axes, placed: Sequence[tuple[Mark, float]], low: float, high: float) -> None:
    known = [
        (mark.value, y, mark.style.color)
        for mark, y in placed
        if math.isfinite(mark.value.lower) and math.isfinite(mark.value.upper)
    ]
    if not known:
        return
    values, heights, colors = zip(*known, strict=True)
    starts = [min(max(v.lower, low), high) for v in values]
    ends = [min(max(v.upper, low), high) for v in values]
    ax.hlines(heights, starts, ends, colors=list(colors), linewidth=1.3)
    for value, y, color in known:
        for beyond, end, arrow in ((value.lower < low, low, "<"), (value.upper > high, high, ">")):
            if beyond:
                ax.plot(end, y, marker=arrow, color=color, markersize=4, clip_on=False)
