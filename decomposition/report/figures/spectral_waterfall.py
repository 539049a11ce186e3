"""Spectral error along the chain: what each step adds to an exact, squared error."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, beside, report_style, say_missing
from decomposition.report.palette import INK, MUTED, rung_label, rung_styles
from decomposition.report.study import (
    PROTOCOLS,
    SHARE_METRICS,
    STEP_LABELS,
    Interval,
    Study,
    interval,
    labels,
)
from decomposition.report.wording import number
from decomposition.results.schema import CHAIN, CROSS_TERM, STEPS


def plot_spectral_waterfall(
    tree: xr.DataTree,
    metric: str = "frobenius_squared",
    protocol: str = "equal",
    ax: Axes | None = None,
) -> Axes:
    """Bars that start where the last one ended; together they are the error of K-FAC."""
    study = Study(tree)
    drop, total = study.array("/shares", "drop"), study.array("/shares", "total")
    with report_style():
        ax = axes_or_new(ax)
        if drop is None or total is None or metric not in labels(drop, "metric"):
            return say_missing(ax, "no spectral error along the chain in this result")
        place = {"metric": metric, "protocol": protocol}
        rows = {s: interval(drop, step=s, **place) for s in labels(drop, "step")}
        rows = {s: value for s, value in rows.items() if value.known}
        if not rows:
            return say_missing(ax, "no spectral error along the chain in this result")
        position = 0.0
        for y, (step, value) in enumerate(rows.items()):
            color = _color(step)
            ax.barh(y, value.estimate, left=position, height=0.62, color=color, alpha=0.45)
            if not value.exact:
                ends = [position + value.lower, position + value.upper]
                ax.plot(ends, [y, y], color=INK, linewidth=1.2, marker="|", markersize=6)
            position += value.estimate
            ax.plot([position, position], [y - 0.31, y + 1.31], color=MUTED, linewidth=0.8)
            edge = max(position, position - value.estimate)
            beside(ax, edge, y, number(value.estimate))
        whole: Interval = interval(total, **place)
        last = len(rows)
        ax.barh(last, whole.estimate, height=0.42, color=INK, alpha=0.55)
        beside(ax, whole.estimate, last, number(whole.estimate))
        ax.set_yticks(range(last + 1), [*map(_label, rows), "total"])
        ax.set_ylim(last + 0.6, -0.6)
        ends = np.cumsum([v.estimate for v in rows.values()])
        ax.set_xlim(min(0.0, ends.min() * 1.15), max(whole.estimate, ends.max()) * 1.25 or 1.0)
        ax.set_xlabel(f"{SHARE_METRICS.get(metric, metric)} against H")
        ax.set_title(_title(metric, protocol))
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    return ax


def _color(step: str) -> str:
    if step not in STEPS:
        return MUTED
    return rung_styles(CHAIN)[CHAIN[STEPS.index(step) + 1]].color


def _label(step: str) -> str:
    if step == CROSS_TERM:
        return "cross term\n2⟨H−G, G−K⟩"
    rung = CHAIN[STEPS.index(step) + 1] if step in STEPS else ""
    return f"{rung_label(rung)}\n{STEP_LABELS.get(step, step)}"


def _title(metric: str, protocol: str) -> str:
    name = SHARE_METRICS.get(metric, metric)
    title = name[:1].upper() + name[1:]
    # the Frobenius error knows no damping
    return (
        title if metric == "frobenius_squared" else f"{title}, {PROTOCOLS.get(protocol, protocol)}"
    )
