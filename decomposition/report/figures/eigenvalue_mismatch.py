"""K-FAC's products against exact values: by decade, and what one scale factor mends."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.palette import INK, MUTED, rung_styles
from decomposition.report.wording import isolated, superscript

_MARKERS = "osD^vPX*<>"


def plot_mismatch_by_decade(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Median and quartiles of product / exact by decade of the exact value, for every block.

    Args:
        data: from ``spectrum.mismatch.mismatch_by_decade``.
        ax: where to draw. Above 1 K-FAC overestimates: it trusts the direction too little.
    """
    blocks = [str(s) for s in data["scope"].values if s != "whole"]
    colors = [style.color for style in rung_styles(f"block {i}" for i in range(5)).values()]
    decades = data["decade"].values.astype(float)
    with report_style():
        ax = axes_or_new(ax)
        for i, block in enumerate(blocks):
            here = data.sel(scope=block)
            middle = here["median"].values
            known = np.isfinite(middle)
            below, above = middle - here["lower"].values, here["upper"].values - middle
            shift = 0.7 * ((i + 0.5) / len(blocks) - 0.5)
            ax.errorbar(
                decades[known] + shift,
                middle[known],
                yerr=np.stack([below[known], above[known]]),
                linestyle="none",
                marker=_MARKERS[i % len(_MARKERS)],
                color=colors[i % len(colors)],
                capsize=2,
                linewidth=1.1,
                label=f"block {isolated(block, 18)}",
            )
        ax.axhline(1.0, color=MUTED, linewidth=1.0)
        log_scale(ax, "y")
        ax.set_yticks(*_factors(ax.get_ylim()))
        ax.set_xticks(decades, [_decade(int(d)) for d in decades])
        ax.tick_params(axis="x", labelsize=8)
        ax.set_xlabel("exact curvature along the eigenvector (from, by decade)")
        ax.set_ylabel("product / exact, median and quartiles")
        ax.set_title("Over- and underestimation by decade")
        legend_below(ax, columns=3)
    return ax


def plot_mismatch_parts(data: xr.Dataset, match: str = "trace", ax: Axes | None = None) -> Axes:
    """Squared eigenvalue error ‖E − K‖² / ‖E‖², split into one scale factor and shape.

    Args:
        data: from ``spectrum.mismatch.mismatch_parts``.
        match: trace, or least_squares.
        ax: where to draw.
    """
    here = data.sel(match=match)
    scopes = [str(scope) for scope in here["scope"].values]
    place = np.arange(len(scopes))
    shape, scale = here["shape"].values, here["scale"].values
    with report_style():
        ax = axes_or_new(ax, height=0.55 * len(scopes) + 1.9)
        ax.barh(place, shape, height=0.6, color="#d04a02", label="shape: no factor mends it")
        ax.barh(
            place,
            scale,
            height=0.6,
            left=np.where(scale >= 0, shape, shape),
            color="#c07800",
            hatch="////",
            edgecolor="#fffffe",
            linewidth=0,
            label="scale: one factor mends it",
        )
        for y, (total, factor) in enumerate(zip(shape + scale, here["factor"].values, strict=True)):
            text = "" if np.isnan(factor) else f"× {factor:.2f}"
            ax.annotate(
                text,
                (max(total, 0.0), y),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=INK,
            )
        ax.set_yticks(place, [s if s == "whole" else f"block {isolated(s, 16)}" for s in scopes])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("squared eigenvalue error, relative to EK-FAC")
        how = "trace-matched" if match == "trace" else "least squares"
        ax.set_title(f"Scale against shape ({how})")
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.3), ncols=2, borderaxespad=0.0)
    return ax


def _factors(limits: tuple[float, float]) -> tuple[list[float], list[str]]:
    series = [m * 10.0**d for d in range(-6, 7) for m in (1, 2, 5)]
    inside = [value for value in series if limits[0] <= value <= limits[1]]
    if len(inside) > 9:
        inside = [v for v in inside if np.isclose(np.log10(v), np.round(np.log10(v)))]
    return inside, [f"{value:g}" for value in inside]


def _decade(exponent: int) -> str:
    return f"10{superscript(exponent)}"
