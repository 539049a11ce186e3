"""Where the loss lives among the queries: each one's change of LDS from H to K-FAC."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, report_style, say_missing
from decomposition.report.palette import MUTED, rung_styles
from decomposition.report.study import PROTOCOLS, Study, labels
from decomposition.results.schema import CHAIN


def query_changes(study: Study, protocol: str = "equal") -> xr.DataArray | None:
    """(query,) LDS under the Hessian less LDS under K-FAC, each at the λ of its level; or None."""
    lds, damping = study.array("/attribution", "lds"), study.array("/shares", "level_damping")
    ends = (CHAIN[0], CHAIN[-1])
    if lds is None or damping is None or protocol not in labels(damping, "protocol"):
        return None
    if not set(ends) <= set(labels(lds, "rung")) & set(labels(damping, "rung")):
        return None
    grid = np.asarray(lds["damping"].values, dtype=float)
    found = []
    for rung in ends:
        at = float(damping.sel(protocol=protocol, rung=rung))
        if not np.isfinite(at):
            return None
        found.append(lds.sel(rung=rung).isel(damping=int(np.abs(np.log(grid / at)).argmin())))
    change = found[0].drop_vars(["rung", "damping"]) - found[1].drop_vars(["rung", "damping"])
    return change.dropna("query") if bool(change.notnull().any()) else None


def plot_queries(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """Queries sorted by what they lose; above zero the cheaper curvature is worse."""
    change = query_changes(Study(tree), protocol)
    with report_style():
        ax = axes_or_new(ax)
        if change is None:
            return say_missing(ax, "no LDS by query in this result")
        values = np.sort(change.values)[::-1]
        place = 100 * (np.arange(values.size) + 0.5) / values.size
        color = rung_styles(CHAIN)["kfac"].color
        ax.fill_between(place, values, step="mid", color=color, alpha=0.3, linewidth=0)
        ax.plot(place, values, drawstyle="steps-mid", color=color, linewidth=1.2)
        ax.axhline(0, color=MUTED, linewidth=1.0)
        ax.axhline(values.mean(), color=MUTED, linewidth=1.0, linestyle="--")
        ax.annotate(
            "mean", (99, values.mean()), xytext=(0, 3), textcoords="offset points", ha="right"
        )
        ax.set_xlim(0, 100)
        ax.set_xlabel("queries, sorted by what they lose (%)")
        ax.set_ylabel("LDS lost, Hessian − K-FAC")
        ax.set_title(f"Loss by query, {PROTOCOLS.get(protocol, protocol)}")
    return ax
