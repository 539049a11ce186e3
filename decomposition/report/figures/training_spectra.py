"""Spectra along training: one small rank curve per checkpoint and rung."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, log_scale, report_style
from decomposition.report.palette import MUTED, rung_label, rung_styles

POINTS = 120
"""Points drawn of each curve."""


def plot_training_spectra(data: xr.Dataset, scope: str = "whole", ax: Axes | None = None) -> Axes:
    """A panel per checkpoint: |eigenvalue| against rank; hollow marks are negative.

    The panels share both scales, and each repeats the first rung's last spectrum in grey.

    Args:
        data: from ``spectrum.training.training_spectra``.
        scope: whole, or a block.
        ax: axes whose place the panels take; they become its children.
    """
    values = data["eigenvalues"].sel(scope=scope)
    rungs = [str(rung) for rung in values["rung"].values]
    epochs = values["epoch"].values
    styles = rung_styles(rungs)
    columns = min(len(epochs), 4)
    rows = -(-len(epochs) // columns)
    with report_style():
        ax = axes_or_new(ax, width=2.3 * columns + 0.8, height=2.1 * rows + 0.9)
        ax.set_axis_off()
        top = float(np.nanmax(np.abs(values.values)))
        last = _curve(values.isel(epoch=-1).sel(rung=rungs[0]).values)
        for i, epoch in enumerate(epochs):
            row, column = divmod(i, columns)
            width, height = 1.0 / columns, 1.0 / rows
            box = (
                column * width + 0.02,
                1.0 - (row + 1) * height + 0.1 * height,
                0.88 * width,
                0.74 * height,
            )
            panel = ax.inset_axes(box)
            panel.plot(last[0], last[1], color=MUTED, linewidth=0.8)
            for rung in rungs:
                style = styles[rung]
                rank, size, negative = _curve(values.sel(epoch=epoch, rung=rung).values)
                panel.plot(rank, size, color=style.color, linestyle=style.dash, linewidth=1.2)
                panel.plot(
                    rank[negative],
                    size[negative],
                    linestyle="none",
                    marker=style.marker,
                    markersize=2.6,
                    markerfacecolor="none",
                    markeredgecolor=style.color,
                    markeredgewidth=0.6,
                )
            log_scale(panel, "x", "y")
            panel.set_xlim(0.8, 1.25 * values.sizes["index"])
            panel.set_ylim(1e-7 * top, 2.0 * top)
            panel.set_title(_title(data, i, int(epoch)), fontsize=8.5)
            panel.tick_params(labelsize=7.5)
            if column:
                panel.tick_params(labelleft=False)
            if i + columns < len(epochs):
                panel.tick_params(labelbottom=False)
        for rung in rungs:
            style = styles[rung]
            ax.plot([], [], color=style.color, linestyle=style.dash, label=rung_label(rung))
        ax.plot([], [], color=MUTED, linewidth=0.8, label=f"{rung_label(rungs[0])}, last")
        ax.legend(
            loc="upper left",
            bbox_to_anchor=(0.0, -0.03),
            ncols=4,
            borderaxespad=0.0,
            handlelength=3.4,
        )
        ax.set_title("|eigenvalue| by rank along training (hollow: negative)", pad=8)
    return ax


def _curve(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = values[np.isfinite(values)]
    known = known[np.argsort(-np.abs(known), kind="stable")]
    size = np.abs(known)
    last = int((size > 1e-13 * size.max(initial=0.0)).sum())
    ranks = np.unique(np.geomspace(1, max(last, 1), POINTS).round().astype(int))
    return ranks, size[ranks - 1], known[ranks - 1] < 0


def _title(data: xr.Dataset, i: int, epoch: int) -> str:
    loss = f", loss {float(data['train_loss'][i]):.2g}" if "train_loss" in data else ""
    return f"epoch {epoch}{loss}"
