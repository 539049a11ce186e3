"""LDS against what each rung costs by itself, with the frontier."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    head,
    legend_outside,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.names import rung_label
from decomposition.report.palette import MUTED
from decomposition.report.result import Result, interval, labels


def plot_cost(tree: xr.DataTree, cell: int | None = None, ax: Axes | None = None) -> Axes:
    """A mark per rung; a line through those that no cheaper rung equals."""
    result = Result(tree, cell)
    data = result.group("/recommendation")
    with report_style():
        ax = axes_or_new(ax)
        if data is None:
            return say_missing(ax, "no LDS beside a cost in this result")
        rungs = [r for r in labels(data["rung"], "rung") if float(data["cost"].sel(rung=r)) > 0]
        cost = {rung: float(data["cost"].sel(rung=rung)) for rung in rungs}
        level = {rung: interval(data["level"], rung=rung) for rung in rungs}
        edge = [rung for rung in rungs if int(data["frontier"].sel(rung=rung))]
        edge.sort(key=cost.__getitem__)
        ax.plot(
            [cost[rung] for rung in edge],
            [level[rung].estimate for rung in edge],
            color=MUTED,
            linewidth=1.0,
            linestyle=(0, (4, 2)),
            zorder=1,
        )
        for rung in rungs:
            style, value = result.styles[rung], level[rung]
            ax.vlines(cost[rung], value.lower, value.upper, color=style.color, linewidth=1.2)
            ax.plot(cost[rung], value.estimate, color=style.color, marker=style.marker, ls="")
        log_scale(ax, "x")
        low, high = min(cost.values()), max(cost.values())
        ax.set_xlim(low / 1.6, high * 1.6)
        ax.margins(y=0.12)
        for rung in edge:  # above the interval, where no line passes
            ax.annotate(
                rung_label(rung),
                (cost[rung], level[rung].upper),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right" if rung == edge[-1] else "center",
                fontsize=8.5,
            )
        ax.set_xlabel("floating-point operations to score all queries at one λ")
        ax.set_ylabel("LDS at each rung's best λ")
        head(ax, _finding(data, cost))
        others = [rung for rung in rungs if rung not in edge]
        legend_outside(ax, [(result.styles[rung], rung_label(rung)) for rung in others])
    return ax


def _finding(data: xr.Dataset, cost: dict[str, float]) -> str:
    best, cheaper = (str(data.attrs.get(name, "")) for name in ("recommended", "cheaper"))
    if not best:
        return "No rung is told apart from random scores"
    if not cheaper:
        return f"Recommended: {rung_label(best)}"
    times = float(f"{cost[best] / cost[cheaper]:.2g}")
    return f"Recommended: {rung_label(best)}; {rung_label(cheaper)} is {times:,g} times cheaper"
