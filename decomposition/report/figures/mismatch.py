"""Eigenvalue mismatch: K-FAC's products against the exact values along the same eigenvectors."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import (
    axes_or_new,
    legend_below,
    log_scale,
    report_style,
    say_missing,
)
from decomposition.report.palette import MUTED, rung_label, rung_styles
from decomposition.report.study import Study

POINTS = 250
"""Points drawn of each block, spread evenly over the ranks of the exact value."""

_MARKERS = "osD^vPX*<>"


def pairs(block: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Exact (EK-FAC) and product (K-FAC) eigenvalues of a block, positive pairs, thinned."""
    exact, product = (block[f"{r}_eigenvalues"].values for r in ("ekfac", "kfac"))
    finite = np.isfinite(exact) & np.isfinite(product)
    floor = 1e-14 * np.maximum(exact, product).max(initial=0, where=finite)
    keep = finite & (exact > floor) & (product > floor)
    order = np.flatnonzero(keep)[np.argsort(exact[keep])]
    places = np.linspace(0, len(order) - 1, min(POINTS, len(order)))
    picked = order[np.unique(places.round().astype(int))]
    return exact[picked], product[picked]


def plot_mismatch(tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """A marker per eigenvector; on the diagonal K-FAC is right, above it overestimates."""
    study = Study(tree)
    blocks = {
        name: data
        for name, data in study.children("/spectrum").items()
        if {"ekfac_eigenvalues", "kfac_eigenvalues"} <= set(data.data_vars)
    }
    with report_style():
        ax = axes_or_new(ax, height=4.3)
        if not blocks:
            return say_missing(ax, "no paired eigenvalues in this result")
        colors = [style.color for style in rung_styles(f"block {i}" for i in range(5)).values()]
        ends: list[float] = []
        for i, (name, data) in enumerate(blocks.items()):
            exact, product = pairs(data)
            if not exact.size:
                continue
            ends += [exact.min(), exact.max()]
            ax.plot(
                exact,
                product,
                linestyle="none",
                marker=_MARKERS[i % len(_MARKERS)],
                markersize=2.6,
                color=colors[i % len(colors)],
                alpha=0.7,
                label=f"block {rung_label(name, 18)}",
            )
        if ends:
            limits = [min(ends), max(ends)]
            ax.plot(limits, limits, color=MUTED, linewidth=1.0, label="equal")
        log_scale(ax, "x", "y")
        ax.set_xlabel("EK-FAC eigenvalue (exact curvature along it)")
        ax.set_ylabel("K-FAC eigenvalue (product)")
        ax.set_title("Product against exact eigenvalues")
        legend_below(ax, columns=3)
    return ax
