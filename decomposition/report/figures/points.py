"""Estimates with their intervals: points in bands, and lines with bands, through seaborn.

The estimates and bounds are the result's. Seaborn is given the three of them and told to draw the
median, which is the estimate, and the range, which is the interval.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from decomposition.report.interval import Interval
from decomposition.report.palette import GRID, MUTED, PAPER, RungStyle

LINE = 0.115
"""Inches from one mark of a band to the next; smaller, and the intervals touch."""
LABEL = 18
"""Characters of a band's label before it is wrapped."""
AS_GIVEN: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}
"""Of lower ≤ estimate ≤ upper, the estimate and the interval."""

Point = tuple[str, str, Interval]
"""(band, mark, value)."""


def band_height(marks: int) -> float:
    """Inches of a band of so many marks."""
    return max(LINE * marks + 0.13, 0.3)


def draw_points(
    ax: Axes,
    bands: Sequence[str],
    styles: Mapping[str, RungStyle],
    points: Iterable[Point],
    ends: tuple[float, float],
    hollow: Iterable[str] = (),
) -> None:
    """A band per name, first one on top; what reaches beyond ``ends`` ends in an arrow there.

    Args:
        ax: where.
        bands: their names.
        styles: mark → look; each has its own line in every band, in this order.
        points: the estimates; unknown ones leave their line empty.
        ends: of the horizontal axis.
        hollow: marks that are drawn as outlines.
    """
    known = [point for point in points if point[2].known]
    marks, outlined = list(styles), set(hollow)
    dodge = (len(marks) - 1) / max(len(marks), 1) * 0.84
    for face, chosen in (
        ({}, [p for p in known if p[1] not in outlined]),
        ({"markerfacecolor": PAPER}, [p for p in known if p[1] in outlined]),
    ):
        if not chosen:
            continue
        look: dict[str, Any] = {
            "order": list(bands),
            "hue_order": marks,
            "palette": {mark: style.color for mark, style in styles.items()},
            "markers": [style.marker for style in styles.values()],
            "linestyles": "none",
            "dodge": dodge or False,
            "markersize": 4.6,
            "err_kws": {"linewidth": 1.3},
            "legend": False,
        }
        frame = _frame(chosen, ("band", "mark"))
        look |= AS_GIVEN | face
        sns.pointplot(frame, x="value", y="band", hue="mark", ax=ax, **look)
    low, high = ends
    for band, mark, value in known:
        y = bands.index(band) - dodge / 2 + dodge * marks.index(mark) / max(len(marks) - 1, 1)
        for beyond, end, arrow in ((value.lower < low, low, "<"), (value.upper > high, high, ">")):
            if beyond:
                ax.plot(end, y, marker=arrow, color=styles[mark].color, markersize=4, clip_on=False)
    for row in range(1, len(bands)):
        ax.axhline(row - 0.5, color=GRID, linewidth=0.8)
    ax.set(xlim=ends, ylim=(len(bands) - 0.5, -0.5), ylabel="")
    ax.set_yticks(range(len(bands)), [textwrap.fill(name, LABEL) for name in bands])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def limits(
    values: Iterable[Interval], margin: float, include: Sequence[float]
) -> tuple[float, float]:
    """Ends of an axis that holds every estimate, and of the intervals at most ``margin`` beyond."""
    known = [v for v in values if v.known]
    inside = [*include, *(v.estimate for v in known)]
    bounds = [b for v in known for b in (v.lower, v.upper) if np.isfinite(b)]
    low, high = min(inside) - margin, max(inside) + margin
    pad = 0.02 * (high - low)
    return (
        max(low, min([*bounds, *inside]) - pad),
        min(high, max([*bounds, *inside]) + pad),
    )


def say_in_band(ax: Axes, row: int, text: str) -> None:
    """Words in place of a band's marks."""
    middle = sum(ax.get_xlim()) / 2
    ax.text(middle, row, text, ha="center", va="center", fontsize=8.5, color=MUTED)


def draw_lines(
    ax: Axes,
    styles: Mapping[str, RungStyle],
    points: Iterable[tuple[float, str, Interval]],
    marked: bool = True,
    names: Mapping[str, str] | None = None,
) -> None:
    """A line per name through its estimates, in a band of its intervals.

    Args:
        ax: where.
        styles: line → look.
        points: (x, line, value); unknown ones are left out.
        marked: whether each point has its marker.
        names: line → name in the legend; default the line's own.
    """
    known = [point for point in points if point[2].known]
    if not known:
        return
    frame = _frame(known, ("x", "line"))
    exact = all(value.exact or not math.isfinite(value.lower) for *_, value in known)
    met = [line for line in styles if line in set(frame["line"])]
    look: dict[str, Any] = {
        "hue_order": met,
        "style_order": met,
        "palette": {line: styles[line].color for line in met},
        "dashes": {line: _dashes(styles[line]) for line in met},
        "markers": {line: styles[line].marker for line in met} if marked else False,
        "markersize": 4.2,
        "markeredgewidth": 0,
        "legend": False,
        **({"estimator": None} if exact else {**AS_GIVEN, "err_kws": _BAND}),
    }
    shown = frame.drop_duplicates() if exact else frame
    sns.lineplot(shown, x="x", y="value", hue="line", style="line", ax=ax, **look)
    for line in met:
        style = styles[line]
        shape = {"linestyle": style.dash, "marker": style.marker if marked else None}
        name = (names or {}).get(line, line)
        ax.plot([], [], color=style.color, markersize=4.2, label=name, **shape)


_BAND = {"alpha": 0.15, "linewidth": 0}


def _dashes(style: RungStyle) -> Any:
    """A line style as seaborn has it: lengths alone, and none for a solid line."""
    return "" if isinstance(style.dash, str) else style.dash[1]


def _frame(points: Sequence[tuple[Any, Any, Interval]], columns: tuple[str, str]) -> pd.DataFrame:
    """A row per bound; a bound that was not computed is left out."""
    first, second = columns
    rows = [
        {first: one, second: other, "value": bound}
        for one, other, value in points
        for bound in (value.lower, value.estimate, value.upper)
        if math.isfinite(bound)
    ]
    return pd.DataFrame(rows)
