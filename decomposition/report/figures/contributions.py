"""Where a step's loss lives: steps × layers, or steps × bands of the spectrum."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.figures.heat import draw_cells, signed_heat
from decomposition.report.study import STEP_LABELS, Study, interval, labels
from decomposition.report.wording import isolated, signed, span

AXES = {
    "layers": ("block", "layer", "LDS lost by layer and step"),
    "bands": ("band", "eigenvalues, by rank of magnitude", "LDS lost by spectral band and step"),
}
"""Child of ``/where`` → its dimension, its name for people, the figure's title."""


def plot_contributions(tree: xr.DataTree, what: str = "layers", ax: Axes | None = None) -> Axes:
    """A cell per part and step; each column adds up to the step's total, in the last row."""
    study = Study(tree)
    dim, name, title = AXES[what]
    contribution = study.array(f"/where/{what}", "contribution")
    total = study.array(f"/where/{what}", "total")
    with report_style():
        if contribution is None or total is None:
            return say_missing(axes_or_new(ax), "no such split of the loss in this result")
        steps, parts = labels(contribution, "step"), labels(contribution, dim)
        ax = axes_or_new(ax, height=1.2 + 0.32 * (len(parts) + 1))
        middle = contribution.sel(ci_bound="estimate").transpose(dim, "step").values
        values = np.vstack([middle, total.sel(ci_bound="estimate").values])

        def full(row: int, column: int) -> str:
            step = STEP_LABELS.get(steps[column], steps[column])
            if row == len(parts):
                return f"{step}, total: {span(interval(total, step=steps[column]))}"
            value = interval(contribution, **{"step": steps[column], dim: parts[row]})
            return f"{step}, {name} {isolated(parts[row])}: {span(value)}"

        tops = [*range(len(parts)), len(parts) + 0.3]
        draw_cells(
            ax, values, signed_heat(values), lambda i, j: signed(values[i, j]), full, at=tops
        )
        names = [*(isolated(part, 16) for part in parts), "total"]
        ax.set_yticks([top + 0.5 for top in tops], names)
        ax.set_xticks(np.arange(len(steps)) + 0.5, [STEP_LABELS.get(s, s) for s in steps])
        ax.set_ylabel(name)
        ax.set_title(title)
    return ax
