"""Axes to draw on: the caller's, or new ones outside pyplot, in the report's style."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from decomposition.report.palette import GRID, INK, MUTED, PAPER, RungStyle
from decomposition.report.wording import superscript

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "decomposition",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
"""Matplotlib settings of every figure; text is never parsed, names are shown as they are."""

HINT = "hint-"
"""Start of the id of an artist that carries a hint."""


@contextmanager
def report_style() -> Iterator[None]:
    """The report's settings for the duration of a block, leaving the global ones alone."""
    with mpl.rc_context(STYLE):
        yield


def axes_or_new(ax: Axes | None, width: float = 4.8, height: float = 3.5) -> Axes:
    """``ax``, or the only Axes of a new Figure of ``width`` × ``height`` inches."""
    if ax is not None:
        return ax
    figure = Figure(figsize=(width, height))
    # text is a little wider in a PNG than where the layout is computed
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    return figure.subplots()


def say_missing(ax: Axes, what: str) -> Axes:
    """Empty Axes that say what the result does not hold."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, what, ha="center", va="center", color=MUTED, transform=ax.transAxes)
    return ax


def hint(artist: Artist, text: str) -> None:
    """Text that a pointer resting on the artist brings up; no more than what a table tells.

    It travels in the artist's id, in hexadecimal, and ``report.drawing`` makes an SVG title of it.
    """
    text = "".join(c if c.isprintable() else "�" for c in text)
    artist.set_gid(HINT + text.encode("utf-8", "replace").hex())


def head(ax: Axes, text: str) -> None:
    """The figure's title: what it shows, from its left edge on, in as many lines as it needs."""
    figure = ax.get_figure()
    if not isinstance(figure, Figure) or len(figure.axes) > 1:
        ax.set_title(text)
        return
    width = int(10.2 * figure.get_figwidth())
    look = {"fontsize": STYLE["axes.titlesize"], "fontweight": STYLE["axes.titleweight"]}
    figure.suptitle(textwrap.fill(text, width), x=0.01, ha="left", color=INK, **look)


def beside(ax: Axes, x: float, y: float, text: str, left: bool = False) -> None:
    """A value to the right of a mark, or to its left."""
    ax.annotate(
        text,
        (x, y),
        xytext=(-5 if left else 5, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=8.5,
        color=INK,
    )


def label_lines(ax: Axes, ends: Sequence[tuple[str, str, Sequence[float]]]) -> None:
    """Names of lines at the side where they lie furthest apart, moved so that none touch.

    Args:
        ax: with its limits set.
        ends: (name, colour, heights of its two ends).
    """
    known = [end for end in ends if np.isfinite(end[2]).all()]
    if not known:
        return
    heights = np.array([end[2] for end in known])
    nearest = [np.diff(np.sort(side)).min() if len(side) > 1 else 0.0 for side in heights.T]
    right = bool(nearest[1] >= nearest[0])
    places = _apart(heights[:, int(right)], 0.065 * float(np.ptp(ax.get_ylim())))
    for (name, color, _), place in zip(known, places, strict=True):
        ax.annotate(
            name,
            (float(right), place),
            xycoords=("axes fraction", "data"),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            color=color,
            fontsize=8.5,
            ha="left" if right else "right",
            va="center",
        )
    if not right:
        ax.yaxis.tick_right()
        ax.yaxis.set_label_position("right")
        ax.spines["left"].set_visible(False)
        ax.spines["right"].set_visible(True)


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """The heights, moved as little as may be until neighbours are ``gap`` apart."""
    order = np.argsort(heights, kind="stable")
    places = heights[order].astype(float)
    for _ in range(100):
        for i in range(1, len(places)):
            short = gap - (places[i] - places[i - 1])
            if short > 0:
                places[i - 1] -= short / 2
                places[i] += short / 2
    return places[np.argsort(order, kind="stable")]


def legend_below(ax: Axes, columns: int = 4) -> None:
    """A legend under the axes, where it hides nothing at any width."""
    names = ax.get_legend_handles_labels()[1]
    if not names:
        return
    columns = columns if max(map(len, names)) <= 17 else 2
    figure, rows = ax.get_figure(), math.ceil(len(names) / columns)
    if isinstance(figure, Figure) and len(figure.axes) == 1:  # the axes keep their height
        figure.set_figheight(figure.get_figheight() + 0.19 * max(0, rows - 4))
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(0.0, -0.2),
        ncols=columns,
        borderaxespad=0.0,
        handlelength=3.4,
        columnspacing=1.2,
    )


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


def log_scale(ax: Axes, *names: str) -> None:
    """Logarithmic axes whose labels are plain text, as names are never parsed as mathematics."""
    for name in names:
        axis = ax.xaxis if name == "x" else ax.yaxis
        low, high = axis.get_data_interval()
        if 0 < low == high:  # a single value has decades around it too
            ax.set(**{f"{name}lim": (low / 10, high * 10)})
        ax.set(**{f"{name}scale": "log"})
        axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        axis.set_minor_locator(NullLocator())


def _power(value: float) -> str:
    if value <= 0:
        return ""
    exponent = math.log10(value)
    if not math.isclose(exponent, round(exponent), abs_tol=1e-9):
        return f"{value:g}"
    return f"10{superscript(round(exponent))}"
