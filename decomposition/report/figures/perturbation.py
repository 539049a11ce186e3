"""How far each step moves eigenvalues and subspaces, against Weyl and Davis–Kahan."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.palette import rung_styles
from decomposition.report.study import STEP_LABELS
from decomposition.report.wording import isolated

POINTS = 140
"""Points drawn of each curve."""


def plot_weyl(data: xr.Dataset, ax: Axes | None = None) -> Axes:
    """|μ_i − ν_i| of every step by rank; the thin level line is the Weyl bound ‖Δ‖₂.

    Args:
        data: from ``spectrum.perturbation.movements``.
        ax: where to draw.
    """
    with report_style():
        ax = axes_or_new(ax)
        index = data["index"].values
        for step, look in _looks(data):
            here = data.sel(step=step)
            moved = here["moved"].values
            shown = np.sort(moved)[::-1]
            floor = 1e-9 * float(here["spectral_norm"])
            last = int((shown > floor).sum())
            picked = np.unique(np.geomspace(1, max(last, 1), POINTS).round().astype(int)) - 1
            label = STEP_LABELS.get(step, isolated(step, 30))
            ax.plot(index[picked], shown[picked], label=label, **look)
            ax.axhline(float(here["spectral_norm"]), **{**look, "linewidth": 0.7})
        log_scale(ax, "x", "y")
        ax.set_xlabel("eigenvalue, most moved first")
        ax.set_ylabel("movement |μᵢ − νᵢ|")
        ax.set_title("Eigenvalues moved, and Weyl bounds (level)")
        legend_below(ax, columns=2)
    return ax


def plot_davis_kahan(data: xr.Dataset, largest: int = 40, ax: Axes | None = None) -> Axes:
    """‖sin Θ‖_F of the k leading eigenvectors divided by √k; thin lines are Davis–Kahan bounds.

    Args:
        data: from ``spectrum.perturbation.movements``, with subspaces.
        largest: k up to which to draw.
        ax: where to draw.
    """
    with report_style():
        ax = axes_or_new(ax)
        k = data["k"].values[:largest]
        for step, look in _looks(data):
            here = data.sel(step=step).isel(k=slice(0, largest))
            label = STEP_LABELS.get(step, isolated(step, 30))
            ax.plot(k, here["sine"].values / np.sqrt(k), label=label, **look)
            ax.plot(k, here["sine_bound"].values / np.sqrt(k), **{**look, "linewidth": 0.7})
        ax.set_ylim(0.0, 1.04)
        ax.set_xlabel("k leading eigenvectors (by value)")
        ax.set_ylabel("‖sin Θ‖ / √k")
        ax.set_title("Subspaces turned, and bounds (thin)")
        legend_below(ax, columns=2)
    return ax


def _looks(data: xr.Dataset) -> list[tuple[str, dict[str, Any]]]:
    """Step → look: that of the rung which the step leads to."""
    after = [str(name) for name in data["after"].values]
    styles = rung_styles(after)
    return [
        (str(step), {"color": styles[rung].color, "linestyle": styles[rung].dash})
        for step, rung in zip(data["step"].values, after, strict=True)
    ]
