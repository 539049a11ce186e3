"""Where the spectral error lives: layers × rungs."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.figures.heat import Heat, draw_cells
from decomposition.report.palette import rung_label
from decomposition.report.study import Study, labels
from decomposition.report.wording import isolated, number
from decomposition.results.schema import BASELINES


def layer_errors(study: Study, metric: str = "relative_frobenius") -> xr.DataArray | None:
    """(block, rung) error of each rung's diagonal blocks, against H, else against G; or None."""
    for name in ("value", "value_against_ggn"):
        found = {
            block: data[name].sel(metric=metric)
            for block, data in study.children("/spectral_error").items()
            if name in data and metric in labels(data[name], "metric")
        }
        known = {block: row for block, row in found.items() if np.isfinite(row.values).any()}
        if known:
            stacked = xr.concat(list(known.values()), dim="block", coords="minimal")
            rungs = [r for r in study.rungs if r in labels(stacked, "rung") and r not in BASELINES]
            stacked = stacked.assign_coords(block=list(known)).sel(rung=rungs)
            stacked.attrs["against"] = "H" if name == "value" else "G"
            return stacked.transpose("block", "rung")
    return None


def plot_layers(tree: xr.DataTree, ax: Axes | None = None) -> Axes:
    """A cell per layer and rung, its relative Frobenius error written in it."""
    errors = layer_errors(Study(tree))
    with report_style():
        ax = axes_or_new(ax)
        if errors is None:
            return say_missing(ax, "no spectral errors by layer in this result")
        values = errors.values
        heat = Heat("cividis", 0.0, float(np.nanmax(values)) or 1.0)
        draw_cells(ax, values, heat, lambda row, column: number(values[row, column], 2))
        rungs = [rung_label(r, 12) for r in labels(errors, "rung")]
        ax.set_xticks(np.arange(len(rungs)) + 0.5, rungs, rotation=30, ha="right")
        blocks = labels(errors, "block")
        ax.set_yticks(np.arange(len(blocks)) + 0.5, [isolated(b, 16) for b in blocks])
        ax.set_ylabel("layer")
        ax.set_xlabel(f"relative Frobenius error against {errors.attrs['against']}")
        ax.set_title("Error by layer and rung")
    return ax
