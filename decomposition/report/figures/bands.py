"""Gradients and score errors by spectral band of the reference."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.palette import INK, rung_label, rung_styles
from decomposition.report.wording import MINUS, superscript


def plot_gradient_energy(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of gradient energy and of curvature in every band.

    Args:
        data: from ``spectrum.bands.gradient_energy``.
        ax: where to draw.
    """
    place = np.arange(data.sizes["band"])
    with report_style():
        ax = axes_or_new(ax, width=5.6)
        parts = (
            ("query gradients", data["share"].sel(split="query").values, "#0072b2", ""),
            ("training gradients", data["share"].sel(split="train").values, "#c07800", "////"),
            ("curvature Σ|μ|", data["curvature"].values, "#b4bac4", ""),
        )
        for i, (name, values, color, hatch) in enumerate(parts):
            ax.bar(
                place + 0.27 * (i - 1),
                values,
                width=0.26,
                color=color,
                hatch=hatch,
                edgecolor="#fffffe",
                linewidth=0,
                label=name,
            )
        _band_axis(ax, data)
        ax.set_ylabel("share")
        ax.set_title("Where the gradients lie in the spectrum")
        ax.legend(loc="upper left", handlelength=2.4)
    return ax


def plot_score_error(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Share of the squared score error in every band, one row of marks per rung.

    Args:
        data: from ``spectrum.bands.score_error``; rungs equal to the reference are left out.
        ax: where to draw.
    """
    rungs = [str(r) for r in data["rung"].values if np.isfinite(data["share"].sel(rung=r)).any()]
    styles = rung_styles(map(str, data["rung"].values))
    place = np.arange(data.sizes["band"])
    with report_style():
        ax = axes_or_new(ax, width=5.6)
        if not rungs:
            return say_missing(ax, "no rung differs from the reference")
        for i, rung in enumerate(rungs):
            style = styles[rung]
            shift = 0.6 * ((i + 0.5) / len(rungs) - 0.5)
            relative = float(data["relative"].sel(rung=rung))
            values = data["share"].sel(rung=rung).values
            ax.vlines(place + shift, 0.0, values, color=style.color, linewidth=1.4)
            ax.plot(
                place + shift,
                values,
                linestyle="none",
                marker=style.marker,
                markersize=4,
                color=style.color,
                label=f"{rung_label(rung)} ({relative:.2g})",
            )
        ax.axhline(0.0, color=INK, linewidth=0.8)
        _band_axis(ax, data)
        ax.set_ylabel("share of squared score error")
        ax.set_title("Which band costs attribution (relative error)")
        ax.legend(loc="upper left", handlelength=2.4)
    return ax


def _band_axis(ax: Axes, data: xr.Dataset) -> None:
    names = []
    for sign, decade in zip(data["sign"].values, data["decade"].values, strict=True):
        mark = MINUS if sign < 0 else ""
        names.append("≈ 0" if sign == 0 else f"{mark}10{superscript(int(decade))}")
    ax.set_xticks(np.arange(len(names)), names, rotation=90 if len(names) > 9 else 0)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("eigenvalue of the reference (by decade)")
