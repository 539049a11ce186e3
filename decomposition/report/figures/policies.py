"""Treatments of negative eigenvalues: LDS of one indefinite rung against damping."""

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
from decomposition.report.study import Study, labels


def most_negative(study: Study, rung: str) -> float | None:
    """|λ_min| of a rung with negative eigenvalues; None where it has none or is not known."""
    values = study.array("/spectrum", "eigenvalues")
    if values is None or rung not in labels(values, "rung"):
        return None
    here = values.sel(rung=rung).values
    known = here[np.isfinite(here)]
    return float(-known.min()) if known.size and known.min() < 0 else None


def plot_policies(tree: xr.DataTree, rung: str = "hessian", ax: Axes | None = None) -> Axes:
    """A line per policy; left of |λ_min| ``signed`` inverts an indefinite matrix."""
    study = Study(tree)
    lds = study.array("/policies", "lds_by_damping")
    with report_style():
        ax = axes_or_new(ax, height=4.1)
        if lds is None or rung not in labels(lds, "rung"):
            return say_missing(ax, "no policies compared in this result")
        grid = np.asarray(lds["damping"].values, dtype=float)
        looks = rung_styles(f"policy {i}" for i in range(5)).values()
        for policy, look in zip(labels(lds, "policy"), looks, strict=False):
            line = lds.sel(policy=policy, rung=rung).values
            keep = np.isfinite(line)
            if keep.any():
                ax.plot(
                    grid[keep],
                    line[keep],
                    color=look.color,
                    linestyle=look.dash,
                    marker=look.marker,
                    markersize=4,
                    label=policy,
                )
        edge = most_negative(study, rung)
        if edge is not None and grid.min() < edge < grid.max():
            ax.axvline(edge, color=MUTED, linewidth=1.0, label="|λ_min|: signed indefinite left")
        log_scale(ax, "x")
        ax.set_xlabel("damping λ (units of curvature)")
        ax.set_ylabel("LDS (mean rank correlation)")
        ax.set_title(f"Negative eigenvalues of the {rung_label(rung)}, by policy")
        legend_below(ax, columns=2)
    return ax
