"""Where the loss lives among the queries: each one's drop at every step."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, hint, report_style, say_missing
from decomposition.report.palette import MUTED, rung_styles
from decomposition.report.study import STEP_LABELS, Study, interval, labels
from decomposition.report.wording import span
from decomposition.results.schema import CHAIN, STEPS

_HALF = 0.36
"""Half the height over which a step's queries are spread."""


def plot_queries(tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """A row per step, a point per query; full where its interval excludes zero, else pale."""
    drop = Study(tree).array("/where/queries", "drop")
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if drop is None:
            return say_missing(ax, "no drops by query in this result")
        steps = labels(drop, "step")
        for y, step in enumerate(steps):
            low, middle, high = drop.sel(step=step).transpose("ci_bound", "query").values
            order = np.argsort(middle, kind="stable")
            height = np.empty(len(order))
            height[order] = y + np.linspace(_HALF, -_HALF, len(order))
            color = _color(step)
            clear = (low > 0) | (high < 0)
            for chosen, alpha, size in ((~clear, 0.3, 2.2), (clear, 0.95, 2.8)):
                ax.plot(
                    middle[chosen],
                    height[chosen],
                    linestyle="none",
                    marker="o",
                    markersize=size,
                    markeredgewidth=0,
                    color=color,
                    alpha=alpha,
                )
            if clear.any():
                worst = int(np.nanargmax(np.abs(np.where(clear, middle, 0.0))))
                at = drop["query"].values[worst]
                value = span(interval(drop, step=step, query=at))
                ring = ax.plot(middle[worst], height[worst], "o", ms=6, mfc="none", color=color)
                hint(ring[0], f"query {at}, {STEP_LABELS.get(step, step)}: {value}")
        ax.axvline(0, color=MUTED, linewidth=1.0)
        ax.set_yticks(range(len(steps)), [STEP_LABELS.get(s, s) for s in steps])
        ax.set_ylim(len(steps) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("LDS lost by one query (negative: gained)")
        ax.set_title("Loss by query at every step, tuned λ")
    return ax


def _color(step: str) -> str:
    if step not in STEPS:
        return MUTED
    return rung_styles(CHAIN)[CHAIN[STEPS.index(step) + 1]].color
