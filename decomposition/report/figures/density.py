"""Spectral density on a symmetric-logarithmic axis, and effective dimension against damping."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.figures.rank_curve import scope_label
from decomposition.report.palette import MUTED, rung_label, rung_styles
from decomposition.report.wording import MINUS, superscript

SMALLEST = 0.5
"""Eigenvalues per decade at the foot of the axis."""


def plot_density(data: xr.Dataset, scope: str = "whole", ax: Axes | None = None) -> Axes:
    """Eigenvalues per decade; the band is ± 2 standard errors where the density is estimated.

    Args:
        data: density, standard_error (scope, rung, position), from ``spectrum.density.density``.
        scope: whole, or a block.
        ax: where to draw.
    """
    here = data.sel(scope=scope)
    rungs = [str(rung) for rung in here["rung"].values]
    styles = rung_styles(rungs)
    position = here["position"].values
    with report_style():
        ax = axes_or_new(ax, height=4.0)
        for rung in rungs:
            value = here["density"].sel(rung=rung).values
            if not np.isfinite(value).any():
                continue
            error = np.nan_to_num(here["standard_error"].sel(rung=rung).values)
            style = styles[rung]
            shown = np.where(value >= SMALLEST / 10, value, np.nan)
            look = {"color": style.color, "linestyle": style.dash}
            ax.plot(position, shown, label=rung_label(rung), **look)
            if error.any():
                low = np.maximum(value - 2 * error, SMALLEST / 10)
                high = np.maximum(value + 2 * error, SMALLEST / 10)
                ax.fill_between(position, low, high, color=style.color, alpha=0.25, linewidth=0)
        ax.axvline(0.0, color=MUTED, linewidth=0.8)
        log_scale(ax, "y")
        ax.set_ylim(bottom=SMALLEST)
        places, names = ticks(position, float(data.attrs["threshold"]))
        ax.set_xticks(places, names)
        ax.set_xlabel("eigenvalue (symmetric logarithmic)")
        ax.set_ylabel("eigenvalues per decade")
        ax.set_title(f"Spectral density, {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax


def plot_effective_dimension(
    data: xr.Dataset, scope: str = "whole", ax: Axes | None = None
) -> Axes:
    """Σ |μ| / (|μ| + λ) against λ: how many directions a damping leaves alone."""
    here = data.sel(scope=scope)
    rungs = [str(rung) for rung in here["rung"].values]
    styles = rung_styles(rungs)
    damping = here["damping"].values
    with report_style():
        ax = axes_or_new(ax)
        for rung in rungs:
            value = here["dimension"].sel(rung=rung).values
            if not np.isfinite(value).any():
                continue
            error = np.nan_to_num(here["standard_error"].sel(rung=rung).values)
            style = styles[rung]
            look = {"color": style.color, "linestyle": style.dash}
            ax.plot(damping, value, label=rung_label(rung), **look)
            if error.any():
                band = (np.maximum(value - 2 * error, 1e-3), value + 2 * error)
                ax.fill_between(damping, *band, color=style.color, alpha=0.25, linewidth=0)
        log_scale(ax, "x", "y")
        ax.set_ylim(bottom=0.5)
        ax.set_xlabel("damping λ")
        ax.set_ylabel("effective dimension")
        ax.set_title(f"Effective dimension, {scope_label(scope)}")
        legend_below(ax, columns=3)
    return ax


def ticks(position: np.ndarray, threshold: float) -> tuple[list[float], list[str]]:
    """Powers of ten of both signs, spaced so that labels do not touch, and 0."""
    reach = int(np.floor(max(position.max(), -position.min())))
    step = max(1, round((position.max() - position.min()) / 5))
    exponent = np.log10(threshold)
    places, names = [0.0], ["0"]
    for decade in range(int(np.ceil(exponent)), int(np.ceil(exponent)) + reach + 1):
        place = np.arcsinh(10.0 ** (decade - exponent) / 2.0) / np.log(10.0)
        if (int(np.ceil(exponent + reach)) - decade) % step or place < 0.6 * step:
            continue
        for sign, mark in ((1.0, ""), (-1.0, MINUS)):
            if position.min() <= sign * place <= position.max():
                places.append(sign * place)
                names.append(f"{mark}10{superscript(decade)}")
    return places, names
