"""Differences of LDS with their intervals: beside the chain, and between dampings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.bands import leading_protocol
from decomposition.report.figures.canvas import (
    axes_or_new,
    head,
    legend_outside,
    report_style,
    say_missing,
)
from decomposition.report.figures.curves import UNDRAWN
from decomposition.report.figures.points import Point, band_height, draw_points, limits
from decomposition.report.interval import Interval
from decomposition.report.names import protocol_label, rung_label
from decomposition.report.palette import MUTED
from decomposition.report.result import Result, interval, labels


def plot_beside(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """LDS of what stands beside the chain minus that of every rung, in a band for each."""
    result = Result(tree, cell)
    difference = result.known("/beside", "difference")
    if difference is None:
        return _missing(ax, "nothing beside the chain in this result")
    protocol, known = leading_protocol(result, difference), difference
    return _draw(
        ax,
        result,
        {other: rung_label(other, 60) for other in labels(known, "other")},
        labels(known, "rung"),
        lambda other, rung: interval(known, protocol=protocol, other=other, rung=rung),
        f"LDS minus that of the rung, {protocol_label(protocol)}",
        "Beside the chain, against each rung",
    )


def plot_regret(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """LDS under the tuned damping minus that under every other, mean over cells."""
    result = Result(tree, cell)
    mean = result.known("/regret", "mean")
    if mean is None:
        return _missing(ax, "no other damping than the tuned one here")
    known = mean
    return _draw(
        ax,
        result,
        {protocol: protocol_label(protocol) for protocol in labels(known, "protocol")},
        [rung for rung in labels(known, "rung") if rung not in UNDRAWN],
        lambda protocol, rung: interval(known, protocol=protocol, rung=rung),
        "LDS lost against each rung's tuned λ",
        "What not tuning λ costs",
    )


def _missing(ax: Axes | None, what: str) -> Axes:
    with report_style():
        return say_missing(axes_or_new(ax), what)


def _draw(
    ax: Axes | None,
    result: Result,
    bands: Mapping[str, str],
    rungs: Sequence[str],
    value: Callable[[str, str], Interval],
    unit: str,
    title: str,
) -> Axes:
    """A band per name, a mark per rung, and a line at zero."""
    with report_style():
        ax = axes_or_new(ax, 4.8, 1.4 + len(bands) * band_height(len(rungs)))
        points: list[Point] = [
            (name, rung, value(band, rung)) for band, name in bands.items() for rung in rungs
        ]
        styles = {rung: result.styles[rung] for rung in rungs}
        ends = limits([one for *_, one in points], 0.1, (0.0,))
        draw_points(ax, list(bands.values()), styles, points, ends)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel(unit)
        head(ax, title)
        legend_outside(ax, [(styles[rung], rung_label(rung)) for rung in rungs])
    return ax
