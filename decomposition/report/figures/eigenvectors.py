"""Eigenvectors of two rungs: overlap of the leading subspaces, and squared cosines."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, legend_below, log_scale, report_style
from decomposition.report.palette import MUTED, rung_label, rung_styles

POINTS = 200
"""Points drawn of each curve."""


def plot_subspace_overlap(data: xr.DataArray, reference: str, ax: Axes | None = None) -> Axes:
    """Overlap of the k leading eigenvectors with the reference's, for every k.

    Args:
        data: overlap(rung, k).
        reference: name of the rung they are compared with.
        ax: where to draw. The grey line is what random subspaces share.
    """
    rungs = [str(rung) for rung in data["rung"].values if rung != reference]
    styles = rung_styles(rungs)
    k = data["k"].values
    picked = np.unique(np.geomspace(1, len(k), POINTS).round().astype(int)) - 1
    with report_style():
        ax = axes_or_new(ax)
        for rung in rungs:
            style = styles[rung]
            look = {"color": style.color, "linestyle": style.dash}
            ax.plot(k[picked], data.sel(rung=rung).values[picked], label=rung_label(rung), **look)
        ax.plot(k[picked], k[picked] / k[-1], color=MUTED, linewidth=0.9, label="by chance")
        log_scale(ax, "x")
        ax.set_ylim(0.0, 1.02)
        ax.set_xlabel("k leading eigenvectors")
        ax.set_ylabel("subspace overlap")
        ax.set_title(f"Leading eigenvectors shared with {rung_label(reference)}")
        legend_below(ax, columns=3)
    return ax


def plot_cosines(data: xr.DataArray, rung: str, reference: str, ax: Axes | None = None) -> Axes:
    """Squared cosines between the leading eigenvectors of two rungs; dark is 1.

    Args:
        data: squared_cosine(vector, reference_vector).
        rung: name of the rows.
        reference: name of the columns.
        ax: where to draw.
    """
    values = data.values
    with report_style():
        ax = axes_or_new(ax, width=4.4, height=4.0)
        edges = np.arange(len(values) + 1) + 0.5
        mesh = ax.pcolormesh(edges, edges, values, cmap="cividis_r", vmin=0.0, vmax=1.0)
        ax.set_aspect("equal")
        ax.invert_yaxis()
        ax.grid(visible=False)
        figure = ax.get_figure()
        assert figure is not None
        bar = figure.colorbar(mesh, ax=ax, shrink=0.85)
        bar.set_label("squared cosine")
        ax.set_xlabel(f"eigenvector of {rung_label(reference)}, by rank")
        ax.set_ylabel(f"eigenvector of {rung_label(rung)}, by rank")
        ax.set_title(f"{rung_label(rung)} against {rung_label(reference)}")
    return ax
