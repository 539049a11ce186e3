"""What a damping that needs no retraining costs: one band a rule, one mark a rung."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    head,
    legend_outside,
    report_style,
    say_missing,
)
from decomposition.report.figures.curves import UNDRAWN
from decomposition.report.figures.points import Point, band_height, draw_points, limits
from decomposition.report.names import protocol_label, rung_label
from decomposition.report.palette import MUTED
from decomposition.report.result import Result, interval, labels


def plot_regret(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """LDS under the tuned damping minus that under every other, mean over cells."""
    result = Result(tree, cell)
    with report_style():
        mean = result.known("/regret", "mean")
        if mean is None:
            return say_missing(axes_or_new(ax), "no other damping than the tuned one here")
        protocols = labels(mean, "protocol")
        rungs = [r for r in labels(mean, "rung") if r not in UNDRAWN]
        names = {protocol: protocol_label(protocol) for protocol in protocols}
        ax = axes_or_new(ax, 4.8, 1.4 + len(protocols) * band_height(len(rungs)))
        points: list[Point] = [
            (names[protocol], rung, interval(mean, protocol=protocol, rung=rung))
            for protocol in protocols
            for rung in rungs
        ]
        styles = {rung: result.styles[rung] for rung in rungs}
        ends = limits([value for *_, value in points], 0.1, (0.0,))
        draw_points(ax, list(names.values()), styles, points, ends)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_xlabel("LDS lost against each rung's tuned λ")
        head(ax, "What not tuning λ costs")
        legend_outside(ax, [(styles[rung], rung_label(rung)) for rung in rungs])
    return ax
