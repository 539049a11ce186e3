"""Slopes with intervals: how levels and drops change with a factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.grid.cells import Grid, protocol_label, step_label
from decomposition.report.grid.figures.factor import factor_label
from decomposition.report.grid.figures.marks import (
    Mark,
    band_height,
    draw_bands,
    legend_outside,
    limits,
)
from decomposition.report.grid.figures.shares import step_style
from decomposition.report.interval import Interval
from decomposition.report.palette import INK, MUTED, RUNG_LABELS, RungStyle, rung_styles
from decomposition.report.study import STEP_LABELS, interval, labels
from decomposition.report.wording import span
from decomposition.results.schema import STEPS

_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Trend:
    """How one quantity changes with one factor."""

    quantity: str
    """As the study names it, such as ``level hessian by epoch``."""
    kind: str
    """level, drop or share."""
    name: str
    """Rung or step."""
    factor: str
    unit: str
    slopes: dict[str, Interval]
    """Protocol → slope."""
    p_values: dict[str, float]
    """Protocol → p-value of no trend; NaN where there is none."""

    @property
    def label(self) -> str:
        """Its rung or step for people."""
        if self.name in STEP_LABELS:
            return step_label(self.name)
        return RUNG_LABELS.get(self.name, self.name.replace("_", " "))


def trends(grid: Grid) -> list[Trend]:
    """Every trend of the study, in its order; none where it holds no ``/trends``."""
    data = grid.group("/trends")
    if data is None or "slope" not in data:
        return []
    return [_trend(grid, data, quantity) for quantity in labels(data["slope"], "quantity")]


def plot_trends(tree: xr.DataTree, kind: str, factor: str, ax: Axes | None = None) -> Axes:
    """A band per rung or step, a mark per protocol; zero is no trend.

    Args:
        tree: a study.
        kind: level, drop or share.
        factor: one of the study's factors.
        ax: where to draw.
    """
    grid = Grid(tree)
    found = [t for t in trends(grid) if (t.kind, t.factor) == (kind, factor)]
    with report_style():
        names = list(found[0].slopes) if found else []
        ax = axes_or_new(ax, 3.9, 1.3 + len(found) * band_height(len(names)))
        if not found:
            return say_missing(ax, "no trends in this study")
        markers = dict(zip(names, _MARKERS * 9, strict=False))
        bands = [[_mark(t, p, markers[p]) for p in names] for t in found]
        values = [mark.value for band in bands for mark in band if mark.value.known]
        # half of the intervals fit whole, and every estimate does
        width = float(np.nanmedian([v.upper - v.lower for v in values])) if values else 1.0
        low, high = limits(values, 2 * width, (0.0,))
        draw_bands(ax, [t.label for t in found], bands, low, high)
        ax.axvline(0, color=MUTED, linewidth=1.0)
        ax.set_xlabel(found[0].unit)
        ax.set_title(f"{kind.capitalize()} by {factor_label(factor)}")
        looks = [(RungStyle(INK, "-", markers[p]), protocol_label(p)) for p in names]
        legend_outside(ax, looks, columns=2)
    return ax


def _mark(trend: Trend, protocol: str, marker: str) -> Mark:
    slope = trend.slopes[protocol]
    if trend.name in STEPS:
        color = step_style(trend.name).color
    else:
        color = rung_styles([trend.name])[trend.name].color
    told = f"{trend.quantity}, {protocol_label(protocol)}: {span(slope)}"
    return Mark(slope, RungStyle(color, "-", marker), told)


def _trend(grid: Grid, data: xr.Dataset, quantity: str) -> Trend:
    what, _, by = quantity.partition(" by ")
    kind, _, name = what.partition(" ")
    here = data.sel(quantity=quantity)
    factor = str(here["factor"].item()) if "factor" in here else by or grid.factor
    unit = here["unit"].item() if "unit" in here else _unit(data, factor)
    slopes = {p: interval(here["slope"], protocol=p) for p in labels(data["protocol"], "protocol")}
    p_values = {
        p: float(here["p_value"].sel(protocol=p)) if "p_value" in here else np.nan for p in slopes
    }
    return Trend(quantity, kind, name, factor, str(unit), slopes, p_values)


def _unit(data: xr.Dataset, factor: str) -> str:
    found = data["slope"].attrs.get("unit", data.attrs.get("unit"))
    return str(found) if found else f"change with {factor}"
