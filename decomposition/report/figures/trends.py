"""Slopes with intervals: how levels and drops change with a factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.names import RUNG_LABELS
from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_outside,
    report_style,
    say_missing,
)
from decomposition.report.figures.curves import factor_label
from decomposition.report.figures.points import band_height, draw_points, limits
from decomposition.report.interval import Interval
from decomposition.report.names import STEP_LABELS, protocol_label, step_label
from decomposition.report.palette import MUTED, rung_styles
from decomposition.report.result import Result, interval, labels


@dataclass(frozen=True)
class Trend:
    """How one quantity changes with one factor."""

    quantity: str
    """As the result names it, such as ``level hessian by epoch``."""
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


def trends(result: Result) -> list[Trend]:
    """Every trend of the result, in its order; none where it holds no ``/trends``."""
    data = result.group("/trends")
    if data is None or "slope" not in data:
        return []
    return [_trend(result, data, quantity) for quantity in labels(data["slope"], "quantity")]


def _trend(result: Result, data: xr.Dataset, quantity: str) -> Trend:
    what, _, by = quantity.partition(" by ")
    kind, _, name = what.partition(" ")
    here = data.sel(quantity=quantity)
    factor = str(here["factor"].item()) if "factor" in here else by or result.factor
    unit = here["unit"].item() if "unit" in here else f"change with {factor}"
    slopes = {p: interval(here["slope"], protocol=p) for p in labels(data["protocol"], "protocol")}
    p_values = {
        p: float(here["p_value"].sel(protocol=p)) if "p_value" in here else np.nan for p in slopes
    }
    return Trend(quantity, kind, name, factor, str(unit), slopes, p_values)


def plot_trends(tree: xr.DataTree, kind: str, factor: str, ax: Axes | None = None) -> Axes:
    """A band per rung or step, a mark per protocol; zero is no trend.

    Args:
        tree: a result.
        kind: level, drop or share.
        factor: one of the study's factors.
        ax: where to draw.
    """
    found = [t for t in trends(Result(tree)) if (t.kind, t.factor) == (kind, factor)]
    with report_style():
        names = list(found[0].slopes) if found else []
        ax = axes_or_new(ax, 3.9, 1.3 + len(found) * band_height(len(names)))
        if not found:
            return say_missing(ax, "no trends in this result")
        styles = rung_styles(f"protocol {name}" for name in names)
        styles = dict(zip(names, styles.values(), strict=True))
        points = [(t.label, p, slope) for t in found for p, slope in t.slopes.items()]
        values = [slope for *_, slope in points if slope.known]
        # half of the intervals fit whole, and every estimate does
        width = float(np.nanmedian([v.upper - v.lower for v in values])) if values else 1.0
        ends = limits(values, 2 * width, (0.0,))
        draw_points(ax, [t.label for t in found], styles, points, ends)
        ax.axvline(0, color=MUTED, linewidth=1.0)
        ax.set_xlabel(found[0].unit)
        ax.set_title(f"{kind.capitalize()} by {factor_label(factor)}")
        legend_outside(ax, [(style, protocol_label(p)) for p, style in styles.items()], columns=2)
    return ax
